//! Addresses, routes, rules and settings of the tunnel interface against the real kernel.

mod namespace;

use adit_platform::network::{Bypass, LinuxNetwork, NetworkControl as _, NetworkError, NetworkState};
use adit_platform::tun::{Config, Offload, Tun};
use namespace::{ip, isolated, set_sysctl, sysctl};

/// A host with a way out through `ethernet0`.
fn host() -> Tun {
    ip("link add ethernet0 type veth peer name ethernet1");
    ip("address add 203.0.113.2/24 dev ethernet0");
    ip("-6 address add 2001:db8::2/64 dev ethernet0 nodad");
    for link in ["ethernet0", "ethernet1"] {
        // Link-local addresses come by themselves, some time later, and would change the picture.
        ip(&format!("link set {link} addrgenmode none"));
        ip(&format!("link set {link} up"));
    }
    ip("route add default via 203.0.113.1");
    ip("-6 route add default via 2001:db8::1 dev ethernet0");
    steady_picture();
    Tun::create(&Config { name: "adit0".to_owned(), mtu: 1_280, offload: Offload::None }).expect("creates")
}

/// The picture once the kernel has done what it does some time after a link or an address came up.
fn steady_picture() -> String {
    let mut last = picture();
    for _ in 0..100 {
        std::thread::sleep(std::time::Duration::from_millis(50));
        let now = picture();
        if now == last && !now.contains("LOWERLAYERDOWN") {
            return now;
        }
        last = now;
    }
    panic!("the network does not come to rest: {last}");
}

fn state(routes: &[&str]) -> NetworkState {
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("network")).collect();
    NetworkState {
        super_packet: Some(60_000),
        interface: "adit0".to_owned(),
        mtu: 1_400,
        addresses: nets(&["100.64.0.7/32", "fd00:ad17::7/128"]),
        routes: nets(routes),
    }
}

/// Everything this module may change, as text.
fn picture() -> String {
    [
        ip("rule show"),
        ip("-6 rule show"),
        ip("route show table all"),
        ip("-6 route show table all"),
        ip("-brief address show"),
    ]
    .join("\n")
}

fn way(words: &str) -> String {
    let answer = ip(&format!("route get {words}"));
    let mut words = answer.split_whitespace();
    words.find(|word| *word == "dev").and_then(|_| words.next().map(str::to_owned)).unwrap_or_default()
}

#[test]
fn marked_packets_bypass_the_tunnel_and_all_others_enter_it() {
    isolated(|| async {
        let _tun = host();
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut network = LinuxNetwork::new(directory.path(), Some(Bypass::default()));
        let applied = network.apply(&state(&["10.20.0.0/16", "fd20::/64"])).await.expect("applies");
        assert!(applied.ipv6);
        assert_eq!(way("10.20.1.1"), "adit0");
        assert_eq!(way("10.20.1.1 mark 0xad000000"), "ethernet0");
        assert_eq!(
            way("10.20.1.1 mark 0xad004321"),
            "ethernet0",
            "other bits of the mark are other people's"
        );
        assert_eq!(way("10.21.1.1"), "ethernet0");
        assert_eq!(way("fd20::1"), "adit0");
        assert_eq!(way("fd20::1 mark 0xad000000"), "ethernet0");
        assert!(ip("route get 10.20.1.1").contains("src 100.64.0.7"));
        assert!(ip("route get fd20::1").contains("src fd00:ad17::7"));
        assert!(ip("link show adit0").contains("mtu 1400"));
        assert!(!ip("-6 address show dev adit0").contains("fe80"), "no link-local chatter into the tunnel");
    });
}

#[test]
fn the_whole_state_is_set_every_time_and_setting_it_twice_changes_nothing() {
    isolated(|| async {
        let _tun = host();
        let directory = tempfile::tempdir().expect("temporary directory");
        let before = steady_picture();
        let mut network = LinuxNetwork::new(directory.path(), Some(Bypass::default()));
        network.apply(&state(&["10.20.0.0/16", "0.0.0.0/0"])).await.expect("applies");
        assert_eq!(way("192.0.2.200"), "adit0");
        assert_eq!(way("203.0.113.77"), "ethernet0", "the host's own networks stay reachable");
        assert_eq!(way("192.0.2.200 mark 0xad000000"), "ethernet0");
        let first = steady_picture();
        network.apply(&state(&["10.20.0.0/16", "0.0.0.0/0"])).await.expect("applies again");
        assert_eq!(steady_picture(), first);
        let mut other = state(&["10.30.0.0/16", "10.20.0.0/17", "fd20::/64"]);
        other.addresses.remove(0);
        other.addresses.push("100.64.0.8/32".parse().expect("network"));
        network.apply(&other).await.expect("applies another state");
        assert_eq!(way("192.0.2.200"), "ethernet0");
        assert_eq!(way("10.20.200.1"), "ethernet0");
        assert_eq!(way("10.20.1.1"), "adit0");
        let addresses = ip("-brief address show dev adit0");
        assert!(addresses.contains("100.64.0.8") && !addresses.contains("100.64.0.7"), "{addresses}");
        network.clear().await.expect("clears");
        ip("link set adit0 down");
        assert_eq!(
            steady_picture().replace("adit0            DOWN", ""),
            before.replace("adit0            DOWN", "")
        );
        network.clear().await.expect("clears nothing");
    });
}

/// Whether the kernel would send nothing there.
fn is_refused(words: &str) -> bool {
    let family = if words.contains("::") { "-6" } else { "-4" };
    let asked =
        std::process::Command::new("ip").args([family, "route", "get"]).args(words.split(' ')).output();
    !asked.expect("ip").status.success()
}

