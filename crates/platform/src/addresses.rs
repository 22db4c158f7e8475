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
}

impl Snapshot {
    /// The bare addresses.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(|local| local.address)
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
