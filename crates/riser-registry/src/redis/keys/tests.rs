//! What holds of all keys.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use riser_core::command::Digest;

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
        let mut all = vec![keys.buildings(), keys.key_uses(), keys.streams(), keys.stream_ends(), keys.streams_at(&at)];
        all.extend(keys.room().into_iter().chain(keys.opened()));
        all
    };
    let lease = Lease { edge: "i".parse().expect("an edge"), start: 1 };
    let mut all = vec![leases(), due(), sweeper(), mark(), usage(&lease), lease_index(&lease)];
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

/// Names that are near each other and near what keys are made of, and any others.
fn names() -> impl Strategy<Value = String> {
    let near = ["a", "a-b", "aa", "b", "0", "g", "q", "leases", "due", "riser"].map(str::to_owned).to_vec();
    prop_oneof![3 => prop::sample::select(near), 1 => "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"]
}

fn keys() -> impl Strategy<Value = GatewayKey> {
    let parts = || prop_oneof![3 => names(), 1 => "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"];
    let addresses = prop_oneof![
        6 => (parts(), parts()).prop_map(|(building, gateway)| format!("{building}/{gateway}")),
        1 => parts().prop_map(|building| format!("{building}/_")),
        1 => Just("_/_".to_owned()),
    ];
    (names(), addresses).prop_map(|(tenant, address)| {
        GatewayKey::new(tenant.parse().expect("a tenant"), address.parse().expect("an address"))
    })
}

/// All names that are made of a gateway and its tenant, those that are keys first.
fn names_of(key: &GatewayKey, cmd: &CommandId) -> (Vec<Key>, [String; 2]) {
    let (building, tenant, of) = (Building::of(key), Tenant::new(&key.tenant), &key.address);
    let mut all = vec![building.heads(), building.open(), building.swept(), building.state(of), building.records(of)];
    all.extend([building.decided(of), building.expiry(of)]);
    all.extend([tenant.buildings(), tenant.key_uses(), tenant.streams(), tenant.stream_ends(), tenant.streams_at(of)]);
    all.extend(tenant.opened().into_iter().chain(tenant.room()));
    (all, [lease_entry(&key.tenant, key.address.building()), due_entry(&key.tenant, cmd)])
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_048,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_key_and_no_entry_of_a_tenant_is_another_ones(a in keys(), b in keys(), same in any::<bool>(), at_ms in any::<u64>()) {
        let b = if same { GatewayKey::new(b.tenant, a.address.clone()) } else { b };
        prop_assume!(a.tenant != b.tenant);
        let cmd = |key: &GatewayKey| CommandId { of: key.address.clone(), digest: Digest([7; 16]), at_ms };
        let ((of_a, entries_of_a), (of_b, entries_of_b)) = (names_of(&a, &cmd(&a)), names_of(&b, &cmd(&b)));
        let shared = [leases().name, due().name, sweeper().name, mark().name, life().name];
        let distinct: BTreeSet<&str> =
            of_a.iter().chain(&of_b).map(|key| key.name.as_str()).chain(shared.iter().map(String::as_str)).collect();
        prop_assert_eq!(distinct.len(), of_a.len() + of_b.len() + shared.len(), "{:?}", distinct);
        // No script that is given keys of one tenant comes near those of another.
        let tags = |keys: &[Key]| keys.iter().map(|key| tag(key).to_owned()).collect::<BTreeSet<_>>();
        prop_assert!(tags(&of_a).is_disjoint(&tags(&of_b)));
        prop_assert!(entries_of_a.iter().all(|entry| !entries_of_b.contains(entry)));
    }

    #[test]
    fn an_entry_is_read_as_it_was_written(key in keys(), digest in any::<u128>(), at_ms in any::<u64>()) {
        let cmd = CommandId { of: key.address.clone(), digest: Digest(digest.to_be_bytes()), at_ms };
        let due = due_entry(&key.tenant, &cmd);
        prop_assert_eq!(parse_due_entry(&due), Some((key.tenant.clone(), cmd)));
        let building = key.address.building().clone();
        let entry = lease_entry(&key.tenant, &building);
        prop_assert_eq!(parse_lease_entry(&entry), Some((key.tenant, building)));
        prop_assert_eq!(parse_lease_entry(&due), None);
        prop_assert_eq!(parse_due_entry(&entry), None);
    }
}
