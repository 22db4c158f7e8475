//! Handshakes between two devices: completion, confirmation, collision, replay, refusal.

use std::time::{Duration, Instant};

use crate::pair::{Network, Pair, UNIX, private};
use adit_wireguard::{AddPeerError, Device, DropReason, ExpiryReason, PresharedKey, PublicKey, Received};
use proptest::prelude::*;

const MILLISECOND: Duration = Duration::from_millis(1);

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

#[test]
fn one_round_trip_makes_a_session_that_both_sides_use() {
    let mut pair = Pair::new();
    pair.initiate(0);
    pair.run_for(20 * MILLISECOND);
    assert!(pair.nodes[0].send_session.is_some(), "the initiator may send after one round trip");
    assert!(pair.nodes[1].send_session.is_none(), "the responder must wait for data");
    assert!(pair.nodes[1].sessions.is_empty(), "workers hear of a session when it is confirmed");
    pair.run_for(10 * MILLISECOND);
    assert!(pair.agrees());
    assert_eq!((&pair.nodes[0].established[..], &pair.nodes[1].established[..]), (&[true][..], &[false][..]));
    assert!(pair.send(0, b"ping") && pair.send(1, b"pong"));
    pair.run_for(10 * MILLISECOND);
    assert_eq!(pair.nodes[1].received, [b"ping"]);
    assert_eq!(pair.nodes[0].received, [b"pong"]);
    assert_eq!(pair.nodes[1].keepalives, 1, "the confirmation");
}

#[test]
fn different_preshared_keys_never_connect() {
    let mut pair = Pair::with(1, Network::perfect(), [1, 2]);
    pair.initiate(0);
    pair.run_for(Duration::from_secs(25));
    assert!(pair.nodes.iter().all(|node| node.sessions.is_empty()));
    assert_eq!(pair.nodes[0].expired, [ExpiryReason::HandshakeUnanswered]);
    assert!(pair.nodes[0].drops.iter().all(|reason| *reason == DropReason::HandshakeDecryption));
}

#[test]
fn an_unknown_key_gets_no_answer() {
    let mut pair = Pair::new();
    let now = pair.now;
    let mut stranger = Device::new(now, UNIX, private(9), [9; 32]);
    let key = pair.nodes[1].device.public_key();
    let peer = stranger.add_peer(now, key, PresharedKey([1; 32])).unwrap();
    stranger.initiate(now, peer);
    let initiation = stranger.poll_transmit().unwrap().datagram;
    pair.deliver(1, initiation);
    assert_eq!(pair.nodes[1].drops, [DropReason::UnknownPeer]);
    assert!(pair.wire.is_empty());
}

#[test]
fn a_replayed_initiation_is_refused_even_after_the_peer_was_removed() {
    let mut pair = Pair::connected();
    let initiation = pair.log[0].2.clone();
    pair.run_for(Duration::from_secs(1));
    pair.deliver(1, initiation.clone());
    assert_eq!(pair.nodes[1].drops, [DropReason::StaleTimestamp]);
    let (now, node) = (pair.now, &mut pair.nodes[1]);
    node.device.remove_peer(node.peer);
    node.peer = node.device.add_peer(now, private(1).public_key(), PresharedKey([1; 32])).unwrap();
    pair.deliver(1, initiation);
    assert_eq!(pair.nodes[1].drops[1..], [DropReason::StaleTimestamp]);
    pair.initiate(0);
    pair.run_for(100 * MILLISECOND);
    assert!(pair.agrees(), "a new initiation works");
}

#[test]
fn a_replayed_or_late_response_is_refused() {
    let mut pair = Pair::connected();
    let response = pair.log.iter().find(|(_, from, bytes)| *from == 1 && bytes[0] == 2).unwrap().2.clone();
    pair.deliver(0, response);
    assert_eq!(pair.nodes[0].drops, [DropReason::UnknownReceiver]);
    assert!(pair.agrees());
}

#[test]
fn initiations_in_quick_succession_are_a_flood() {
    let mut pair = Pair::new();
    pair.initiate(0);
    let first = pair.wire.pop_first().unwrap().1.1;
    pair.run_for(5 * MILLISECOND);
    let (node, now) = (&mut pair.nodes[0], pair.now);
    node.device.remove_peer(node.peer);
    node.peer = node.device.add_peer(now, private(2).public_key(), PresharedKey([1; 32])).unwrap();
    pair.initiate(0);
    let second = pair.wire.pop_first().unwrap().1.1;
    pair.deliver(1, first);
    pair.deliver(1, second);
    assert_eq!(pair.nodes[1].drops, [DropReason::InitiationFlood]);
}

