//! How subjects are written and read. Every subject of the cluster is made and parsed here and nowhere else.

use std::fmt;
use std::str::FromStr;

use riser_core::command::Digest;
use riser_core::{Address, BuildingId, EdgeId, GatewayKey, Pattern, TenantId};

/// First tokens of all subjects of this release.
const ROOT: &str = "riser.v1";

/// Where one message goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// What a gateway's edge tells its watchers: `riser.v1.up.<tenant>.<building>.<gateway>`.
    Up(GatewayKey),
    /// What concerns a gateway and goes to the edge that holds it: `riser.v1.edge.<edge>.<tenant>.<building>.<gateway>`.
    Edge(EdgeId, GatewayKey),
    /// What edges tell each other: `riser.v1.edges`.
    Edges,
    /// The live streams of an address, to all who listen: `riser.v1.live.<tenant>.<building>.<gateway>`.
    Live(GatewayKey),
    /// The live streams of a gateway's own address, to the edge that holds it. Apart from [`Subject::Edge`], so that
    /// audio never stands before commands: `riser.v1.edge-live.<edge>.<tenant>.<building>.<gateway>`.
    EdgeLive(EdgeId, GatewayKey),
}

/// Which messages a subscription gets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// What happens to the gateways of a tenant that a pattern names.
    Up(TenantId, Pattern),
    /// An edge's inbox.
    Edge(EdgeId),
    /// What edges tell each other.
    Edges,
    /// The live streams of the addresses of a tenant that a pattern names.
    Live(TenantId, Pattern),
    /// The live streams for the gateways of an edge.
    EdgeLive(EdgeId),
}

impl Filter {
    /// Whether a message on this subject is for the subscription.
    pub fn matches(&self, subject: &Subject) -> bool {
        match (self, subject) {
            (Self::Up(tenant, pattern), Subject::Up(key)) | (Self::Live(tenant, pattern), Subject::Live(key)) => {
                *tenant == key.tenant && pattern.matches(&key.address)
            }
            (Self::Edge(edge), Subject::Edge(to, _)) | (Self::EdgeLive(edge), Subject::EdgeLive(to, _)) => edge == to,
            (Self::Edges, Subject::Edges) => true,
            _ => false,
        }
    }
}

impl Subject {
    /// Reads a subject as it is written; none when it is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let tokens = text.strip_prefix(ROOT)?.strip_prefix('.')?;
        let mut tokens = tokens.split('.');
        let mut next = || tokens.next();
        let subject = match next()? {
            "up" => Self::Up(key(next()?, next()?, next()?)?),
            "edge" => Self::Edge(next()?.parse().ok()?, key(next()?, next()?, next()?)?),
            "edges" => Self::Edges,
            "live" => Self::Live(key(next()?, next()?, next()?)?),
            "edge-live" => Self::EdgeLive(next()?.parse().ok()?, key(next()?, next()?, next()?)?),
            _ => return None,
        };
        next().is_none().then_some(subject)
    }
}

fn key(tenant: &str, building: &str, gateway: &str) -> Option<GatewayKey> {
    let address = Address::new(building.parse().ok()?, gateway.parse().ok()?).ok()?;
    Some(GatewayKey::new(tenant.parse().ok()?, address))
}

/// Where one life of a tenant's event stream stores: `riser.v1.log.<tenant>.<life>`. The life is in the subject, so that
/// what was sent to a stream that is lost is not stored in the one that came after it, and nobody hears of it in the
/// wrong life. No [`Filter`] matches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventSubject {
    pub(crate) tenant: TenantId,
    pub(crate) life: u64,
}

impl EventSubject {
    /// Reads a subject as it is written; none when it is not one of a stream of events.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (tenant, life) = text.strip_prefix(ROOT)?.strip_prefix(".log.")?.split_once('.')?;
        let subject = Self { tenant: tenant.parse().ok()?, life: u64::from_str_radix(life, 16).ok()? };
        (subject.life != 0 && subject.to_string() == text).then_some(subject)
    }
}

impl fmt::Display for EventSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}.log.{}.{:016x}", self.tenant, self.life)
    }
}

/// The name of the stream that keeps a tenant's events: `riser-ev-<tenant>`.
pub(crate) fn event_stream(tenant: &TenantId) -> String {
    format!("riser-ev-{tenant}")
}

/// Whose events the stream of this name keeps; none when it is no such stream.
pub(crate) fn tenant_of_stream(name: &str) -> Option<TenantId> {
    name.strip_prefix("riser-ev-")?.parse().ok()
}

/// The stream of the ledger.
pub(crate) const LEDGER_STREAM: &str = "riser-ledger";

/// Where a gateway's entries in the ledger are stored: `riser.v1.ledger.<tenant>.<building>.<gateway>`. No [`Filter`] matches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LedgerSubject(pub(crate) GatewayKey);

impl LedgerSubject {
    /// Reads a subject as it is written; none when it is not one of the ledger.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut tokens = text.strip_prefix(ROOT)?.strip_prefix(".ledger.")?.split('.');
        let key = key(tokens.next()?, tokens.next()?, tokens.next()?)?;
        tokens.next().is_none().then_some(Self(key))
    }

    /// What the subjects of all entries match.
    pub(crate) fn all() -> String {
        format!("{ROOT}.ledger.*.*.*")
    }

    /// What the subjects of those entries of a tenant match whose address a pattern names.
    pub(crate) fn of(tenant: &TenantId, pattern: &Pattern) -> String {
        format!("{ROOT}.ledger.{}", PatternTokens(tenant, pattern))
    }
}

impl fmt::Display for LedgerSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ROOT}.ledger.{}", Tokens(&self.0))
    }
}

