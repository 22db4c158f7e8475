//! Rekeying, keepalives, retries, expiry, and silence when there is nothing to do.

use std::time::Duration;

use crate::pair::{Network, Pair};
use adit_wireguard::ExpiryReason;

const SECOND: Duration = Duration::from_secs(1);

/// Sends from `node` every second.
fn chat(pair: &mut Pair, node: usize, seconds: u32) {
    for _ in 0..seconds {
        assert!(pair.send(node, b"chat"), "at {:?}", pair.elapsed());
        pair.run_for(SECOND);
    }
}

fn seconds(times: &[Duration]) -> Vec<u64> {
    times.iter().map(|time| time.as_secs()).collect()
}

#[test]
fn the_initiator_of_a_session_in_use_rekeys_at_120_seconds() {
    for sender in 0..2 {
        let mut pair = Pair::connected();
        chat(&mut pair, sender, 400);
        assert_eq!(seconds(&pair.sent_types(0, 1)), [0, 120, 240, 360], "sender {sender}");
        assert!(pair.sent_types(1, 1).is_empty(), "the responder never rekeys by age");
        assert_eq!(pair.nodes[1 - sender].received.len(), 400, "no data is lost over a rekey");
        assert!(pair.nodes[0].sessions.len() <= 3 && pair.agrees());
    }
}

#[test]
fn a_session_that_nobody_uses_ends_at_180_seconds() {
    let mut pair = Pair::connected();
    pair.run_for(200 * SECOND);
    assert_eq!(pair.log.len(), 3, "initiation, response, confirmation, then silence");
    for node in &pair.nodes {
        assert!(node.sessions.is_empty() && node.send_session.is_none());
        assert_eq!(node.expired, [ExpiryReason::Idle]);
        assert_eq!(node.device.poll_timeout(), None, "nothing is left to wait for");
    }
    pair.initiate(1);
    pair.run_for(SECOND);
    assert!(pair.agrees(), "and a new one can be made");
}

#[test]
fn a_quiet_peer_has_only_its_end_of_life_timers() {
    let mut pair = Pair::connected();
    chat(&mut pair, 0, 5);
    // The acknowledgement of the last data, and two looks.
    pair.run_for(35 * SECOND);
    for (node, expected) in [(0, "wireguard rekey"), (1, "wireguard session expiry")] {
        let (at, why) = pair.nodes[node].device.poll_timeout().unwrap();
        assert_eq!(why, expected);
        assert!(at > pair.now + 60 * SECOND);
    }
}

#[test]
fn traffic_after_quiet_wakes_the_device() {
    let mut pair = Pair::connected();
    pair.run_for(130 * SECOND);
    assert_eq!(pair.sent_types(0, 1).len(), 1, "nobody used the session at 120 s");
    assert!(pair.send(0, b"hello"));
    pair.run_for(SECOND);
    assert_eq!(seconds(&pair.sent_types(0, 1)), [0, 130]);
    assert!(pair.agrees());
}

#[test]
fn received_data_is_acknowledged_after_ten_seconds() {
    let mut pair = Pair::connected();
    pair.run_for(SECOND);
    let sent = pair.elapsed() + pair.network.latency;
    assert!(pair.send(0, b"one way"));
    pair.run_for(30 * SECOND);
    let keepalives = pair.sent_types(1, 4);
    assert_eq!(keepalives, [sent + 10 * SECOND]);
    assert_eq!(pair.nodes[0].keepalives, 1);
    assert_eq!(pair.sent_types(0, 4).len(), 2, "a keepalive is not acknowledged");
}

#[test]
fn an_answer_in_time_replaces_the_keepalive() {
    let mut pair = Pair::connected();
    for _ in 0..20 {
        pair.send(0, b"question");
        pair.run_for(5 * SECOND);
        pair.send(1, b"answer");
        pair.run_for(4 * SECOND);
    }
    assert_eq!(pair.nodes[0].keepalives, 0);
}

#[test]
fn unanswered_data_starts_a_handshake_after_fifteen_seconds() {
    let mut pair = Pair::connected();
    pair.run_for(40 * SECOND);
    pair.network.loss = 100;
    let sent = pair.elapsed();
    pair.send(0, b"anybody there?");
    pair.run_for(16 * SECOND);
    let initiations = pair.sent_types(0, 1);
    assert!((15.0..15.4).contains(&(initiations[1] - sent).as_secs_f64()), "{initiations:?}");
    pair.run_for(25 * SECOND);
    assert_eq!(pair.nodes[0].expired, [ExpiryReason::HandshakeUnanswered]);
}

#[test]
fn retries_double_from_twice_the_round_trip_to_five_seconds_and_end() {
    for (round_trip, first) in [(Some(1), 250), (Some(300), 600), (None, 1000), (Some(4000), 5000)] {
        let mut pair = Pair::with(1, Network { loss: 100, ..Network::perfect() }, [1, 1]);
        if let Some(millis) = round_trip {
            let peer = pair.nodes[0].peer;
            pair.nodes[0].device.set_round_trip(peer, Duration::from_millis(millis));
        }
        pair.initiate(0);
        pair.run_for(30 * SECOND);
        let times = pair.sent_types(0, 1);
        let mut expected = Duration::from_millis(first);
        for gap in times.windows(2).map(|pair| pair[1] - pair[0]) {
            assert!(gap >= expected && gap <= expected.mul_f64(1.25), "{gap:?} after {expected:?}");
            expected = (expected * 2).min(5 * SECOND);
        }
        assert!(*times.last().unwrap() < 20 * SECOND);
        assert_eq!(pair.nodes[0].expired, [ExpiryReason::HandshakeUnanswered]);
        assert_eq!(pair.nodes[0].device.poll_timeout(), None);
    }
}

#[test]
fn old_sessions_open_what_was_under_way_during_a_rekey() {
    let mut pair = Pair::connected();
    pair.run_for(SECOND);
    let (now, node) = (pair.now, &mut pair.nodes[0]);
    let late = node.seal(now, b"late").unwrap();
    pair.initiate(0);
    pair.run_for(SECOND);
    assert_eq!(pair.nodes[1].sessions.len(), 2);
    pair.deliver(1, late);
    assert_eq!(pair.nodes[1].received, [b"late"]);
    assert!(pair.agrees(), "data in the old session does not bring it back");
}

#[test]
fn rekey_attempts_into_the_void_leave_the_session_until_it_ends() {
    let mut pair = Pair::connected();
    chat(&mut pair, 0, 110);
    pair.network.loss = 100;
    chat(&mut pair, 0, 60);
    assert!(pair.nodes[0].expired.contains(&ExpiryReason::HandshakeUnanswered));
    pair.run_for(20 * SECOND);
    assert!(!pair.send(0, b"nobody seals with a session of 180 s"));
    let indices = format!("{:?}", pair.nodes[0].device);
    pair.run_for(30 * SECOND);
    assert!(!indices.contains("indices: 3"), "{indices}");
    assert_eq!(pair.nodes[0].device.poll_timeout(), None);
}
