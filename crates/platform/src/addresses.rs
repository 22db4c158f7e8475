//! Which addresses this host has, and when that changes.
//!
//! [`watch`] publishes a [`Snapshot`] of the whole state: usable addresses for host candidates and the
//! interfaces that lead out. A change of either is a reason to gather candidates again, and traffic waits for
//! it: the first kernel notification after quiet is looked at at once. While they keep coming, looks grow
//! rarer, down to four a second. A snapshot is published only when it differs from the last.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::watch as cell;

#[cfg(target_os = "linux")]
mod linux;

#[cfg(target_os = "linux")]
pub use crate::netlink::Egress;
#[cfg(target_os = "linux")]
pub use linux::{list, watch};

/// The shortest pause between two looks.
pub const SHORTEST_PAUSE: Duration = Duration::from_millis(4);

/// The longest pause between two looks while notifications keep coming.
pub const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What must not be offered to peers as a way to reach this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The tunnel's own interface, and those of other tunnels of ours.
    pub own_interfaces: Vec<String>,
    /// The tunnel's own address ranges.
    pub excluded: Vec<IpNet>,
    /// The mark of our sockets, so that the way out is looked up past the tunnel's routes.
    pub fwmark: Option<u32>,
    /// Whether to list the networks that the host has routes to.
    pub lists_networks: bool,
}

/// The most networks in a [`Snapshot`]; those that are left out of more are the farther ones.
pub const MOST_NETWORKS: usize = 4_096;

/// How the host comes to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reach {
    /// An interface is in it.
    Connected,
    /// Through a router.
    Routed,
    /// Through another tunnel.
    Tunnel,
}

/// A network that the host has a route to; never a default route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalNetwork {
    /// How the host comes to it.
    pub reach: Reach,
    /// The network.
    pub network: IpNet,
    /// Name of the interface that leads there.
    pub interface: String,
}

/// One usable address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalAddress {
    /// Index of the interface that has it.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Name of the interface.
    pub name: String,
}

/// The whole state at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Usable addresses, ordered by interface.
    pub addresses: Vec<LocalAddress>,
    /// The way out for IPv4.
    pub egress_v4: Option<Egress>,
    /// The way out for IPv6.
    pub egress_v6: Option<Egress>,
    /// Networks of other interfaces in any routing table, ordered, the nearest first; none unless asked for.
    pub networks: Vec<LocalNetwork>,
}

impl Snapshot {
    /// The bare addresses.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(|local| local.address)
    }

    /// The next routers on the ways out.
    pub fn routers(&self) -> impl Iterator<Item = IpAddr> + '_ {
        [&self.egress_v4, &self.egress_v6].into_iter().flatten().filter_map(|egress| egress.gateway)
    }

    /// Whether both offer the same addresses and ways out, whatever networks there are beside.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        let place = |one: &Self| (one.addresses.clone(), one.egress_v4.clone(), one.egress_v6.clone());
        place(self) == place(other)
    }
}

/// Receives snapshots; the newest replaces older unread ones.
#[derive(Debug)]
pub struct Watcher {
    snapshots: cell::Receiver<Snapshot>,
    task: Option<tokio::task::AbortHandle>,
}

impl Watcher {
    /// A watcher fed by hand, for tests.
    #[must_use]
    pub fn fake(first: Snapshot) -> (cell::Sender<Snapshot>, Self) {
        let (sender, snapshots) = cell::channel(first);
        (sender, Self { snapshots, task: None })
    }

    /// The newest snapshot.
    #[must_use]
    pub fn current(&self) -> Snapshot {
        self.snapshots.borrow().clone()
    }

    /// Waits for the next change; never returns once the watch has ended. May be dropped and called again
    /// without losing a change.
    pub async fn changed(&mut self) -> Snapshot {
        if self.snapshots.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.snapshots.borrow_and_update().clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Whether a route to it leads to a network rather than out, or to the neighbours of every link.
///
/// Two halves of everything are a default route too: other tunnels use them to stand before the real one.
#[cfg(target_os = "linux")]
fn is_network(network: &IpNet) -> bool {
    match network {
        IpNet::V4(net) => {
            net.prefix_len() > 1 && !net.network().is_link_local() && !net.network().is_multicast()
        }
        IpNet::V6(net) => {
            net.prefix_len() > 3 && !is_link_local(net.network()) && !net.network().is_multicast()
        }
    }
}

/// Whether an address may become a host candidate.
///
/// Loopback and link-local addresses say nothing to a peer elsewhere; ours would lead the tunnel into itself.
#[must_use]
pub fn is_usable(address: IpAddr, excluded: &[IpNet]) -> bool {
    let special = match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_multicast(),
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || is_link_local(v6)
                || v6.to_ipv4_mapped().is_some()
        }
    };
    !special && !excluded.iter().any(|range| range.contains(&address))
}

fn is_link_local(address: Ipv6Addr) -> bool {
    address.segments()[0] & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_a_peer_could_use_pass() {
        let excluded: Vec<IpNet> =
            ["100.64.0.0/11", "fd00:ad17::/107"].iter().map(|text| text.parse().expect("range")).collect();
        for usable in ["192.168.1.5", "10.0.0.1", "203.0.113.9", "2001:db8::1", "fd12::1", "100.96.0.1"] {
            assert!(is_usable(usable.parse().expect("address"), &excluded), "{usable}");
        }
        for not in [
            "127.0.0.1",
            "169.254.3.4",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "::ffff:10.0.0.1",
            "100.64.0.1",
            "100.95.255.255",
            "fd00:ad17::5",
        ] {
            assert!(!is_usable(not.parse().expect("address"), &excluded), "{not}");
        }
    }

    #[test]
    fn ways_out_in_disguise_and_links_themselves_are_no_networks() {
        for network in ["192.168.1.0/24", "10.0.0.0/8", "100.100.100.100/32", "2001:db8::/64", "fd00::/8"] {
            assert!(is_network(&network.parse().expect("network")), "{network}");
        }
        for not in [
            "0.0.0.0/0",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "169.254.0.0/16",
            "224.0.0.0/4",
            "::/0",
            "2000::/3",
            "fe80::/64",
            "ff00::/8",
        ] {
            assert!(!is_network(&not.parse().expect("network")), "{not}");
        }
    }

    #[tokio::test]
    async fn a_fake_watcher_reports_the_newest_state() {
        let (sender, mut watcher) = Watcher::fake(Snapshot::default());
        let with = |index| Snapshot {
            egress_v4: Some(Egress { interface: index, source: None, gateway: None }),
            ..Snapshot::default()
        };
        sender.send_replace(with(1));
        sender.send_replace(with(2));
        assert_eq!(watcher.changed().await, with(2));
        assert_eq!(watcher.current(), with(2));
    }
}