/// A bucket of [`crate::kv::Kv`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Copies of the records of held commands: `riser-held`.
    Held,
    /// The tenant table: `riser-tenants`.
    Tenants,
    /// Flats that are registered: `riser-flats`.
    Flats,
}

impl Bucket {
    /// Every bucket.
    pub const ALL: [Self; 3] = [Self::Held, Self::Tenants, Self::Flats];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Held => "riser-held",
            Self::Tenants => "riser-tenants",
            Self::Flats => "riser-flats",
        }
    }

    /// The stream that keeps it, as NATS' own tools call it.
    pub(crate) fn stream(self) -> String {
        format!("KV_{}", self.name())
    }

    /// What the subjects of all its entries match.
    pub(crate) fn subjects(self) -> String {
        format!("$KV.{}.>", self.name())
    }
}

/// What an entry of a bucket is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entry {
    /// The record of a held command, in [`Bucket::Held`]: `<tenant>.<building>.<gateway>.<digest>`.
    Held(GatewayKey, Digest),
    /// What edges are to know of a tenant, in [`Bucket::Tenants`]: `<tenant>`.
    Tenant(TenantId),
    /// A part of a building's flats, in [`Bucket::Flats`]: `<tenant>.<building>.<part>`, the part from 0 to 9.
    Flats(TenantId, BuildingId, u8),
}

/// Parts of a building's flats, each an entry of its own: as many as one digit names.
pub const FLAT_PARTS: u8 = 8;

impl Entry {
    /// Where it is kept.
    pub fn bucket(&self) -> Bucket {
        match self {
            Self::Held(..) => Bucket::Held,
            Self::Tenant(_) => Bucket::Tenants,
            Self::Flats(..) => Bucket::Flats,
        }
    }

    /// Reads the subject of an entry as it is written; none when it is not one of this bucket's.
    pub(crate) fn parse(bucket: Bucket, subject: &str) -> Option<Self> {
        let name = subject.strip_prefix("$KV.")?.strip_prefix(bucket.name())?.strip_prefix('.')?;
        let mut tokens = name.split('.');
        let mut next = || tokens.next();
        let entry = match bucket {
            Bucket::Held => Self::Held(key(next()?, next()?, next()?)?, next()?.parse().ok()?),
            Bucket::Tenants => Self::Tenant(next()?.parse().ok()?),
            Bucket::Flats => Self::Flats(next()?.parse().ok()?, next()?.parse().ok()?, part(next()?)?),
        };
        next().is_none().then_some(entry)
    }
}

/// Not the subject of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the subject of an entry of Riser's buckets")]
pub struct NoEntry;

/// The subject of an entry, of whichever bucket.
impl FromStr for Entry {
    type Err = NoEntry;
    fn from_str(subject: &str) -> Result<Self, NoEntry> {
        Bucket::ALL.into_iter().find_map(|bucket| Self::parse(bucket, subject)).ok_or(NoEntry)
    }
}

/// The subject of an entry.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$KV.{}.", self.bucket().name())?;
        match self {
            Self::Held(key, digest) => write!(f, "{}.{digest}", Tokens(key)),
            Self::Tenant(tenant) => write!(f, "{tenant}"),
            Self::Flats(tenant, building, part) => write!(f, "{tenant}.{building}.{part}"),
        }
    }
}

/// A part of a building's flats, as it is written.
fn part(text: &str) -> Option<u8> {
    text.parse().ok().filter(|part| *part < FLAT_PARTS && text.len() == 1)
}

struct Tokens<'a>(&'a GatewayKey);

impl fmt::Display for Tokens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.0.address;
        write!(f, "{}.{}.{}", self.0.tenant, address.building(), address.gateway())
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(key) => write!(f, "{ROOT}.up.{}", Tokens(key)),
            Self::Edge(edge, key) => write!(f, "{ROOT}.edge.{edge}.{}", Tokens(key)),
            Self::Edges => write!(f, "{ROOT}.edges"),
            Self::Live(key) => write!(f, "{ROOT}.live.{}", Tokens(key)),
            Self::EdgeLive(edge, key) => write!(f, "{ROOT}.edge-live.{edge}.{}", Tokens(key)),
        }
    }
}

struct PatternTokens<'a>(&'a TenantId, &'a Pattern);

impl fmt::Display for PatternTokens<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(tenant, pattern) = self;
        match pattern {
            Pattern::One(address) => write!(f, "{tenant}.{}.{}", address.building(), address.gateway()),
            Pattern::Building(building) => write!(f, "{tenant}.{building}.*"),
            Pattern::All => write!(f, "{tenant}.*.*"),
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(tenant, pattern) => write!(f, "{ROOT}.up.{}", PatternTokens(tenant, pattern)),
            Self::Edge(edge) => write!(f, "{ROOT}.edge.{edge}.*.*.*"),
            Self::Edges => write!(f, "{ROOT}.edges"),
            Self::Live(tenant, pattern) => write!(f, "{ROOT}.live.{}", PatternTokens(tenant, pattern)),
            Self::EdgeLive(edge) => write!(f, "{ROOT}.edge-live.{edge}.*.*.*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    /// Names that are near each other and near what subjects are made of, and any others.
    fn names() -> impl Strategy<Value = String> {
        let near =
            ["a", "a-b", "aa", "b", "0", "up", "edge", "edges", "live", "riser", "v1"].map(str::to_owned).to_vec();
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
            Subject::Up(key) | Subject::Live(key) | Subject::Edge(_, key) | Subject::EdgeLive(_, key) => {
                Some(&key.tenant)
            }
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
}
