//! How the operating system's interface is to look.

use std::net::IpAddr;
use std::time::Duration;

use adit_policy::ResourceAddress;
use adit_tunnel::{ClientEvent, Interface};

use crate::portal::{cidr, dns, resource, resource_id};
use crate::world::{RESOLVER, World};

fn interfaces(world: &World) -> Vec<&Interface> {
    let events = world.client_events.iter();
    events
        .filter_map(|event| match event {
            ClientEvent::InterfaceChanged(interface) => Some(interface),
            _ => None,
        })
        .collect()
}

#[test]
fn routes_follow_the_resources_and_news_are_told_once() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16")), resource(2, dns("*.corp"))]);
    let first = interfaces(&world)[0].clone();
    assert_eq!(interfaces(&world).len(), 1);
    let routes: Vec<String> = first.routes.iter().map(ToString::to_string).collect();
    assert_eq!(routes, ["10.1.0.0/16", "100.96.0.0/17", "fd00:ad17:0:1::/109"]);
    assert!(!first.default_route);
    assert!(first.dns_servers.contains(&IpAddr::from(RESOLVER)));
    assert_eq!(first.search_domains, ["corp"]);

    world.start_portal();
    world.administer(|portal| portal.change_resource(resource(3, cidr("10.1.7.0/24"))));
    world.run(Duration::from_millis(100));
    assert_eq!(interfaces(&world).len(), 1, "nothing new for the interface");

    world.administer(|portal| portal.change_resource(resource(4, ResourceAddress::Internet)));
    world.administer(|portal| portal.remove_resource(resource_id(1)));
    world.run(Duration::from_millis(100));
    let last = interfaces(&world)[interfaces(&world).len() - 1];
    assert!(last.default_route);
    assert_eq!(last.routes[0].to_string(), "10.1.7.0/24");
}
