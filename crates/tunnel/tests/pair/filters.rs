//! Filters are enforced on both ends.

use std::net::SocketAddr;
use std::time::Duration;

use adit_policy::{Filter, PortRange, Resource, ResourceAddress};
use adit_protocol::PortalToClient;
use adit_tunnel::DropReason;

use crate::packets::{PROHIBITED, ip, ping, socket};
use crate::portal::{cidr, resource};
use crate::world::{World, client_address};

fn only_udp(port: u16, resource: Resource) -> Resource {
    let filter = Filter::Udp { ports: PortRange::new(port, port).expect("one port") };
    Resource { filters: vec![filter], ..resource }
}

#[test]
fn traffic_that_no_filter_names_is_refused_by_the_client() {
    let mut world = World::new([only_udp(53, resource(1, cidr("10.1.0.0/16")))]);
    assert!(world.exchange(0, 5000, socket("10.1.0.7:53")).is_answer());
    assert!(world.exchange(0, 5000, socket("10.1.0.7:54")).is_error(PROHIBITED));
    let echo = ping(client_address(0, 0).ip(), ip("10.1.0.7"), 1);
    let before = world.clients[0].machine.drops().get(DropReason::Filtered);
    world.client_sends(0, &echo);
    world.client_sends(0, &echo);
    assert_eq!(world.clients[0].machine.drops().get(DropReason::Filtered), before + 1, "the worker knows");
    assert_eq!(world.gateways[0].received.len(), 1);
}

#[test]
fn the_gateway_does_not_trust_the_client() {
    let narrow = only_udp(53, resource(1, cidr("10.1.0.0/16")));
    let mut world = World::new([narrow.clone()]);
    // This client believes that everything is allowed.
    let wide = PortalToClient::ResourceChanged(Resource { filters: vec![], ..narrow });
    world.with_client(0, |client, now| client.handle_portal(now, wide));
    assert!(world.exchange(0, 5000, socket("10.1.0.7:54")).is_error(PROHIBITED));
    assert_eq!(world.gateways[0].machine.drops().get(DropReason::Filtered), 1);
    assert!(world.gateways[0].received.is_empty());
}

#[test]
fn narrower_filters_end_flows_that_are_open() {
    let wide = resource(1, cidr("10.1.0.0/16"));
    let mut world = World::new([wide.clone()]);
    let (kept, lost) = (socket("10.1.0.7:53"), socket("10.1.0.7:54"));
    assert!(world.exchange(0, 5000, kept).is_answer());
    assert!(world.exchange(0, 5000, lost).is_answer());
    world.administer(|portal| portal.change_resource(only_udp(53, wide)));
    world.run(Duration::from_millis(50));
    assert!(world.exchange(0, 5000, kept).is_answer());
    assert!(world.exchange(0, 5000, lost).is_error(PROHIBITED));
    assert_eq!(world.portal.requests.len(), 1, "the lease itself stands");
}

#[test]
fn an_internet_resource_leads_to_public_addresses_only() {
    let mut world = World::new([resource(1, ResourceAddress::Internet)]);
    assert!(world.exchange(0, 5000, socket("9.9.9.9:53")).is_answer());
    for private in
        ["192.168.7.7:53", "10.1.2.3:53", "100.64.0.100:53", "169.254.169.254:80", "224.0.0.251:5353"]
    {
        assert!(!world.exchange(0, 5000, socket(private)).is_answer(), "{private}");
    }
    assert_eq!(world.gateways[0].received.len(), 1);
}

#[test]
fn the_internet_is_not_what_listens_on_the_gateway() {
    let mut world = World::new([resource(1, ResourceAddress::Internet)]);
    let public = socket("198.41.0.4:51821");
    let addresses = [world.gateways[0].addresses.clone(), vec![public]].concat();
    world.with_gateway(0, |gateway, now| gateway.set_local_addresses(now, &addresses));
    assert!(world.exchange(0, 5000, socket("198.41.0.5:22")).is_answer());
    assert!(world.exchange(0, 5000, SocketAddr::new(public.ip(), 22)).is_error(PROHIBITED));
    assert_eq!(world.gateways[0].received.len(), 1);
}

#[test]
fn pings_pass_where_nothing_is_filtered() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    world.client_sends(0, &ping(client_address(0, 0).ip(), ip("10.1.0.7"), 77));
    assert!(world.await_packet(0, Duration::from_secs(1)).is_some());
}
