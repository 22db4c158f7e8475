//! Proxy addresses are stable, distinct, found again, and reused only when nobody remembers them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_dns::{Exhausted, IDLE, ProxyAddresses};

use crate::messages::name;

fn proxies(ipv4: &str, ipv6: &str) -> ProxyAddresses {
    ProxyAddresses::new(ipv4.parse().expect("a network"), ipv6.parse().expect("a network"))
}

#[test]
fn a_name_gets_four_of_each_family_and_keeps_them() {
    let now = Instant::now();
    let mut proxies = proxies("100.96.0.0/11", "fd00:ad17::/107");
    let first = proxies.assign(now, &name("wiki.corp")).expect("room");
    let all: HashSet<IpAddr> = first.addresses().collect();
    assert_eq!(all.len(), 8);
    assert!(all.iter().all(|address| proxies.contains(*address)));
    for address in &all {
        assert_eq!(proxies.assignment_of(*address), Some((&name("wiki.corp"), first)));
    }
    let other = proxies.assign(now, &name("db.corp")).expect("room");
    assert!(other.addresses().all(|address| !all.contains(&address)));
    let later = now + Duration::from_secs(1_000_000);
    assert_eq!(proxies.assign(later, &name("WIKI.corp")), Ok(first));
    assert_eq!(proxies.len(), 2);
}

#[test]
fn addresses_outside_or_not_assigned_belong_to_nobody() {
    let mut proxies = proxies("100.96.0.0/24", "fd00::/120");
    proxies.assign(Instant::now(), &name("wiki.corp")).expect("room");
    for address in
        ["100.96.0.0", "100.96.0.3", "100.96.0.8", "100.96.1.4", "fd00::", "fd00::8", "fd01::4", "10.0.0.4"]
    {
        assert_eq!(proxies.name(address.parse().expect("an address")), None, "{address}");
    }
    assert!(proxies.name("100.96.0.4".parse().expect("an address")).is_some());
}

#[test]
fn neither_the_network_nor_the_broadcast_address_is_handed_out() {
    let now = Instant::now();
    // 16 addresses are four blocks, of which the first and the last stay free.
    let mut proxies = proxies("192.0.2.16/28", "fd00::/64");
    for host in ["a", "b"] {
        let assignment = proxies.assign(now, &name(host)).expect("room");
        assert!(
            assignment.ipv4.iter().all(|address| (20..28).contains(&address.octets()[3])),
            "{assignment:?}"
        );
    }
    assert_eq!(proxies.assign(now, &name("c")), Err(Exhausted));
}

#[test]
fn a_range_without_a_block_is_exhausted_at_once() {
    for (ipv4, ipv6) in
        [("10.0.0.0/29", "fd00::/64"), ("10.0.0.1/32", "fd00::/64"), ("10.0.0.0/8", "fd00::1/128")]
    {
        assert_eq!(proxies(ipv4, ipv6).assign(Instant::now(), &name("a")), Err(Exhausted), "{ipv4} {ipv6}");
    }
}

#[test]
fn when_all_are_taken_the_name_idle_for_the_longest_makes_room() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut proxies = proxies("192.0.2.0/28", "fd00::/64");
    let a = proxies.assign(after(0), &name("a")).expect("room");
    let b = proxies.assign(after(1), &name("b")).expect("room");
    // Traffic counts as use: now b is the older one.
    proxies.touch(after(10), a.addresses().next().expect("eight"));
    assert_eq!(proxies.assign(after(20), &name("c")), Err(Exhausted), "nobody was idle for long");
    let later = after(1) + IDLE;
    assert_eq!(proxies.assign(later, &name("c")), Ok(b), "c takes over the block of b");
    assert_eq!(proxies.name(IpAddr::V4(b.ipv4[0])), Some(&name("c")));
    assert_eq!(proxies.assign(later, &name("a")), Ok(a), "a kept its own");
    assert_eq!(proxies.assign(later, &name("b")), Err(Exhausted));
    assert_eq!(proxies.len(), 2);
}

#[test]
fn the_number_of_names_is_bounded_in_the_largest_range() {
    let now = Instant::now();
    let mut proxies = proxies("10.0.0.0/8", "fd00::/32");
    let assigned =
        (0..20_000).filter(|number| proxies.assign(now, &name(&format!("h{number}.corp"))).is_ok()).count();
    assert_eq!(assigned, 16_384);
    assert_eq!(proxies.len(), 16_384);
}
