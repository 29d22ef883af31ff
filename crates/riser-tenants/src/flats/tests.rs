//! Flats, their codes and what is noted of them, over a bucket in memory.

use riser_bus::kv::memory::MemoryKv;

use super::*;

fn flats() -> Flats {
    Flats::new(Arc::new(MemoryKv::new().client(&"edge-0".parse().expect("an edge"))))
}

fn tenant() -> TenantId {
    "acme".parse().expect("a tenant")
}

fn new(address: &str, name: &str) -> NewFlat {
    NewFlat { address: address.parse().expect("an address"), about: [Some(name.into()), None, None] }
}

fn code(registered: &Registered) -> Code {
    registered.code.as_deref().expect("a code").parse().expect("a good code")
}

#[tokio::test]
async fn a_code_is_good_once_and_for_a_time() {
    let flats = flats();
    let made = flats.register(&tenant(), &[new("b/f1", "1")], Codes::Missing, 10, 100).await.expect("registered");
    let first = code(&made[0]);
    assert_eq!(flats.look(&first, 99).await, Ok(false));
    assert_eq!(flats.look(&first, 100).await, Err(FlatsError::BadCode), "too old");
    assert_eq!(flats.enrol(&first, 50, 1_000).await, Ok(()));
    assert_eq!(flats.enrol(&first, 51, 2_000).await, Err(FlatsError::BadCode), "used");
    let again = flats.register(&tenant(), &[new("b/f1", "1")], Codes::All, 60, 200).await.expect("registered");
    assert!(!again[0].new);
    assert_eq!(flats.look(&code(&again[0]), 61).await, Ok(true));
    assert_eq!(flats.look(&first, 61).await, Err(FlatsError::BadCode), "another took its place");
    flats.forget(&first.key).await.expect("forgotten");
    assert_eq!(flats.look(&code(&again[0]), 61).await, Err(FlatsError::BadCode));
}

#[tokio::test]
async fn registering_again_changes_what_is_said_and_makes_no_second_code() {
    let flats = flats();
    let two = [new("b/f1", "one"), new("b/f2", "two")];
    let made = flats.register(&tenant(), &two, Codes::Missing, 0, 100).await.expect("registered");
    assert!(made.iter().all(|flat| flat.new && flat.code.is_some()));
    let two = [new("b/f1", "other"), new("b/f2", "two")];
    let made = flats.register(&tenant(), &two, Codes::Missing, 1, 100).await.expect("registered");
    assert!(made.iter().all(|flat| !flat.new && flat.code.is_none()));
    let known = flats.building(&tenant(), &"b".parse().expect("a building")).await.expect("read");
    let names: Vec<_> = known.values().map(|flat| flat.name.as_deref()).collect();
    assert_eq!(names, [Some("other"), Some("two")]);
    // One whose time is over and that nobody used is made anew.
    let made = flats.register(&tenant(), &two, Codes::Missing, 100, 200).await.expect("registered");
    assert!(made.iter().all(|flat| flat.code.is_some()));
    assert_eq!(flats.forget_all(&tenant()).await, Ok(2));
    assert_eq!(flats.forget_all(&tenant()).await, Ok(0));
}

/// When the tokens of the flats of `b` end.
async fn ends(flats: &Flats) -> Vec<Option<u64>> {
    let known = flats.building(&tenant(), &"b".parse().expect("a building")).await.expect("read");
    known.values().map(|flat| flat.token_expires_at_ms).collect()
}

async fn note(flats: &Flats, gateway: &str, issued_at_ms: u64, expires_at_ms: u64) {
    let token = TokenTimes { issued_at_ms, expires_at_ms };
    let tokens = BTreeMap::from([(gateway.parse().expect("a gateway"), token)]);
    let noted = flats.note_tokens(&tenant(), &"b".parse().expect("a building"), &tokens).await;
    noted.expect("noted");
}