#[test]
fn a_killed_tunnel_with_a_default_route_lets_nothing_past_it() {
    isolated(|| async {
        let tun = host();
        drop(tun);
        let directory = tempfile::tempdir().expect("temporary directory");
        let before = steady_picture();
        let config = Config { name: "adit0".to_owned(), mtu: 1_280, offload: Offload::None };
        let tun = Tun::create(&config).expect("creates");
        let mut crashing = LinuxNetwork::new(directory.path(), Some(Bypass::default()));
        let wanted = state(&["10.20.0.0/16", "0.0.0.0/0", "::/0"]);
        crashing.apply(&wanted).await.expect("applies");
        assert_eq!(way("192.0.2.200"), "adit0", "the guard is behind the tunnel");
        drop((crashing, tun));
        let closed = |when: &str| {
            assert!(is_refused("192.0.2.200") && is_refused("2001:db8:9::1"), "{when}");
            assert_eq!(way("203.0.113.77"), "ethernet0", "the local network stays: {when}");
            assert_eq!(way("192.0.2.200 mark 0xad000000"), "ethernet0", "the daemon gets out: {when}");
        };
        closed("the process is gone");
        let mut next = LinuxNetwork::new(directory.path(), Some(Bypass::default()));
        next.recover().await.expect("recovers");
        closed("the next one begins");
        let _tun = Tun::create(&config).expect("creates");
        next.apply(&wanted).await.expect("applies");
        assert_eq!(way("192.0.2.200"), "adit0");
        next.apply(&state(&["10.20.0.0/16"])).await.expect("applies what has no default route");
        assert_eq!(way("192.0.2.200"), "ethernet0");
        next.apply(&wanted).await.expect("applies");
        drop(next);
        let mut last = LinuxNetwork::new(directory.path(), Some(Bypass::default()));
        last.clear().await.expect("clears");
        drop(_tun);
        assert_eq!(steady_picture(), before);
    });
}

#[test]
fn a_crash_is_repaired_by_the_next_run() {
    isolated(|| async {
        let tun = host();
        set_sysctl("net/ipv4/conf/all/rp_filter", "1");
        drop(tun);
        let directory = tempfile::tempdir().expect("temporary directory");
        let (before, filter) = (steady_picture(), sysctl("net/ipv4/conf/ethernet0/rp_filter"));
        let tun = Tun::create(&Config { name: "adit0".to_owned(), mtu: 1_280, offload: Offload::None })
            .expect("creates");
        let mut crashing = LinuxNetwork::new(directory.path(), Some(Bypass::default()));
        let applied = crashing.apply(&state(&["10.20.0.0/16", "fd20::/64"])).await.expect("applies");
        assert_eq!(applied.loosened, ["ethernet0"]);
        assert_eq!(sysctl("net/ipv4/conf/ethernet0/rp_filter"), "2");
        drop((crashing, tun));
        assert!(ip("rule show").contains("0xad000000/0xff000000"), "rules survive a crash");
        let mut next = LinuxNetwork::new(directory.path(), Some(Bypass::default()));
        next.recover().await.expect("recovers");
        assert_eq!(steady_picture(), before);
        assert_eq!(sysctl("net/ipv4/conf/ethernet0/rp_filter"), filter);
        assert_eq!(std::fs::read_dir(directory.path()).expect("lists").count(), 0);
    });
}

#[test]
fn rules_and_routes_of_others_are_left_alone() {
    isolated(|| async {
        let _tun = host();
        ip("rule add priority 5100 from 10.99.0.1 lookup 77");
        ip("rule add priority 5099 lookup 78 protocol 173");
        ip("route add 10.20.0.0/16 dev ethernet0 table 44311");
        let directory = tempfile::tempdir().expect("temporary directory");
        let before = ip("rule show");
        let mut network = LinuxNetwork::new(directory.path(), Some(Bypass::default()));
        network.apply(&state(&["10.30.0.0/16"])).await.expect("applies");
        network.clear().await.expect("clears");
        assert_eq!(ip("rule show"), before);
        assert!(ip("route show table 44311").contains("10.20.0.0/16"));
    });
}

#[test]
fn a_gateway_keeps_its_routes_in_the_main_table_without_rules() {
    isolated(|| async {
        let _tun = host();
        let directory = tempfile::tempdir().expect("temporary directory");
        let rules = ip("rule show");
        let mut network = LinuxNetwork::new(directory.path(), None);
        network.apply(&state(&["100.64.0.0/11", "fd00:ad17::/107"])).await.expect("applies");
        assert_eq!(ip("rule show"), rules);
        assert!(ip("route show").contains("100.64.0.0/11 dev adit0"));
        assert!(ip("-6 route show").contains("fd00:ad17::/107 dev adit0"));
        network.clear().await.expect("clears");
        assert!(!ip("route show").contains("100.64.0.0/11"));
    });
}

#[test]
fn a_host_without_ipv6_gets_the_ipv4_half() {
    isolated(|| async {
        set_sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        set_sysctl("net/ipv6/conf/default/disable_ipv6", "1");
        let _tun = Tun::create(&Config { name: "adit0".to_owned(), mtu: 1_280, offload: Offload::None })
            .expect("creates");
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut network = LinuxNetwork::new(directory.path(), Some(Bypass::default()));
        let applied = network.apply(&state(&["10.20.0.0/16", "fd20::/64"])).await.expect("applies");
        assert!(!applied.ipv6);
        assert_eq!(way("10.20.1.1"), "adit0");
        network.clear().await.expect("clears");
    });
}

#[test]
fn a_missing_interface_is_named() {
    isolated(|| async {
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut network = LinuxNetwork::new(directory.path(), None);
        let refused = network.apply(&state(&[])).await;
        assert!(matches!(refused, Err(NetworkError::NoInterface(name)) if name == "adit0"));
    });
}
