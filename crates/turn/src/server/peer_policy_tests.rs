//! The peers a security review will try.

use super::super::Limits;
use super::*;

fn policy(allowed: &[&str]) -> PeerPolicy {
    PeerPolicy::new(&Config {
        public_v4: Some(Ipv4Addr::new(192, 0, 2, 10)),
        public_v6: Some("2001:db8::10".parse().expect("address")),
        own_addresses: vec!["10.1.1.1".parse().expect("address"), "9.9.9.10".parse().expect("address")],
        listener_port: 3478,
        ports: 49152..=65535,
        realm: "adit".into(),
        secret: Vec::new(),
        previous_secret: None,
        allowed_peers: allowed.iter().map(|net| net.parse().expect("network")).collect(),
        announce_routes: false,
        dont_fragment: true,
        limits: Limits::default(),
    })
}

fn judge(policy: &PeerPolicy, peer: &str) -> Verdict {
    policy.judge(peer.parse().expect("address"))
}

#[test]
fn special_purpose_peers_are_denied() {
    let policy = policy(&[]);
    for ip in [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:1ff::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "::ffff:0:8.8.8.8",
        "1::1",
        "4000::1",
        "2002:c0a8:101::1",
        "3fff:fff::1",
        "5f00::1",
        "fc00::1",
        "fdff::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ] {
        let ip: IpAddr = ip.parse().expect("address");
        assert_eq!(policy.judge(SocketAddr::new(ip, 4000)), Verdict::Denied, "{ip}");
        assert!(!policy.permits_address(ip), "{ip}");
    }
}

#[test]
fn public_peers_are_allowed() {
    let policy = policy(&[]);
    for ip in [
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.1",
        "172.15.255.255",
        "172.32.0.1",
        "192.0.1.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:200::1",
        "64:ff9b::808:808",
        "3fff:1000::1",
    ] {
        let ip: IpAddr = ip.parse().expect("address");
        assert_eq!(policy.judge(SocketAddr::new(ip, 4000)), Verdict::Allowed, "{ip}");
        assert!(policy.permits_address(ip), "{ip}");
    }
}

#[test]
fn the_relays_own_addresses_are_open_only_at_lent_ports() {
    let policy = policy(&["0.0.0.0/0", "::/0"]);
    assert_eq!(judge(&policy, "192.0.2.10:3478"), Verdict::Denied, "whatever is allowed");
    assert_eq!(judge(&policy, "10.1.1.1:80"), Verdict::Denied);
    assert!(matches!(judge(&policy, "192.0.2.10:80"), Verdict::OnlyIfLent(_)));
    assert_eq!(judge(&policy, "10.1.1.2:80"), Verdict::Allowed);
    let policy = self::policy(&[]);
    let lent = RelayPort { family: Family::V4, number: 50_000 };
    assert_eq!(judge(&policy, "192.0.2.10:50000"), Verdict::OnlyIfLent(lent));
    assert_eq!(judge(&policy, "192.0.2.10:3478"), Verdict::Denied);
    assert_eq!(judge(&policy, "[2001:db8::10]:3478"), Verdict::Denied);
    assert!(policy.permits_address("192.0.2.10".parse().expect("address")));
    assert_eq!(judge(&policy, "9.9.9.10:80"), Verdict::Denied, "another address of ours");
    assert_eq!(judge(&policy, "[64:ff9b::909:90a]:80"), Verdict::Denied, "the same through NAT64");
    assert_eq!(judge(&policy, "[64:ff9b::c000:20a]:50000"), Verdict::Denied);
}

#[test]
fn clients_behind_tunnels_are_known() {
    let open = policy(&["2002::/16", "0.0.0.0/0"]);
    let policy = policy(&[]);
    let is_tunnelled = |ip: &str| policy.is_tunnelled(ip.parse().expect("address"));
    assert!(is_tunnelled("2002:808:808::1") && is_tunnelled("2001::1"));
    assert!(!is_tunnelled("2001:200::1") && !is_tunnelled("8.8.8.8") && !is_tunnelled("::1"));
    assert!(!open.is_tunnelled("2002:808:808::1".parse().expect("address")), "a laboratory may");
}

#[test]
fn named_networks_are_allowed_and_nothing_else() {
    let policy = policy(&["10.0.0.0/8", "fd00::/8"]);
    assert_eq!(judge(&policy, "10.9.9.9:1"), Verdict::Allowed);
    assert_eq!(judge(&policy, "[fd12::1]:1"), Verdict::Allowed);
    assert_eq!(judge(&policy, "127.0.0.1:1"), Verdict::Denied);
    assert_eq!(judge(&policy, "[fc00::1]:1"), Verdict::Denied);
    assert_eq!(judge(&policy, "10.9.9.9:0"), Verdict::Denied, "no such port");
    let loopback = self::policy(&["127.0.0.0/8", "::1/128"]);
    assert_eq!(judge(&loopback, "[::1]:1"), Verdict::Allowed);
    let mapped = self::policy(&["::ffff:0:0/96"]);
    assert_eq!(judge(&mapped, "[::ffff:127.0.0.1]:1"), Verdict::Denied, "inside is not named");
}
