//! What holds of all subjects and names.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;

/// Names that are near each other and near what subjects are made of, and any others.
fn names() -> impl Strategy<Value = String> {
    let near = ["a", "a-b", "aa", "b", "0", "up", "edge", "edges", "live", "riser", "v1"].map(str::to_owned).to_vec();
    prop_oneof![3 => prop::sample::select(near), 1 => "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"]
}

fn tenants() -> impl Strategy<Value = TenantId> {
    names().prop_map(|name| name.parse().expect("a tenant name"))
}

fn edges() -> impl Strategy<Value = EdgeId> {
    names().prop_map(|name| name.parse().expect("an edge name"))
}

fn addresses() -> impl Strategy<Value = Address> {
    let parts = || prop_oneof![3 => names(), 1 => "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"];
    prop_oneof![
        6 => (parts(), parts()).prop_map(|(building, gateway)| format!("{building}/{gateway}")),
        1 => parts().prop_map(|building| format!("{building}/_")),
        1 => Just("_/_".to_owned()),
    ]
    .prop_map(|address| address.parse().expect("an address"))
}

fn keys() -> impl Strategy<Value = GatewayKey> {
    (tenants(), addresses()).prop_map(|(tenant, address)| GatewayKey::new(tenant, address))
}

fn subjects() -> impl Strategy<Value = Subject> {
    prop_oneof![
        4 => keys().prop_map(Subject::Up),
        2 => keys().prop_map(Subject::Live),
        4 => (edges(), keys()).prop_map(|(edge, key)| Subject::Edge(edge, key)),
        2 => (edges(), keys()).prop_map(|(edge, key)| Subject::EdgeLive(edge, key)),
        1 => Just(Subject::Edges),
    ]
}

fn filters() -> impl Strategy<Value = Filter> {
    let of = || {
        (tenants(), addresses(), 0..3).prop_map(|(tenant, address, width)| match (width, address.is_gateway()) {
            (1, true) => (tenant, Pattern::Building(address.building().clone())),
            (2, _) => (tenant, Pattern::All),
            _ => (tenant, Pattern::One(address)),
        })
    };
    prop_oneof![
        4 => of().prop_map(|(tenant, pattern)| Filter::Up(tenant, pattern)),
        2 => of().prop_map(|(tenant, pattern)| Filter::Live(tenant, pattern)),
        2 => edges().prop_map(Filter::Edge),
        1 => edges().prop_map(Filter::EdgeLive),
        1 => Just(Filter::Edges),
    ]
}

/// How a server compares a subject with a filter: token by token, where `*` stands for any one token and a last
/// `>` for one or more.
fn tokens_match(filter: &str, subject: &str) -> bool {
    let (mut filter, mut subject) = (filter.split('.'), subject.split('.'));
    loop {
        match (filter.next(), subject.next()) {
            (None, None) | (Some(">"), Some(_)) => return true,
            (Some(token), Some(other)) if token == "*" || token == other => {}
            _ => return false,
        }
    }
}

