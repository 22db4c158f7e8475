use std::net::Ipv4Addr;

use adit_platform::addresses::Reach;
use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn claims() -> Claims {
    let mut claims = Claims::default();
    claims.add(net("100.96.0.0/11"), None);
    claims.add(net("100.64.0.7/32"), None);
    claims.add(net("10.0.0.0/8"), Some("office"));
    claims.add(net("10.1.2.0/24"), Some("lab"));
    claims.add(net("0.0.0.0/0"), Some("everything"));
    claims
}

fn local(network: &str) -> LocalNetwork {
    LocalNetwork { reach: Reach::Connected, network: net(network), interface: "eth0".to_owned() }
}

fn found(networks: &[&str]) -> Vec<(CollisionKind, String, Option<String>)> {
    let networks: Vec<LocalNetwork> = networks.iter().map(|text| local(text)).collect();
    let host = HostNetworks { networks: &networks, ..HostNetworks::default() };
    let brief = |one: Collision| (one.kind, one.taken().to_string(), one.resource);
    find(&claims(), &host).into_iter().map(brief).collect()
}

fn resource(network: &str, name: &str) -> (CollisionKind, String, Option<String>) {
    (CollisionKind::LocalNetwork, network.to_owned(), Some(name.to_owned()))
}

#[test]
fn networks_apart_are_no_collision() {
    assert_eq!(found(&["192.168.1.0/24", "172.16.0.0/12", "11.0.0.0/8", "fd00::/64"]), []);
}

#[test]
fn a_network_in_the_tunnels_range_or_around_it_collides() {
    let range = |taken: &str| (CollisionKind::TunnelRange, taken.to_owned(), None);
    assert_eq!(found(&["100.100.7.0/24"]), [range("100.100.7.0/24")]);
    // Around the addresses of names, and this device's own one.
    assert_eq!(found(&["100.64.0.0/10"]), [range("100.64.0.7/32"), range("100.96.0.0/11")]);
    // Other devices' addresses are none of this device's business.
    assert_eq!(found(&["100.70.0.0/16"]), []);
}

#[test]
fn the_resource_that_takes_the_most_is_named() {
    assert_eq!(found(&["10.9.0.0/16"]), [resource("10.9.0.0/16", "office")]);
    assert_eq!(found(&["10.1.2.128/25"]), [resource("10.1.2.128/25", "lab")], "the more specific one");
    assert_eq!(found(&["8.0.0.0/5"]), [resource("10.0.0.0/8", "office")], "the other one lies in it");
}

#[test]
fn the_worst_comes_first_and_routers_and_resolvers_are_looked_at() {
    let networks = [local("10.5.0.0/24"), local("100.96.0.0/24")];
    let host = HostNetworks {
        networks: &networks,
        routers: vec!["10.5.0.1".parse().unwrap(), "fe80::1".parse().unwrap()],
        resolvers: vec!["10.5.0.1".parse().unwrap(), "9.9.9.9".parse().unwrap()],
    };
    let kinds: Vec<CollisionKind> = find(&claims(), &host).iter().map(|one| one.kind).collect();
    let expected = [
        CollisionKind::TunnelRange,
        CollisionKind::LocalNetwork,
        CollisionKind::Router,
        CollisionKind::Resolver,
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn what_is_reported_is_bounded() {
    let networks: Vec<LocalNetwork> = (0..=255).map(|third| local(&format!("10.5.{third}.0/24"))).collect();
    let host = HostNetworks { networks: &networks, ..HostNetworks::default() };
    assert_eq!(find(&claims(), &host).len(), MOST_COLLISIONS);
}

/// Networks so close together that they meet.
fn network() -> impl Strategy<Value = IpNet> {
    (0_u32..=0xff, 24_u8..=32).prop_map(|(last, length)| {
        IpNet::V4(Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 | last), length).unwrap().trunc())
    })
}

proptest! {
    /// An address is taken away if and only if it is claimed and in a network of the host, and never by a claim
    /// that another one of the same network is part of.
    #[test]
    fn exactly_the_addresses_in_both_are_taken(
        ours in prop::collection::vec((network(), any::<bool>()), 0..8),
        theirs in prop::collection::vec(network(), 0..6),
    ) {
        let mut claims = Claims::default();
        for (network, is_resource) in &ours {
            claims.add(*network, is_resource.then_some("office"));
        }
        let networks: Vec<LocalNetwork> = theirs.iter().map(|network| local(&network.to_string())).collect();
        let found = find(&claims, &HostNetworks { networks: &networks, ..HostNetworks::default() });
        prop_assert!(found.len() < MOST_COLLISIONS, "no part of this is about the bound");
        for last in 0..=0xff_u32 {
            let address = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | last));
            let is_claimed = ours.iter().any(|(network, _)| network.contains(&address));
            for network in &theirs {
                let is_taken = found.iter().any(|one| one.network == *network && one.taken().contains(&address));
                prop_assert_eq!(is_taken, is_claimed && network.contains(&address));
            }
        }
        for one in &found {
            let is_resource = one.kind == CollisionKind::LocalNetwork;
            prop_assert_eq!(one.resource.is_some(), is_resource);
            prop_assert!(one.network.contains(&one.taken()) && one.claimed.contains(&one.taken()));
        }
    }
}
