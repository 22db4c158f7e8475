//! Whose request it is when a proxy passes it on.
//!
//! `X-Forwarded-For` is believed only where the connection comes from a declared proxy, and
//! only as far as proxies go: read from the right, the first address that is no declared proxy
//! is the client's. What stands left of it is what anybody may have written.

use std::net::IpAddr;

use hyper::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address that a request is answered, limited and recorded for.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let is_proxy = |address: &IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    if !is_proxy(&peer) {
        return peer;
    }
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    let mut nearest = peer;
    for entry in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        // An entry that cannot be read ends what can be trusted.
        let Some(address) = address(entry.trim()) else { return nearest };
        nearest = address;
        if !is_proxy(&address) {
            return address;
        }
    }
    nearest
}

/// An address, with or without a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').split(']').next().unwrap_or(text);
    let plain = bare.parse().ok();
    let address: Option<IpAddr> =
        plain.or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(peer: &str, forwarded: &[&str]) -> String {
        let proxies = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        client(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn strangers_are_not_believed() {
        assert_eq!(seen("192.0.2.1", &["198.51.100.7"]), "192.0.2.1");
        assert_eq!(seen("192.0.2.1", &[]), "192.0.2.1");
    }

    #[test]
    fn behind_proxies_the_last_stranger_counts() {
        assert_eq!(seen("10.0.0.1", &["198.51.100.7"]), "198.51.100.7");
        assert_eq!(seen("10.0.0.1", &["1.1.1.1, 198.51.100.7, 10.2.2.2"]), "198.51.100.7");
        assert_eq!(seen("10.0.0.1", &["1.1.1.1", "198.51.100.7:4711"]), "198.51.100.7");
        assert_eq!(seen("fd00::1", &["[2001:db8::7]:4711"]), "2001:db8::7");
        assert_eq!(seen("10.0.0.1", &["::ffff:198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn what_cannot_be_read_is_not_looked_behind() {
        assert_eq!(seen("10.0.0.1", &["198.51.100.7, unknown"]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["198.51.100.7, x, 10.2.2.2"]), "10.2.2.2");
        assert_eq!(seen("10.0.0.1", &["10.3.3.3, 10.2.2.2"]), "10.3.3.3");
        assert_eq!(seen("10.0.0.1", &[""]), "10.0.0.1");
    }
}
