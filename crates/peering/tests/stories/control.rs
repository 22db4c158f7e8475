//! Control messages inside the tunnel, and what a peer may ask for with them.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use adit_peering::{Event, OpenError, Role, SendError};
use adit_protocol::peer::{self, DomainState, PeerMessage};
use adit_protocol::{Candidate, CandidateKind};

use crate::world::{World, ms};

fn connected() -> World {
    let mut world = World::new(90);
    world.add_relay("198.51.100.1");
    world.add_host(Role::Client, &["203.0.113.10:51820"], None);
    world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
    world.run_for(Duration::from_secs(1));
    world.introduce(0, 1);
    world.exchange(0, b"hello", Duration::from_secs(2)).expect("an answer");
    world.run_for(Duration::from_secs(1));
    world
}

fn status(name: &str) -> PeerMessage {
    PeerMessage::DomainStatus {
        resource: "0190163d-8694-739b-aea5-966c26f8ad91".parse().expect("an id"),
        name: name.to_owned(),
        state: DomainState::Active,
    }
}

/// Control messages that a host was told of.
fn told(world: &World, host: usize) -> Vec<(u32, PeerMessage)> {
    let events = world.hosts[host].events.iter();
    let told = events.filter_map(|(_, event)| match event {
        Event::Control { message_id, message, .. } => Some((*message_id, message.clone())),
        _ => None,
    });
    told.collect()
}

#[test]
fn other_peoples_messages_are_handed_on_with_their_ids() {
    let mut world = connected();
    let asked = world.with(0, |node, now, id| node.send_control(now, id, &status("a.example"))).unwrap();
    world.run_for(ms(50));
    assert_eq!(told(&world, 1), [(asked, status("a.example"))]);
    let answered =
        world.with(1, |node, now, id| node.send_control_with_id(now, id, asked, &status("b.example")));
    assert_eq!(answered, Ok(()));
    world.run_for(ms(50));
    assert_eq!(told(&world, 0), [(asked, status("b.example"))]);
    let next = world.with(0, |node, now, id| node.send_control(now, id, &status("c.example"))).unwrap();
    assert_ne!(next, asked);
}

#[test]
fn a_peer_speaks_only_for_itself() {
    let mut world = connected();
    let me: Ipv6Addr = "fd00::1".parse().unwrap();
    let gateway: Ipv6Addr = "fd00::2".parse().unwrap();
    let another: Ipv6Addr = "fd00::3".parse().unwrap();
    for (source, destination) in [(another, gateway), (me, another)] {
        let packet = peer::encode(source, destination, 1, &status("x.example")).unwrap();
        world.with(0, |node, now, id| node.send_packet(now, id, &packet)).unwrap();
    }
    world.run_for(ms(50));
    assert_eq!(told(&world, 1), []);
    assert_eq!(world.hosts[1].node.counters().malformed_control, 2);
}

#[test]
fn a_peer_cannot_have_us_shoot_at_the_world() {
    let mut world = connected();
    world.log = Some(Vec::new());
    for number in 0..200_u8 {
        let candidates = |offset: u8| -> Vec<Candidate> {
            (0..20_u8)
                .map(|port| Candidate {
                    kind: CandidateKind::Host,
                    address: SocketAddr::from((
                        [192, 0, 2, number.wrapping_sub(offset)],
                        1000 + u16::from(port),
                    )),
                    base: None,
                })
                .collect()
        };
        let message = PeerMessage::Candidates { added: candidates(0), removed: candidates(1) };
        world.with(0, |node, now, id| node.send_control(now, id, &message)).unwrap();
        world.run_for(ms(10));
    }
    world.run_for(Duration::from_secs(10));
    let log = world.log.take().expect("a log");
    let victims = log.iter().filter(|(_, datagram)| datagram.to.ip().to_string().starts_with("192.0.2."));
    let (mut targets, mut datagrams) = (BTreeSet::new(), 0);
    for (_, datagram) in victims {
        targets.insert(datagram.to);
        datagrams += 1;
    }
    // 128 at once and one per second; each gets a handful of checks.
    assert!(targets.len() <= 160, "{}", targets.len());
    assert!(datagrams <= 160 * 16, "{datagrams}");
    assert!(world.exchange(0, b"fine", Duration::from_secs(1)).is_some());
}

#[test]
fn copies_of_an_initiation_cost_one_handshake() {
    let agreements = |addresses: &[&str]| {
        let mut world = World::new(91);
        world.add_host(Role::Client, &["203.0.113.10:51820"], None);
        world.add_host(Role::Gateway, addresses, None);
        world.introduce(0, 1);
        world.exchange(0, b"hello", Duration::from_secs(2)).expect("an answer");
        let counters = world.hosts[1].node.counters();
        (world.hosts[1].node.wireguard_counters().key_agreements, counters.wireguard)
    };
    let one = agreements(&["203.0.113.20:51820"]);
    let six = agreements(&[
        "203.0.113.20:1",
        "203.0.113.21:1",
        "203.0.113.22:1",
        "203.0.113.23:1",
        "203.0.113.24:1",
        "203.0.113.25:1",
    ]);
    assert_eq!(one, six);
    assert_eq!(one.1, 0, "nothing was dropped");
}

#[test]
fn misuse_has_names() {
    let mut world = connected();
    let id = world.hosts[0].connection.unwrap();
    let now = world.now;
    let node = &mut world.hosts[0].node;
    assert_eq!(node.send_packet(now, id, &[0; 70_000]), Err(SendError::TooLarge));
    node.forget(now, id);
    assert_eq!(node.send_packet(now, id, b"x"), Err(SendError::UnknownConnection));
    assert_eq!(node.send_control(now, id, &status("x")), Err(SendError::UnknownConnection));
    let introduction = |key| adit_peering::Introduction {
        public_key: key,
        preshared_key: adit_wireguard::PresharedKey([0; 32]),
        epoch: 1,
        local_ice: adit_protocol::IceCredentials { ufrag: "same".into(), password: "p".repeat(22) },
        remote_ice: adit_protocol::IceCredentials { ufrag: "other".into(), password: "p".repeat(22) },
        candidates: Vec::new(),
        local_tunnel_address: Ipv6Addr::LOCALHOST,
        remote_tunnel_address: Ipv6Addr::LOCALHOST,
    };
    let own = node.public_key();
    assert_eq!(node.open(now, introduction(own)), Err(OpenError::UnusableKey));
    let key = |number| adit_wireguard::PrivateKey::from_bytes([number; 32]).public_key();
    let first = node.open(now, introduction(key(100))).unwrap();
    assert_eq!(node.send_packet(now, first, b"x"), Err(SendError::NotConnected));
    assert_eq!(node.open(now, introduction(key(101))), Err(OpenError::DuplicateCredentials));
    assert_eq!(node.path(first), None);
}
