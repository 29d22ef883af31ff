//! The frames that a server sends, byte by byte.

use riser_edge::ws::frame;

#[test]
fn frames_of_the_server_are_what_the_rfc_says() {
    assert_eq!(frame::text("Hello")[..], *b"\x81\x05Hello");
    assert_eq!(frame::binary(&[0; 126])[..5], *b"\x82\x7e\x00\x7e\x00");
    assert_eq!(frame::binary(&[0; 125])[..3], *b"\x82\x7d\x00");
    assert_eq!(frame::binary(&vec![0; 65_535])[..4], *b"\x82\x7e\xff\xff");
    assert_eq!(frame::binary(&vec![0; 65_536])[..10], *b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00");
    assert_eq!(frame::binary(&vec![0; 65_536]).len(), 65_546);
    assert_eq!(frame::ping(b"p")[..], *b"\x89\x01p");
    assert_eq!(frame::pong(b"")[..], *b"\x8a\x00");
    assert_eq!(frame::ping(&[0; 200]).len(), 127);
    assert_eq!(frame::close(4002, "too slow")[..], *b"\x88\x0a\x0f\xa2too slow");
    assert_eq!(frame::close_empty()[..], *b"\x88\x00");
}

#[test]
fn a_close_reason_is_cut_between_characters() {
    for (reason, kept) in [
        ("x".repeat(123), 123),
        ("x".repeat(124), 123),
        ("é".repeat(62), 122),
        ("x".to_owned() + &"é".repeat(61), 123),
        ("😀".repeat(31), 120),
    ] {
        let frame = frame::close(1000, &reason);
        assert_eq!(frame[4..], reason.as_bytes()[..kept], "{reason}");
        assert_eq!(usize::from(frame[1]), kept + 2);
    }
}
