//! What holds of all keys.

use super::*;

/// What Redis Cluster hashes: what is between the first `{` and the first `}` after it.
fn tag(key: &Key) -> &str {
    let inner = key.name.split_once('{').expect("a tag").1;
    inner.split_once('}').expect("a tag").0
}

#[test]
fn all_keys_of_a_building_are_in_one_slot_and_no_two_are_the_same() {
    let building = |tenant: &str, name: &str| {
        let key = GatewayKey::new(tenant.parse().expect("a tenant"), name.parse().expect("an address"));
        let (b, of) = (Building::of(&key), &key.address);
        [b.heads(), b.open(), b.swept(), b.state(of), b.records(of), b.decided(of), b.expiry(of)]
    };
    let tenant = |tenant: &str| {
        let (tenant, at) = (tenant.parse().expect("a tenant"), "b/g".parse().expect("an address"));
        let keys = Tenant::new(&tenant);
        let mut all = vec![keys.buildings(), keys.streams(), keys.stream_ends(), keys.streams_at(&at)];
        all.extend(keys.room().into_iter().chain(keys.opened()));
        all
    };
    let mut all = vec![leases(), due(), sweeper(), mark()];
    for keys in [building("t", "b/g").to_vec(), building("t", "b/h").to_vec(), building("t", "_/_").to_vec()] {
        assert!(keys.iter().all(|key| tag(key) == tag(&keys[0])));
        all.extend(keys);
    }
    for keys in [tenant("t"), tenant("leases"), tenant("due")] {
        assert!(keys.iter().all(|key| tag(key) == tag(&keys[0])));
        all.extend(keys);
    }
    let mut names: Vec<_> = all.iter().map(|key| &key.name).collect();
    names.sort();
    // The heads, the open commands and the swept leases of a building are shared by its gateways.
    names.dedup();
    assert_eq!(names.len(), all.len() - 3);
}