#[tokio::test]
async fn a_tokens_end_is_noted_when_it_is_a_day_later_and_never_set_back() {
    let (flats, day) = (flats(), NOTED_LATER_MS);
    let two = [new("b/f1", "1"), new("b/f2", "2")];
    let made = flats.register(&tenant(), &two, Codes::Missing, 0, 100).await.expect("registered");
    assert_eq!(ends(&flats).await, [None, None]);
    let first = made.iter().find(|flat| flat.address.gateway().as_str() == "f1").expect("it was made");
    flats.enrol(&code(first), 50, 10 * day).await.expect("enrolled");
    let revision = async || {
        let page = flats.kv.list(Bucket::Flats, 0).await.expect("an answer");
        page.entries.iter().map(|(_, value)| value.revision).max()
    };
    let before = revision().await;
    for end in [9 * day, 10 * day, 11 * day - 1] {
        note(&flats, "f1", 1_000, end).await;
        assert_eq!(ends(&flats).await, [Some(10 * day), None]);
    }
    assert_eq!(revision().await, before, "nothing is written for less than a day");
    note(&flats, "f1", 1_000, 11 * day).await;
    assert_eq!(ends(&flats).await, [Some(11 * day), None], "it is noted with its own flat");
}

#[tokio::test]
async fn a_late_note_undoes_neither_an_enrolment_nor_an_erasure() {
    let (flats, day) = (flats(), NOTED_LATER_MS);
    let made = flats.register(&tenant(), &[new("b/f1", "1")], Codes::Missing, 0, 100_000).await.expect("registered");
    flats.enrol(&code(&made[0]), 20_000, 30 * day).await.expect("enrolled");
    let again = flats.register(&tenant(), &[new("b/f1", "1")], Codes::All, 40_000, 100_000).await.expect("registered");
    assert_eq!(ends(&flats).await, [Some(30 * day)], "registering again says nothing of the token");
    flats.enrol(&code(&again[0]), 50_900, 10 * day).await.expect("enrolled");
    assert_eq!(ends(&flats).await, [Some(10 * day)], "the old device's token does not count any more");
    note(&flats, "f1", 49_000, 60 * day).await;
    assert_eq!(ends(&flats).await, [Some(10 * day)], "it was issued to the old device");
    note(&flats, "f1", 50_000, 20 * day).await;
    assert_eq!(ends(&flats).await, [Some(20 * day)], "it was issued in the same second");
    flats.forget(&code(&again[0]).key).await.expect("forgotten");
    note(&flats, "f1", 60_000, 60 * day).await;
    note(&flats, "f9", 60_000, 60 * day).await;
    assert_eq!(ends(&flats).await, [] as [Option<u64>; 0], "what is not registered stays so");
}

#[tokio::test]
async fn a_part_that_cannot_be_read_does_not_keep_others_from_being_noted() {
    let (flats, day) = (flats(), NOTED_LATER_MS);
    let named: Vec<NewFlat> = (0..20).map(|n| new(&format!("b/f{n}"), "1")).collect();
    flats.register(&tenant(), &named, Codes::Missing, 0, 100).await.expect("registered");
    let spoilt = part_of(named[0].address.gateway());
    let entry = Entry::Flats(tenant(), "b".parse().expect("a building"), spoilt);
    let revision = flats.kv.get(&entry).await.expect("an answer").expect("a value").revision;
    let put = flats.kv.put(&entry, "{".into(), revision, None).await;
    let Ok(Written::Yes(revision)) = put else { panic!("{put:?}") };
    let token = TokenTimes { issued_at_ms: 0, expires_at_ms: day };
    let tokens = named.iter().map(|flat| (flat.address.gateway().clone(), token)).collect();
    let noted = flats.note_tokens(&tenant(), &"b".parse().expect("a building"), &tokens).await;
    assert_eq!(noted, Err(FlatsError::Unreadable));
    flats.kv.delete(&entry, revision).await.expect("an answer");
    let ends = ends(&flats).await;
    assert!(!ends.is_empty() && ends.iter().all(|end| *end == Some(day)), "{ends:?}");
}