#[test]
fn removing_a_peer_leaves_nothing_behind() {
    let mut pair = Pair::connected();
    pair.initiate(0);
    for node in 0..2 {
        let peer = pair.nodes[node].peer;
        pair.nodes[node].device.remove_peer(peer);
        pair.drain(node);
        assert!(pair.nodes[node].sessions.is_empty() && pair.nodes[node].send_session.is_none());
        assert_eq!(pair.nodes[node].device.poll_timeout(), None);
        let printed = format!("{:?}", pair.nodes[node].device);
        assert!(printed.contains("peers: 0, indices: 0"), "{printed}");
    }
}

#[test]
fn peers_with_unusable_keys_are_not_added() {
    let now = Instant::now();
    let mut device = Device::new(now, UNIX, private(1), [0; 32]);
    let mut add = |key| device.add_peer(now, key, PresharedKey([0; 32]));
    let first = add(private(2).public_key()).unwrap();
    assert_eq!(add(private(2).public_key()), Err(AddPeerError::DuplicateKey));
    assert_eq!(add(private(1).public_key()), Err(AddPeerError::OwnKey));
    assert_eq!(add(PublicKey([0; 32])), Err(AddPeerError::LowOrderKey));
    device.remove_peer(first);
    let again = device.add_peer(now, private(2).public_key(), PresharedKey([0; 32])).unwrap();
    assert!(again != first, "names are not used again");
}

#[test]
fn an_authentic_message_names_its_peer() {
    let mut pair = Pair::new();
    pair.initiate(0);
    let mut initiation = pair.wire.pop_first().unwrap().1.1;
    let (now, source) = (pair.now, pair.nodes[0].address);
    let received = pair.nodes[1].device.handle_datagram(now, source, &mut initiation).unwrap();
    let expected = pair.nodes[1].peer;
    assert!(matches!(received, Received::Handshake { peer: Some(peer), reply: Some(_) } if peer == expected));
}

/// Both sides start at once, `offset` apart; the network delays each direction differently.
fn collide(offset: u64, seed: u8, network: Network) -> Pair {
    let mut pair = Pair::with(seed, network, [1, 1]);
    pair.initiate(usize::from(seed % 2));
    pair.run_for(millis(offset));
    pair.initiate(1 - usize::from(seed % 2));
    pair.run_for(Duration::from_secs(30));
    // Data in both directions confirms whatever a lost keepalive did not.
    for _ in 0..4 {
        pair.send(0, b"a");
        pair.send(1, b"b");
        pair.run_for(Duration::from_secs(6));
    }
    pair
}

#[test]
fn simultaneous_initiations_converge_on_one_session() {
    for seed in 0..40 {
        let network = Network { jitter: 30 * MILLISECOND, ..Network::perfect() };
        let pair = collide(u64::from(seed) % 20, seed, network);
        assert!(pair.agrees(), "seed {seed}");
        let handshakes = pair.sent_types(0, 1).len() + pair.sent_types(1, 1).len();
        assert_eq!(handshakes, 2, "seed {seed}: no retry was needed");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn bad_networks_only_delay(
        seed in 0u8..=255,
        offset in 0u64..100,
        latency in 1u64..200,
        jitter in 0u64..200,
        loss in 0u32..35,
        duplication in 0u32..50,
    ) {
        let network = Network {
            latency: millis(latency),
            jitter: millis(jitter),
            loss,
            duplication,
        };
        let mut pair = collide(offset, seed, network);
        pair.network = Network::perfect();
        // Whoever gave up before is told to try once more over the network that works.
        for node in 0..2 {
            if pair.nodes[node].send_session.is_none() {
                pair.initiate(node);
            }
        }
        pair.run_for(Duration::from_secs(1));
        for round in 0u8..3 {
            pair.send(0, &[round]);
            pair.send(1, &[round]);
            pair.run_for(Duration::from_secs(1));
        }
        prop_assert!(pair.send(0, b"end") && pair.send(1, b"end"));
        pair.run_for(Duration::from_secs(1));
        for node in &pair.nodes {
            prop_assert_eq!(node.received.last().map(Vec::as_slice), Some(&b"end"[..]));
        }
        let drops = [DropReason::Decryption, DropReason::HandshakeDecryption, DropReason::InvalidMac1];
        prop_assert!(pair.nodes.iter().all(|node| !node.drops.iter().any(|reason| drops.contains(reason))));
    }
}