/// Whose a subject is; what edges tell each other is nobody's.
fn tenant_of(subject: &Subject) -> Option<&TenantId> {
    match subject {
        Subject::Up(key) | Subject::Live(key) | Subject::Edge(_, key) | Subject::EdgeLive(_, key) => Some(&key.tenant),
        Subject::Edges => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_048,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_subject_of_one_tenant_matches_no_filter_of_another(subject in subjects(), filter in filters()) {
        if let Filter::Up(tenant, _) | Filter::Live(tenant, _) = &filter {
            let own = tenant_of(&subject) == Some(tenant);
            prop_assert!(own || !filter.matches(&subject), "{subject} at {filter}");
            prop_assert!(own || !tokens_match(&filter.to_string(), &subject.to_string()), "{subject} at {filter}");
        }
    }

    #[test]
    fn a_subject_of_one_address_matches_the_exact_filter_of_no_other(a in keys(), b in keys()) {
        let filter = Filter::Up(b.tenant.clone(), Pattern::One(b.address.clone()));
        let subject = Subject::Up(a.clone());
        prop_assert_eq!(filter.matches(&subject), a == b);
        prop_assert_eq!(tokens_match(&filter.to_string(), &subject.to_string()), a == b);
    }

    #[test]
    fn a_subject_of_one_building_matches_the_filter_of_no_other(a in keys(), b in keys()) {
        prop_assume!(b.address.building().as_str() != "_");
        let filter = Filter::Up(b.tenant.clone(), Pattern::Building(b.address.building().clone()));
        let same = a.tenant == b.tenant && a.address.building() == b.address.building();
        prop_assert_eq!(filter.matches(&Subject::Up(a)), same);
    }

    #[test]
    fn a_server_matches_tokens_as_a_filter_matches_subjects(subject in subjects(), filter in filters()) {
        let by_tokens = tokens_match(&filter.to_string(), &subject.to_string());
        prop_assert_eq!(by_tokens, filter.matches(&subject), "{} at {}", subject, filter);
    }

    #[test]
    fn a_filter_matches_what_it_was_made_for(subject in subjects()) {
        let patterns = |key: &GatewayKey| {
            [Pattern::One(key.address.clone()), Pattern::Building(key.address.building().clone()), Pattern::All]
        };
        let filters: Vec<Filter> = match &subject {
            Subject::Up(key) => patterns(key).map(|p| Filter::Up(key.tenant.clone(), p)).into(),
            Subject::Live(key) => patterns(key).map(|p| Filter::Live(key.tenant.clone(), p)).into(),
            Subject::Edge(edge, _) => vec![Filter::Edge(edge.clone())],
            Subject::EdgeLive(edge, _) => vec![Filter::EdgeLive(edge.clone())],
            Subject::Edges => vec![Filter::Edges],
        };
        for filter in filters {
            prop_assert!(filter.matches(&subject), "{subject} at {filter}");
            prop_assert!(tokens_match(&filter.to_string(), &subject.to_string()), "{subject} at {filter}");
        }
    }

    #[test]
    fn a_subject_is_read_as_it_was_written(subject in subjects()) {
        prop_assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
    }

    #[test]
    fn whatever_is_read_is_written_the_same(text in "(riser\\.v1\\.)?(up|edge|edges|live|edge-live)?[.a-zA-Z0-9_*> -]{0,40}") {
        if let Some(subject) = Subject::parse(&text) {
            prop_assert_eq!(subject.to_string(), text);
        }
    }

    #[test]
    fn a_subject_with_one_hostile_token_is_none(
        subject in subjects(),
        at in any::<prop::sample::Index>(),
        hostile in prop::sample::select(vec!["", "*", ">", " ", "\r\nPUB", "$SYS", "_INBOX", "\0", "\u{430}", "a b", "-"]),
    ) {
        let text = subject.to_string();
        let mut tokens: Vec<_> = text.split('.').collect();
        let at = at.index(tokens.len());
        tokens[at] = hostile;
        prop_assert_eq!(Subject::parse(&tokens.join(".")), None, "{:?}", tokens);
    }
}

#[test]
fn what_is_no_subject_of_ours_is_not_read() {
    for text in [
        "",
        "riser",
        "riser.v1",
        "riser.v1.",
        "riser.v2.edges",
        "Riser.v1.edges",
        " riser.v1.edges",
        "riser.v1.edges ",
        "riser.v1.edges.",
        "riser.v1.edges.a",
        "riser.v1..edges",
        "riser.v1.up",
        "riser.v1.up.acme.b1",
        "riser.v1.up.acme.b1.g1.x",
        "riser.v1.up.acme.b1.g1.",
        "riser.v1.up.acme._.g1",
        "riser.v1.up.ACME.b1.g1",
        "riser.v1.up.acme.b1.*",
        "riser.v1.up.acme.*.*",
        "riser.v1.up.acme.>",
        "riser.v1.up.acme.b/1.g1",
        "riser.v1.edge.e",
        "riser.v1.edge.e.acme.b1",
        "riser.v1.edge._.acme.b1.g1",
        "riser.v1.edge.e.acme.b1.g1\r\n",
        "$SYS.riser.v1.edges",
        "_INBOX.riser.v1.edges",
    ] {
        assert_eq!(Subject::parse(text), None, "{text:?}");
    }
}

#[test]
fn subjects_and_filters_are_written_like_this() {
    let key = || GatewayKey::new("acme".parse().expect("a tenant"), "b12/f0304".parse().expect("an address"));
    let edge = || "edge-0".parse().expect("an edge name");
    let up = |pattern: &str| Filter::Up(key().tenant, pattern.parse().expect("a pattern"));
    assert_eq!(Subject::Up(key()).to_string(), "riser.v1.up.acme.b12.f0304");
    assert_eq!(Subject::Edge(edge(), key()).to_string(), "riser.v1.edge.edge-0.acme.b12.f0304");
    assert_eq!(Subject::Edges.to_string(), "riser.v1.edges");
    assert_eq!(up("b12/f0304").to_string(), "riser.v1.up.acme.b12.f0304");
    assert_eq!(up("b12/*").to_string(), "riser.v1.up.acme.b12.*");
    assert_eq!(up("*/*").to_string(), "riser.v1.up.acme.*.*");
    assert_eq!(Filter::Edge(edge()).to_string(), "riser.v1.edge.edge-0.*.*.*");
    assert_eq!(Filter::Edges.to_string(), "riser.v1.edges");
    assert_eq!(event_stream(&key().tenant), "riser-ev-acme");
    let events = EventSubject { tenant: key().tenant, life: 0xab };
    assert_eq!(events.to_string(), "riser.v1.log.acme.00000000000000ab");
    assert_eq!(EventSubject::parse("riser.v1.log.acme.00000000000000ab"), Some(events));
    assert_eq!(Subject::parse("riser.v1.log.acme.00000000000000ab"), None);
}

fn entries() -> impl Strategy<Value = Entry> {
    prop_oneof![
        2 => (keys(), any::<u128>()).prop_map(|(key, digest)| Entry::Held(key, Digest(digest.to_be_bytes()))),
        1 => tenants().prop_map(Entry::Tenant),
        1 => (keys(), 0..FLAT_PARTS).prop_map(|(key, part)| {
            Entry::Flats(key.tenant, key.address.building().clone(), part)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn an_entry_is_read_as_it_was_written_and_by_its_own_bucket_alone(entry in entries()) {
        let subject = entry.to_string();
        for bucket in Bucket::ALL {
            let own = (bucket == entry.bucket()).then(|| entry.clone());
            prop_assert_eq!(tokens_match(&bucket.subjects(), &subject), own.is_some());
            prop_assert_eq!(Entry::parse(bucket, &subject), own);
        }
        prop_assert_eq!(subject.parse(), Ok(entry));
        prop_assert_eq!(Subject::parse(&subject), None);
    }

    #[test]
    fn an_entry_with_one_hostile_token_is_none(
        entry in entries(),
        at in any::<prop::sample::Index>(),
        hostile in prop::sample::select(vec!["", "*", ">", " ", "\r\nPUB", "$SYS", "\0", "\u{430}", "a b", "-", "A B"]),
    ) {
        let text = entry.to_string();
        let mut tokens: Vec<_> = text.split('.').collect();
        let at = at.index(tokens.len());
        tokens[at] = hostile;
        prop_assert_eq!(Entry::parse(entry.bucket(), &tokens.join(".")), None, "{:?}", tokens);
        prop_assert_eq!(tokens.join(".").parse::<Entry>(), Err(NoEntry), "{:?}", tokens);
    }
}

proptest! {
    #[test]
    fn a_ledgers_subject_is_read_as_it_was_written_and_matches_its_own_filters_alone(a in keys(), b in keys()) {
        let subject = LedgerSubject(a.clone());
        prop_assert_eq!(LedgerSubject::parse(&subject.to_string()), Some(subject.clone()));
        prop_assert_eq!(Subject::parse(&subject.to_string()), None);
        prop_assert!(tokens_match(&LedgerSubject::all(), &subject.to_string()));
        let matches = |pattern| tokens_match(&LedgerSubject::of(&b.tenant, &pattern), &subject.to_string());
        prop_assert_eq!(matches(Pattern::One(b.address.clone())), a == b);
        prop_assert_eq!(matches(Pattern::All), a.tenant == b.tenant);
    }
}

#[test]
fn entries_are_written_like_this() {
    let key = GatewayKey::new("acme".parse().expect("a tenant"), "b12/f0304".parse().expect("an address"));
    let held = Entry::Held(key.clone(), Digest([0xab; 16]));
    assert_eq!(held.to_string(), format!("$KV.riser-held.acme.b12.f0304.{}", "ab".repeat(16)));
    assert_eq!(Entry::Tenant(key.tenant).to_string(), "$KV.riser-tenants.acme");
    assert_eq!(Bucket::Held.stream(), "KV_riser-held");
    assert_eq!(Bucket::Tenants.stream(), "KV_riser-tenants");
    let upper = held.to_string().replace("abab", "ABAB");
    assert_eq!(Entry::parse(Bucket::Held, &upper), None, "another way to write it");
}

#[test]
fn what_is_no_subject_of_a_stream_of_events_is_not_read() {
    for text in [
        "riser.v1.log.acme",
        "riser.v1.log.acme.",
        "riser.v1.log.acme.ab",
        "riser.v1.log.acme.0000000000000000",
        "riser.v1.log.acme.00000000000000AB",
        "riser.v1.log.acme.+0000000000000ab",
        "riser.v1.log.acme.000000000000000ab",
        "riser.v1.log.acme.00000000000000ab.",
        "riser.v1.log.acme.*",
        "riser.v1.log.*.00000000000000ab",
        "riser.v1.log.ACME.00000000000000ab",
        "riser.v1.up.acme.00000000000000ab",
    ] {
        assert_eq!(EventSubject::parse(text), None, "{text:?}");
    }
}

/// What the names of one gateway of a tenant are made of.
fn parts() -> impl Strategy<Value = (GatewayKey, EdgeId, Digest, u64)> {
    let digest = any::<u128>().prop_map(|digest| Digest(digest.to_be_bytes()));
    (keys(), edges(), digest, 1..u64::MAX)
}

/// All names that messages and entries of a gateway, and what is kept of its tenant, are stored or sent under.
fn names_of((key, edge, digest, life): &(GatewayKey, EdgeId, Digest, u64)) -> Vec<String> {
    let tenant = &key.tenant;
    vec![
        Subject::Up(key.clone()).to_string(),
        Subject::Edge(edge.clone(), key.clone()).to_string(),
        Subject::Live(key.clone()).to_string(),
        Subject::EdgeLive(edge.clone(), key.clone()).to_string(),
        EventSubject { tenant: tenant.clone(), life: *life }.to_string(),
        event_stream(tenant),
        LedgerSubject(key.clone()).to_string(),
        Entry::Held(key.clone(), *digest).to_string(),
        Entry::Tenant(tenant.clone()).to_string(),
        Entry::Flats(tenant.clone(), key.address.building().clone(), 3).to_string(),
    ]
}

/// All that a tenant asks for: of one address, of its building, of everything.
fn filters_of(key: &GatewayKey) -> Vec<String> {
    let (tenant, address) = (&key.tenant, &key.address);
    let patterns = [Pattern::One(address.clone()), Pattern::Building(address.building().clone()), Pattern::All];
    let of = |pattern: Pattern| {
        let up = Filter::Up(tenant.clone(), pattern.clone()).to_string();
        let live = Filter::Live(tenant.clone(), pattern.clone()).to_string();
        [up, live, LedgerSubject::of(tenant, &pattern)]
    };
    patterns.into_iter().flat_map(of).collect()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_048,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_name_of_a_tenant_is_another_ones_and_no_filter_of_it_matches_one(
        a in parts(),
        b in parts(),
        same_address in any::<bool>(),
        same_edge in any::<bool>(),
    ) {
        let mut b = b;
        if same_address {
            b.0.address = a.0.address.clone();
        }
        if same_edge {
            (b.1, b.2, b.3) = (a.1.clone(), a.2, a.3);
        }
        prop_assume!(a.0.tenant != b.0.tenant);
        let (of_a, of_b) = (names_of(&a), names_of(&b));
        for name in &of_a {
            prop_assert!(!of_b.contains(name), "{name}");
            prop_assert_eq!(of_a.iter().filter(|other| *other == name).count(), 1, "{}", name);
        }
        for (filters, names, own) in [(filters_of(&a.0), &of_b, &of_a), (filters_of(&b.0), &of_a, &of_b)] {
            for filter in filters {
                prop_assert!(!names.iter().any(|name| tokens_match(&filter, name)), "{filter} matches one of {names:?}");
                prop_assert_eq!(own.iter().filter(|name| tokens_match(&filter, name)).count(), 1, "{}", filter);
            }
        }
    }

    #[test]
    fn what_is_kept_of_a_tenant_is_read_as_it_was_written(tenant in tenants(), life in 1..u64::MAX) {
        prop_assert_eq!(tenant_of_stream(&event_stream(&tenant)), Some(tenant.clone()));
        let events = EventSubject { tenant, life };
        prop_assert_eq!(EventSubject::parse(&events.to_string()), Some(events));
    }
}
