//! Two flows that would look the same behind the gateway do not.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use adit_packet::PacketView;

use crate::packets::A;
use crate::portal::{cidr, dns, resource, resource_id};
use crate::world::World;

#[test]
fn flows_to_one_real_address_are_told_apart() {
    let mut world = World::new([resource(1, dns("*.corp")), resource(2, cidr("10.9.0.0/24"))]);
    for name in ["a.corp", "b.corp"] {
        world.zone.insert(name.into(), vec!["10.9.0.1".parse().unwrap()]);
    }
    let a = world.look_up(0, "a.corp", A);
    let b = world.look_up(0, "b.corp", A);
    let destinations: Vec<SocketAddr> =
        [a[0], a[1], b[0], "10.9.0.1".parse().unwrap()].map(|ip| (ip, 443).into()).into();
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
    world.zone.insert("a.corp".into(), vec!["10.9.0.1".parse().unwrap()]);
    let a = world.look_up(0, "a.corp", A);
    assert!(world.exchange(0, 5000, (a[0], 443).into()).is_answer());
    assert_eq!(world.gateways[0].machine.statistics().flows, 1);
    world.run(std::time::Duration::from_secs(300));
    assert_eq!(world.gateways[0].machine.statistics().flows, 0);
}
