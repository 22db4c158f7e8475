//! Which interface frames for an address come in by, and what the kernel says about it.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

/// Addresses of nobody (RFC 5737, RFC 3849), which the default route leads to.
const ELSEWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// The interface that has an address.
pub fn with_address(ip: IpAddr) -> Option<String> {
    let mut interfaces = nix::ifaddrs::getifaddrs().ok()?;
    let found = interfaces.find(|interface| {
        let address = interface.address.as_ref();
        let v4 = address.and_then(|address| Some(IpAddr::V4(address.as_sockaddr_in()?.ip())));
        let v6 = address.and_then(|address| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())));
        v4.or(v6) == Some(ip)
    })?;
    Some(found.interface_name)
}

/// The address this machine sends from when it sends to the internet; nothing is sent.
///
/// # Errors
/// When no route leads there.
pub fn address_to_the_internet(is_v6: bool) -> io::Result<IpAddr> {
    let unspecified: SocketAddr = if is_v6 { ([0_u16; 8], 0).into() } else { ([0_u8; 4], 0).into() };
    let socket = UdpSocket::bind(unspecified)?;
    socket.connect(ELSEWHERE[usize::from(is_v6)])?;
    Ok(socket.local_addr()?.ip())
}

/// Whether a device is behind the interface, and not only software such as `veth`.
///
/// A virtual machine's network card counts as a device.
pub fn is_device(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).join("device").exists()
}

/// Frames that an interface could not send since it was made.
#[cfg(feature = "program")]
pub(crate) fn transmit_drops(name: &str) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").ok()?;
    drops_of(&table, name)
}

/// Column 12 of the interface's line: receive has eight, then bytes, packets, errors, drops.
#[cfg(feature = "program")]
fn drops_of(table: &str, name: &str) -> Option<u64> {
    let of_line = |line: &str| {
        let (found, figures) = line.split_once(':')?;
        (found.trim() == name).then(|| figures.split_whitespace().nth(11)?.parse().ok()).flatten()
    };
    table.lines().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(feature = "program")]
    #[test]
    fn drops_are_found_by_name() {
        let table = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  eth0:101 102 103 104 105 106 107 108 109 110 111 112 113 114 115 116\n";
        assert_eq!(drops_of(table, "eth0"), Some(112));
        assert_eq!(drops_of(table, "lo"), Some(12));
        assert_eq!(drops_of(table, "eth"), None);
        assert!(transmit_drops("lo").is_some(), "the table of this machine can be read");
    }

    #[test]
    fn loopback_has_its_address_and_no_device() {
        assert_eq!(with_address(IpAddr::from([127, 0, 0, 1])).as_deref(), Some("lo"));
        assert_eq!(with_address(IpAddr::from([203, 0, 113, 77])), None);
        assert!(!is_device("lo"));
    }
}
