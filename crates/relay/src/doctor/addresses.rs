//! Whether the public addresses are this machine's, and public.

use std::net::IpAddr;

use super::report::Finding;
use crate::settings::{Address, Place};

const CHECK: &str = "address";

pub(super) fn check(place: &Place) -> Vec<Finding> {
    let interfaces = interfaces();
    let given: Vec<Address> = [place.v4, place.v6].into_iter().flatten().collect();
    if given.is_empty() {
        return vec![none_given(&interfaces)];
    }
    given.iter().map(|address| judge(place, address, &interfaces)).collect()
}

fn none_given(interfaces: &[(String, IpAddr)]) -> Finding {
    let public: Vec<String> = interfaces
        .iter()
        .filter(|(_, ip)| !is_private(*ip))
        .map(|(name, ip)| format!("{ip} ({name})"))
        .collect();
    let has = if public.is_empty() { "no public address of its own".to_owned() } else { public.join(", ") };
    Finding::failure(
        CHECK,
        format!("no address is given; this machine has {has}"),
        "give --public-ipv4 or --public-ipv6: where clients and peers reach this relay",
    )
}

fn judge(place: &Place, address: &Address, interfaces: &[(String, IpAddr)]) -> Finding {
    let Address { public, bind } = *address;
    let interface = interfaces.iter().find(|(_, ip)| *ip == public).map(|(name, _)| name);
    if public.is_unspecified() || public.is_multicast() {
        return Finding::failure(
            CHECK,
            format!("{public} is no address that anybody could reach"),
            "give the public one",
        );
    }
    if !bind.is_unspecified() && !interfaces.iter().any(|(_, ip)| *ip == bind) {
        return Finding::failure(
            CHECK,
            format!("{bind} is to be bound, but is no address of this machine"),
            "give --bind-ipv4 or --bind-ipv6 an address of this machine",
        );
    }
    let private = is_private(public);
    match interface {
        Some(name) if private => Finding::warning(
            CHECK,
            format!("{public} ({name}) is not a public address"),
            "fine for a private network; else give the public address, and have it translated one-to-one",
        ),
        Some(name) => Finding::ok(CHECK, format!("{public} is this machine's ({name})")),
        None => Finding::warning(
            CHECK,
            format!("{public} is not on this machine, which binds {bind}"),
            format!(
                "have UDP {} and {}-{}{} translated one-to-one from {public} to this machine, without changing ports",
                place.port,
                place.ports.start(),
                place.ports.end(),
                stream_ports(place)
            ),
        ),
    }
}

fn stream_ports(place: &Place) -> String {
    let ports = place.tcp_port.into_iter().chain(place.tls.as_ref().map(|tls| tls.port));
    ports.map(|port| format!(", TCP {port}")).collect()
}

/// The addresses of this machine, with the interfaces that have them.
pub(super) fn interfaces() -> Vec<(String, IpAddr)> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let addresses = all.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let ip = v4.or(address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))?;
        Some((interface.interface_name, ip))
    });
    addresses.collect()
}

/// True if packets from the Internet do not find the address.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let is_carriers = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64;
            ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation() || is_carriers
        }
        IpAddr::V6(ip) => {
            let is_documentation = ip.segments()[..2] == [0x2001, 0xdb8];
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || is_documentation
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::report::Status;
    use super::*;
    use crate::arguments::Arguments;

    fn status(line: &str, interfaces: &[(&str, &str)]) -> (Status, String) {
        let place = Place::new(&Arguments::parse_from(line.split(' '))).expect("sound");
        let ip = |text: &str| text.parse::<IpAddr>().expect("address");
        let interfaces: Vec<_> =
            interfaces.iter().map(|(name, text)| ((*name).to_owned(), ip(text))).collect();
        let address = place.v4.or(place.v6).expect("an address");
        let finding = judge(&place, &address, &interfaces);
        (finding.status, finding.advice.unwrap_or_default())
    }

    #[test]
    fn addresses_are_told_apart() {
        let own = [("eth0", "198.51.100.7"), ("eth0", "8.8.8.8"), ("eth1", "10.0.0.1")];
        assert_eq!(status("adit-relay doctor --public-ipv4 8.8.8.8 --bind-ipv4 8.8.8.8", &own).0, Status::Ok);
        assert_eq!(
            status("adit-relay doctor --public-ipv4 10.0.0.1 --bind-ipv4 10.0.0.1", &own).0,
            Status::Warning
        );
        let (natted, advice) = status("adit-relay doctor --public-ipv4 9.9.9.9 --tcp-port 443", &own);
        assert!(natted == Status::Warning && advice.contains("49152-65535, TCP 443"), "{advice}");
        assert_eq!(
            status("adit-relay doctor --public-ipv4 9.9.9.9 --bind-ipv4 9.9.9.9", &own).0,
            Status::Failure
        );
        assert_eq!(status("adit-relay doctor --public-ipv6 ::", &own).0, Status::Failure);
        assert_eq!(
            none_given(&[("eth0".to_owned(), "8.8.8.8".parse().expect("address"))]).status,
            Status::Failure
        );
    }
}
