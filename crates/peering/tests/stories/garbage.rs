//! Whatever arrives, nothing panics, and everything is counted by name.

use std::time::Duration;

use adit_peering::{DropReason, Role};
use adit_protocol::{Candidate, CandidateKind};
use proptest::prelude::*;

use crate::world::{World, address, ms};

fn connected() -> World {
    let mut world = World::new(80);
    world.add_relay("198.51.100.1");
    world.add_host(Role::Client, &["203.0.113.10:51820"], None);
    world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
    world.run_for(Duration::from_secs(1));
    world.introduce(0, 1);
    world.exchange(0, b"hello", Duration::from_secs(2)).expect("an answer");
    world.run_for(Duration::from_secs(1));
    world
}

/// Hands a datagram to the gateway.
fn give(world: &mut World, from: &str, mut datagram: Vec<u8>) -> Result<(), DropReason> {
    let now = world.now;
    let local = address("203.0.113.20:51820");
    let result = world.hosts[1].node.handle_datagram(now, local, address(from), &mut datagram);
    world.drain(1);
    result.map(drop)
}

#[test]
fn drops_have_names() {
    let mut world = connected();
    let stranger = "192.0.2.66:6666";
    assert_eq!(give(&mut world, stranger, vec![]), Err(DropReason::UnknownKind));
    assert_eq!(give(&mut world, stranger, vec![0x50; 100]), Err(DropReason::UnknownKind));
    let reset = [&[8, 0, 0, 0][..], &[1; 20]].concat();
    assert_eq!(give(&mut world, stranger, reset), Err(DropReason::InvalidReset), "a gateway takes none");
    let magic = [0x21, 0x12, 0xa4, 0x42];
    let response = [&[0x01, 0x01, 0, 0][..], &magic, &[3; 12]].concat();
    assert_eq!(give(&mut world, stranger, response), Err(DropReason::MalformedStun));
    let error = [&[0x01, 0x11, 0, 0][..], &magic, &[3; 12]].concat();
    assert_eq!(give(&mut world, stranger, error), Err(DropReason::UnmatchedResponse));
    let counters = world.hosts[1].node.counters();
    assert_eq!((counters.unknown_kind, counters.invalid_reset, counters.malformed_stun), (2, 1, 1));
}

#[test]
fn candidates_are_bounded_and_useless_ones_ignored() {
    let mut world = connected();
    let mut candidates: Vec<Candidate> = (0..1000_u16)
        .map(|number| Candidate {
            kind: CandidateKind::Host,
            address: ([192, 0, 2, 1], 1000 + number).into(),
            base: None,
        })
        .collect();
    candidates.extend(
        ["127.0.0.1:22", "[::1]:22", "0.0.0.0:9", "255.255.255.255:9", "224.0.0.1:9"].map(|text| Candidate {
            kind: CandidateKind::Host,
            address: address(text),
            base: None,
        }),
    );
    world.log = Some(Vec::new());
    world.with(0, |node, now, id| node.add_remote_candidates(now, id, &candidates));
    world.run_for(Duration::from_secs(3));
    let targets: std::collections::BTreeSet<_> =
        world.log.take().expect("a log").iter().map(|(_, datagram)| datagram.to).collect();
    assert!(targets.len() < 40, "{}", targets.len());
    assert!(!targets.iter().any(|target| target.ip().is_loopback()));
    assert!(world.exchange(0, b"fine", ms(500)).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random bytes, and real datagrams with a few bytes changed, from strangers and friends.
    #[test]
    fn nothing_panics(
        seeds in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 1..20),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 1..50),
    ) {
        let mut world = World::new(81);
        world.add_relay("198.51.100.1");
        world.add_host(Role::Client, &["203.0.113.10:51820"], None);
        world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
        world.run_for(ms(500));
        world.log = Some(Vec::new());
        world.introduce(0, 1);
        world.exchange(0, b"hello", Duration::from_secs(2)).expect("an answer");
        let real: Vec<_> = world.log.take().expect("a log").into_iter().map(|(_, datagram)| datagram).collect();
        for (first, mut bytes) in seeds {
            bytes.insert(0, first);
            for from in ["192.0.2.66:6666", "198.51.100.1:3478", "203.0.113.10:51820"] {
                let _ = give(&mut world, from, bytes.clone());
            }
        }
        for (which, at, value) in flips {
            let mut datagram = which.get(&real).clone();
            let at = at.index(datagram.payload.len());
            datagram.payload[at] = value;
            let from = datagram.from.to_string();
            let _ = give(&mut world, &from, datagram.payload);
        }
        prop_assert!(world.hosts[1].connection.is_some());
        prop_assert!(world.exchange(0, b"fine", Duration::from_secs(1)).is_some());
    }
}
