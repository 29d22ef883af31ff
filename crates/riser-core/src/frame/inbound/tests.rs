//! Frames that are read, and what is said of those that are not.

use super::*;

fn refused_as(text: &str) -> (ErrorCode, String) {
    match Inbound::parse(text) {
        Err(Broken::Refused(refused)) => (refused.code, refused.message),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn what_is_no_frame_ends_the_session() {
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    for bad in
        ["", "{", "[]", "1", "null", "{}", r#"{"t":1}"#, r#"{"t":"ping"} x"#, r#"{"t":NaN}"#, "{\"t\":\"ping\"", &deep]
    {
        assert!(matches!(Inbound::parse(bad), Err(Broken::NotAFrame(_))), "{bad}");
    }
}

#[test]
fn what_is_wrong_in_a_frame_is_named() {
    let deep = format!(r#"{{"t":"state","set":{{"a":{}1{}}}}}"#, "[".repeat(1000), "]".repeat(1000));
    let rows = [
        (r#"{"t":"dance","n":1}"#, ErrorCode::UnknownType, "\"dance\""),
        (r#"{"t":"ping","must":["mode"],"mode":1}"#, ErrorCode::Unsupported, "\"mode\""),
        (r#"{"t":"ping","t":"ping"}"#, ErrorCode::BadFrame, "twice"),
        (r#"{"t":"state","n":-1,"set":{}}"#, ErrorCode::BadFrame, "`n`"),
        (r#"{"t":"state","n":9007199254740992,"set":{}}"#, ErrorCode::BadFrame, "`n`"),
        (r#"{"t":"state"}"#, ErrorCode::BadFrame, "`set` is missing"),
        (r#"{"t":"state","set":{"a//b":1}}"#, ErrorCode::BadFrame, r#"`set`["a//b"]: not a path"#),
        (r#"{"t":"state","set":{"a":1,"a":2}}"#, ErrorCode::BadFrame, "same path twice"),
        (r#"{"t":"state","set":{"a":1e999}}"#, ErrorCode::BadFrame, r#"`set`["a"]"#),
        (r#"{"t":"state","set":[]}"#, ErrorCode::BadFrame, "`set`"),
        (r#"{"t":"device","path":"a"}"#, ErrorCode::BadFrame, "`up` is missing"),
        (r#"{"t":"describe","devices":{"a":{"kind":"robot"}}}"#, ErrorCode::BadFrame, "unknown variant"),
        (r#"{"t":"renew"}"#, ErrorCode::BadFrame, "`n` is missing"),
        (r#"{"t":"subscribe","n":1,"to":"b/**","lanes":["state"]}"#, ErrorCode::BadFrame, "`to`: not a pattern"),
        (r#"{"t":"subscribe","n":1,"to":"b/*","lanes":[]}"#, ErrorCode::BadFrame, "`lanes`"),
        (r#"{"t":"subscribe","n":1,"to":"b/*","lanes":["x"]}"#, ErrorCode::BadFrame, "`lanes`"),
        (
            r#"{"t":"subscribe","n":1,"to":"b/*","lanes":["state"],"path":["a/#/b"]}"#,
            ErrorCode::BadFrame,
            "`path`: not a path pattern",
        ),
        (deep.as_str(), ErrorCode::BadFrame, "32 levels"),
        (r#"{"t":"event"}"#, ErrorCode::BadFrame, "`type` is missing"),
        (r#"{"t":"event","type":"a\nb"}"#, ErrorCode::BadFrame, "`type`: not an event type"),
        (r#"{"t":"event","type":"a","id":""}"#, ErrorCode::BadFrame, "`id`: not an event id"),
        (r#"{"t":"event","type":"a","data":{"a":1,"a":2}}"#, ErrorCode::BadFrame, "`data`"),
        (r#"{"t":"command","n":1,"to":"b/_","path":"a","action":"x"}"#, ErrorCode::BadFrame, "`to`: a command goes"),
        (r#"{"t":"command","to":"b/g","path":"a","action":"x"}"#, ErrorCode::BadFrame, "`n` is missing"),
        (r#"{"t":"command","n":1,"to":"b/g","path":"a"}"#, ErrorCode::BadFrame, "`action` is missing"),
        (
            r#"{"t":"command","n":1,"to":"b/g","path":"a","action":"x","deadline_ms":99}"#,
            ErrorCode::BadFrame,
            "`deadline_ms`: not from 100 to 86400000",
        ),
        (
            r#"{"t":"command","n":1,"to":"b/g","path":"a","action":"x","if_offline":"x"}"#,
            ErrorCode::BadFrame,
            "`if_offline`: unknown variant",
        ),
        (r#"{"t":"cancel","n":1,"cmd":"x"}"#, ErrorCode::BadFrame, "`cmd`: not a `cmd`"),
        (
            r#"{"t":"result","cmd":"b.g.07070707070707070707070707070707.1","status":"held"}"#,
            ErrorCode::BadFrame,
            "`status`: unknown variant",
        ),
        (r#"{"t":"open","n":1,"path":"a","kind":"mp3"}"#, ErrorCode::BadFrame, "`kind`: unknown variant"),
        (r#"{"t":"close","n":1,"stream":4294967296}"#, ErrorCode::BadFrame, "`stream`"),
        (r#"{"t":"seen","n":1,"id":"x"}"#, ErrorCode::BadFrame, "`of` is missing"),
        (r#"{"t":"seen","n":1,"of":"b/_"}"#, ErrorCode::BadFrame, "`id` is missing"),
    ];
    for (text, code, part) in rows {
        let (got, message) = refused_as(text);
        assert!(got == code && message.contains(part), "{text}: {got:?} {message}");
    }
}

#[test]
fn a_frame_is_read_as_it_is_meant() {
    let text = r#"{"t":"state","n":7,"set":{"k/l":{"on":true},"h":null},"ts_ms":-5,"later":[1]}"#;
    let Ok(Inbound::State { n, set, full: false, more: false, ts_ms: Some(-5) }) = Inbound::parse(text) else {
        panic!("not read");
    };
    assert_eq!(n, N::new(7));
    assert_eq!(set.len(), 2);
    assert_eq!(set[&"h".parse::<Path>().expect("a path")], None);
    let hello = Inbound::parse(r#"{"t":"hello","token":"very-secret"}"#).expect("a hello");
    assert!(!format!("{hello:?}").contains("very-secret"));
}

#[test]
fn a_frame_that_names_a_field_twice_is_answered_when_its_number_is_not_in_doubt() {
    for (text, n) in [
        (r#"{"t":"event","n":9,"data":1,"data":2}"#, N::new(9)),
        (r#"{"t":"event","n":9,"n":9}"#, None),
        (r#"{"t":"event","n":"x","data":1,"data":2}"#, None),
    ] {
        let Err(Broken::Refused(refused)) = Inbound::parse(text) else { panic!("not refused: {text}") };
        assert_eq!((refused.n, refused.code), (n, ErrorCode::BadFrame), "{text}");
    }
}

#[test]
fn an_error_answers_the_number_of_its_frame() {
    let Err(Broken::Refused(refused)) = Inbound::parse(r#"{"t":"dance","n":5}"#) else { panic!("not refused") };
    assert_eq!(refused.n, N::new(5));
}