#[test]
fn what_was_kept_before_tokens_were_noted_is_read() {
    let kept: Flat = serde_json::from_str(r#"{"enrolled_at_ms":7}"#).expect("a flat");
    assert_eq!((kept.enrolled_at_ms, kept.token_expires_at_ms), (Some(7), None));
    assert_eq!(serde_json::to_string(&kept).expect("JSON"), r#"{"enrolled_at_ms":7}"#);
}

#[tokio::test]
async fn one_flat_is_read_by_itself_and_says_what_it_is_called() {
    let flats = flats();
    let about = |name: Option<&str>, floor: Option<&str>| [name.map(str::to_owned), floor.map(str::to_owned), None];
    let all = [("b/f1", about(Some("left"), Some("3"))), ("b/f2", about(None, Some("4"))), ("b/f3", about(None, None))];
    let all = all.map(|(address, about)| NewFlat { address: address.parse().expect("an address"), about });
    flats.register(&tenant(), &all, Codes::Missing, 0, 100).await.expect("registered");
    let label = async |tenant: &str, address: &str| {
        let key = GatewayKey::new(tenant.parse().expect("a tenant"), address.parse().expect("an address"));
        flats.flat(&key).await.expect("read").map(Flat::into_label)
    };
    let both = Label { name: Some("left".into()), floor: Some("3".into()) };
    let floor = Label { name: None, floor: Some("4".into()) };
    assert_eq!(label("acme", "b/f1").await, Some(Some(both)));
    assert_eq!(label("acme", "b/f2").await, Some(Some(floor)));
    assert_eq!(label("acme", "b/f3").await, Some(None), "it is registered and called nothing");
    for (tenant, address) in [("acme", "b/f4"), ("acme", "c/f1"), ("other", "b/f1")] {
        assert_eq!(label(tenant, address).await, None, "{tenant} {address}");
    }
}

#[tokio::test]
async fn five_thousand_flats_of_one_building_are_a_few_entries() {
    let flats = flats();
    let all: Vec<NewFlat> =
        (0..5_000).map(|n| new(&format!("b/f{n:04}"), &format!("Flat {n} on the long side"))).collect();
    for some in all.chunks(FLATS_AT_ONCE) {
        flats.register(&tenant(), some, Codes::Missing, 0, 100).await.expect("registered");
    }
    assert_eq!(flats.building(&tenant(), &"b".parse().expect("a building")).await.expect("read").len(), 5_000);
    let page = flats.kv.list(Bucket::Flats, 0).await.expect("an answer");
    assert_eq!((page.entries.len(), page.next), (usize::from(FLAT_PARTS), None));
}

#[test]
fn a_code_is_read_however_it_is_typed_and_nothing_near_it_is() {
    let key = GatewayKey::new(tenant(), "b12/f0304".parse().expect("an address"));
    let (text, kept) = make(&key, 1).expect("randomness");
    let (flat, letters) = text.rsplit_once('/').expect("letters");
    let typed = format!("  {flat}/{} ", letters.to_lowercase().replace('-', " ").replace('0', "o").replace('1', "l"));
    for good in [&text, &typed] {
        assert_eq!(good.parse::<Code>().expect("a code").sha256, kept.sha256, "{good}");
    }
    for bad in [
        "",
        "/",
        "acme/b/f",
        &text[..text.len() - 1],
        &format!("{text}7"),
        &text.replace("acme", "ACME"),
        &"x".repeat(300),
    ] {
        assert!(bad.parse::<Code>().is_err(), "{bad}");
    }
    let other: Code = text.replace("b12", "b13").parse().expect("a code");
    assert_ne!(other.sha256, kept.sha256, "it is for one flat");
}
