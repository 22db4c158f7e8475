//! Defence against floods: MAC1 before any key agreement, cookies under load, limits per source.

use std::net::SocketAddr;
use std::time::Duration;

use crate::pair::{Network, Pair, UNIX, private};
use adit_wireguard::{Device, DropReason, PresharedKey, Received};

/// An initiation from a key that is no peer, with a valid MAC1.
fn stranger_initiation(pair: &Pair, number: u8) -> Vec<u8> {
    let mut stranger = Device::new(pair.now, UNIX, private(number), [number; 32]);
    let peer =
        stranger.add_peer(pair.now, private(2).public_key(), PresharedKey([0; 32])).expect("a usable key");
    stranger.initiate(pair.now, peer);
    stranger.poll_transmit().expect("an initiation").datagram
}

/// Puts node 1 under load with a copied initiation from many addresses.
fn flood(pair: &mut Pair, messages: u16) -> (u64, u64) {
    let initiation = stranger_initiation(pair, 77);
    let before = pair.nodes[1].device.counters();
    for number in 0..messages {
        let source = SocketAddr::new([198, 51, (number >> 8) as u8, number as u8].into(), 1);
        let _ = pair.nodes[1].device.handle_datagram(pair.now, source, &mut initiation.clone());
    }
    let after = pair.nodes[1].device.counters();
    (after.key_agreements - before.key_agreements, after.cookie_replies_sent - before.cookie_replies_sent)
}

#[test]
fn no_key_agreement_happens_without_a_valid_mac1() {
    let mut pair = Pair::connected();
    let [initiation, response] = [0, 1].map(|number: usize| pair.log[number].2.clone());
    let before = pair.nodes.each_ref().map(|node| node.device.counters());
    for (node, message) in [(1, initiation), (0, response)] {
        let mac1 = message.len() - 32..message.len() - 16;
        for position in 0..mac1.end {
            let mut forged = message.clone();
            forged[position] ^= 0x40;
            let source = pair.nodes[1 - node].address;
            let result = pair.nodes[node].device.handle_datagram(pair.now, source, &mut forged);
            let reason = result.expect_err("forged");
            let expected =
                if position < 4 { DropReason::UnknownMessageType } else { DropReason::InvalidMac1 };
            assert_eq!(reason, expected, "byte {position}");
        }
    }
    for (node, before) in pair.nodes.iter().zip(before) {
        let after = node.device.counters();
        assert_eq!(after.key_agreements, before.key_agreements);
        assert_eq!(after.cookie_replies_sent, 0);
        assert!(after.dropped(DropReason::InvalidMac1) >= 72);
    }
}

#[test]
fn under_load_strangers_cost_cookies_and_no_key_agreements() {
    let mut pair = Pair::new();
    let (agreements, cookies) = flood(&mut pair, 5000);
    assert_eq!(agreements, 250, "one per message until load is noticed");
    assert_eq!(cookies, 4750);
}

#[test]
fn a_peer_connects_under_load_with_a_cookie() {
    let mut pair = Pair::new();
    flood(&mut pair, 300);
    pair.initiate(0);
    pair.run_for(Duration::from_millis(100));
    assert_eq!(pair.nodes[0].device.counters().cookies_received, 1);
    assert_eq!(pair.sent_types(0, 1).len(), 2, "retried at once");
    assert!(pair.agrees());
}

#[test]
fn an_initiator_under_load_asks_the_responder_for_a_cookie_too() {
    let mut pair = Pair::with(3, Network::perfect(), [1, 1]);
    flood(&mut pair, 300);
    pair.initiate(1);
    pair.run_for(Duration::from_secs(10));
    assert_eq!(pair.nodes[0].device.counters().cookies_received, 1);
    assert!(pair.agrees());
}

#[test]
fn a_cookie_is_bound_to_its_address() {
    let mut pair = Pair::new();
    flood(&mut pair, 300);
    pair.initiate(0);
    pair.run_for(Duration::from_millis(25));
    let (now, signed) = (pair.now, pair.log.last().unwrap().2.clone());
    assert_eq!((signed[0], signed[132..].iter().all(|byte| *byte == 0)), (1, false));
    let elsewhere: SocketAddr = "203.0.113.9:9".parse().unwrap();
    let before = pair.nodes[1].device.counters().key_agreements;
    let result = pair.nodes[1].device.handle_datagram(now, elsewhere, &mut signed.clone());
    assert!(matches!(result, Ok(Received::Handshake { peer: None, reply: Some(_) })));
    assert_eq!(pair.nodes[1].device.counters().key_agreements, before);
}

#[test]
fn one_address_with_a_cookie_is_limited() {
    let mut pair = Pair::new();
    flood(&mut pair, 300);
    let source: SocketAddr = "203.0.113.9:9".parse().unwrap();
    let mut stranger = Device::new(pair.now, UNIX, private(66), [66; 32]);
    let peer = stranger.add_peer(pair.now, private(2).public_key(), PresharedKey([0; 32])).unwrap();
    stranger.initiate(pair.now, peer);
    let mut first = stranger.poll_transmit().unwrap().datagram;
    let reply = pair.nodes[1].device.handle_datagram(pair.now, source, &mut first).unwrap();
    let Received::Handshake { reply: Some(mut cookie), .. } = reply else { panic!("a cookie is due") };
    stranger.handle_datagram(pair.now, source, &mut cookie).unwrap();
    let signed = stranger.poll_transmit().unwrap().datagram;
    let mut outcomes = Vec::new();
    for _ in 0..20 {
        outcomes
            .push(pair.nodes[1].device.handle_datagram(pair.now, source, &mut signed.clone()).unwrap_err());
    }
    assert_eq!(outcomes.iter().filter(|reason| **reason == DropReason::UnknownPeer).count(), 5);
    assert_eq!(outcomes.iter().filter(|reason| **reason == DropReason::RateLimited).count(), 15);
}

#[test]
fn load_passes() {
    let mut pair = Pair::new();
    flood(&mut pair, 1000);
    pair.run_for(Duration::from_secs(3));
    pair.initiate(0);
    pair.run_for(Duration::from_millis(50));
    assert!(pair.agrees());
    assert_eq!(pair.nodes[0].device.counters().cookies_received, 0);
}
