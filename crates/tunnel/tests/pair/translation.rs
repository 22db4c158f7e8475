//! Two flows that would look the same behind the gateway do not.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use adit_packet::PacketView;

use crate::packets::{A, ip, ping};
use crate::portal::{cidr, dns, resource, resource_id};
use crate::world::{World, client_address};

#[test]
fn flows_to_one_real_address_are_told_apart() {
    let mut world = World::new([resource(1, dns("*.corp")), resource(2, cidr("10.9.0.0/24"))]);
    for name in ["a.corp", "b.corp"] {
        world.zone.insert(name.into(), vec![ip("10.9.0.1")]);
    }
    let a = world.look_up(0, "a.corp", A);
    let b = world.look_up(0, "b.corp", A);
    let destinations: Vec<SocketAddr> = [a[0], a[1], b[0], ip("10.9.0.1")].map(|ip| (ip, 443).into()).into();
    // The same source port to all, twice: each answer comes back from where the question went.
    for destination in destinations.iter().chain(&destinations) {
        assert!(world.exchange(0, 5000, *destination).is_answer(), "{destination}");
    }
    let ports: BTreeSet<u16> = world.gateways[0]
        .received
        .iter()
        .filter_map(|(_, packet)| PacketView::parse(packet).unwrap().source_port())
        .collect();
    assert_eq!(ports, BTreeSet::from([5000, 5001, 5002, 5003]));
    assert_eq!(world.gateways[0].machine.statistics().flows, 4);
    world.administer(|portal| portal.revoke(resource_id(1)));
    world.run(std::time::Duration::from_millis(50));
    assert_eq!(world.gateways[0].machine.statistics().flows, 1);
}

#[test]
fn a_flow_that_went_idle_frees_its_place() {
    let mut world = World::new([resource(1, dns("*.corp"))]);
    world.zone.insert("a.corp".into(), vec![ip("10.9.0.1")]);
    let a = world.look_up(0, "a.corp", A);
    assert!(world.exchange(0, 5000, (a[0], 443).into()).is_answer());
    assert_eq!(world.gateways[0].machine.statistics().flows, 1);
    world.run(std::time::Duration::from_secs(300));
    assert_eq!(world.gateways[0].machine.statistics().flows, 0);
}

#[test]
fn pings_with_one_identifier_are_told_apart() {
    let mut world = World::new([resource(1, dns("*.corp"))]);
    world.zone.insert("a.corp".into(), vec![ip("10.9.0.1")]);
    let a = world.look_up(0, "a.corp", A);
    for proxy in &a {
        world.client_sends(0, &ping(client_address(0, 0).ip(), *proxy, 3007));
        let (answer, _) = world.await_packet(0, std::time::Duration::from_secs(1)).expect("an answer");
        let flow = PacketView::parse(&answer).unwrap().flow().expect("an echo");
        assert_eq!((flow.source, flow.source_port), (*proxy, 3007));
        adit_packet::checksum::verify(&answer).expect("right checksums");
    }
    let identifiers: BTreeSet<u16> = world.gateways[0]
        .received
        .iter()
        .filter_map(|(_, packet)| PacketView::parse(packet).unwrap().flow())
        .map(|flow| flow.source_port)
        .collect();
    assert_eq!(identifiers, BTreeSet::from([3007, 3008, 3009, 3010]));
}
