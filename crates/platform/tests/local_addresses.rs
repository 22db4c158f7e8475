//! Listing and watching the addresses of a host against the real kernel.

#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod namespace;

use std::net::IpAddr;
use std::time::Duration;

use adit_platform::addresses::{Filter, Reach, Snapshot, Watcher, list, watch};
use adit_platform::tun::{self, Offload, Tun};
use namespace::{ip, isolated};

fn host() {
    ip("link add ethernet0 type veth peer name ethernet1");
    ip("link add adit0 type veth peer name adit1");
    for link in ["ethernet0", "ethernet1", "adit0", "adit1"] {
        ip(&format!("link set {link} up"));
    }
    ip("address add 203.0.113.2/24 dev ethernet0");
    ip("address add 100.64.0.9/32 dev ethernet0");
    ip("-6 address add 2001:db8::2/64 dev ethernet0 nodad");
    ip("address add 10.9.0.1/24 dev adit0");
}

fn filter() -> Filter {
    Filter {
        own_interfaces: vec!["adit0".to_owned()],
        excluded: vec!["100.64.0.0/11".parse().expect("range")],
        fwmark: Some(adit_platform::network::FWMARK),
        lists_networks: true,
    }
}

fn texts(snapshot: &Snapshot) -> Vec<String> {
    snapshot.ips().map(|ip: IpAddr| ip.to_string()).collect()
}

async fn next(watcher: &mut Watcher) -> Snapshot {
    tokio::time::timeout(Duration::from_secs(5), watcher.changed()).await.expect("a change in time")
}

#[test]
fn usable_addresses_are_listed_with_their_interface() {
    isolated(|| async {
        host();
        let snapshot = list(&filter()).await.expect("lists");
        assert_eq!(texts(&snapshot), ["203.0.113.2", "2001:db8::2"]);
        assert!(snapshot.addresses.iter().all(|local| local.name == "ethernet0"));
        assert_eq!(snapshot.egress_v4, None, "no way out yet");
        ip("route add default via 203.0.113.1");
        let egress = list(&filter()).await.expect("lists").egress_v4.expect("a way out");
        assert_eq!(egress.source, Some("203.0.113.2".parse().expect("address")));
        assert_eq!(egress.gateway, Some("203.0.113.1".parse().expect("address")));
    });
}

#[test]
fn a_downed_interface_offers_nothing() {
    isolated(|| async {
        host();
        ip("link set ethernet0 down");
        assert!(texts(&list(&filter()).await.expect("lists")).is_empty());
    });
}

#[test]
fn networks_of_others_are_listed_with_the_way_there() {
    isolated(|| async {
        host();
        ip("tuntap add vpn0 mode tun");
        ip("address add 10.8.0.2/24 dev vpn0");
        ip("link set vpn0 up");
        ip("route add default via 203.0.113.1");
        ip("route add 0.0.0.0/1 via 203.0.113.1");
        ip("route add 10.20.0.0/16 via 203.0.113.1");
        ip("route add unreachable 10.66.0.0/16");
        ip("route add 10.7.0.0/16 dev ethernet0 table 52");
        let networks = list(&filter()).await.expect("lists").networks;
        let found: Vec<String> = networks
            .iter()
            .map(|local| format!("{:?} {} {}", local.reach, local.network, local.interface))
            .collect();
        // A tunnel that nobody has opened carries nothing: its interface does not run.
        let expected = [
            "Connected 10.7.0.0/16 ethernet0",
            "Connected 203.0.113.0/24 ethernet0",
            "Connected 2001:db8::/64 ethernet0",
            "Routed 10.20.0.0/16 ethernet0",
        ];
        assert_eq!(found, expected);
        let config = tun::Config { name: "vpn1".to_owned(), mtu: 1_400, offload: Offload::default() };
        let _open = Tun::create(&config).expect("a tunnel");
        ip("address add 10.8.0.2/24 dev vpn1");
        ip("link set vpn1 up");
        let networks = list(&filter()).await.expect("lists").networks;
        let last = networks.last().expect("networks");
        assert_eq!((last.reach, last.network.to_string().as_str()), (Reach::Tunnel, "10.8.0.0/24"));
    });
}

#[test]
fn a_route_alone_is_a_change_of_networks_and_not_of_the_place() {
    isolated(|| async {
        host();
        let mut watcher = watch(filter()).await.expect("watches");
        let before = watcher.current();
        ip("route add 10.20.0.0/16 via 203.0.113.1");
        let after = next(&mut watcher).await;
        assert!(after.is_same_place(&before) && after.networks.len() == before.networks.len() + 1);
        ip("route add default via 203.0.113.1");
        assert!(!next(&mut watcher).await.is_same_place(&before));
    });
}

#[test]
fn changes_are_folded_and_reported_once() {
    isolated(|| async {
        host();
        let mut watcher = watch(filter()).await.expect("watches");
        assert_eq!(texts(&watcher.current()), ["203.0.113.2", "2001:db8::2"]);
        for last in 3..9 {
            ip(&format!("address add 203.0.113.{last}/24 dev ethernet0"));
        }
        assert_eq!(next(&mut watcher).await.addresses.len(), 8);
        ip("address add 10.9.0.2/24 dev adit0"); // ours: no change
        ip("route add default via 203.0.113.1");
        let snapshot = next(&mut watcher).await;
        assert_eq!(snapshot.addresses.len(), 8);
        assert!(snapshot.egress_v4.is_some());
        ip("link set ethernet0 down");
        let snapshot = next(&mut watcher).await;
        assert!(snapshot.addresses.is_empty() && snapshot.egress_v4.is_none());
    });
}
