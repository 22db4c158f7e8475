//! Longest-prefix match over networks that have several owners.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

/// Values by network; a lookup walks prefix lengths, never entries.
#[derive(Debug)]
pub(crate) struct NetworkTable<Value> {
    ipv4: Levels<Value>,
    ipv6: Levels<Value>,
}

/// The networks of one family by prefix length, longest first.
type Levels<Value> = BTreeMap<Reverse<u8>, HashMap<IpNet, Vec<Value>>>;

impl<Value: Copy + Ord> NetworkTable<Value> {
    pub(crate) const fn new() -> Self {
        Self { ipv4: BTreeMap::new(), ipv6: BTreeMap::new() }
    }

    /// Adds an owner of `network`; adding it again changes nothing.
    pub(crate) fn insert(&mut self, network: IpNet, value: Value) {
        let network = network.trunc();
        let level = self.levels_mut(network).entry(Reverse(network.prefix_len())).or_default();
        let values = level.entry(network).or_default();
        if let Err(at) = values.binary_search(&value) {
            values.insert(at, value);
        }
    }

    /// Removes an owner of `network`.
    pub(crate) fn remove(&mut self, network: IpNet, value: Value) {
        let network = network.trunc();
        let levels = self.levels_mut(network);
        let Some(level) = levels.get_mut(&Reverse(network.prefix_len())) else { return };
        let Some(values) = level.get_mut(&network) else { return };
        values.retain(|present| *present != value);
        if values.is_empty() {
            level.remove(&network);
        }
        if level.is_empty() {
            levels.remove(&Reverse(network.prefix_len()));
        }
    }

    /// The owners of all networks around `address`, the most specific network first.
    pub(crate) fn covering(&self, address: IpAddr) -> impl Iterator<Item = (IpNet, Value)> + '_ {
        let levels = if address.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        levels.iter().flat_map(move |(Reverse(length), level)| {
            // The length came from a network of this family, so the key is always well formed.
            let key = IpNet::new(address, *length).map(|network| network.trunc()).ok();
            key.and_then(|key| level.get_key_value(&key))
                .into_iter()
                .flat_map(|(network, values)| values.iter().map(|value| (*network, *value)))
        })
    }

    /// Every network, in no particular order within one prefix length.
    pub(crate) fn networks(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.ipv4.values().chain(self.ipv6.values()).flat_map(|level| level.keys().copied())
    }

    const fn levels_mut(&mut self, network: IpNet) -> &mut Levels<Value> {
        match network {
            IpNet::V4(_) => &mut self.ipv4,
            IpNet::V6(_) => &mut self.ipv6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(table: &NetworkTable<u8>, address: &str) -> Vec<u8> {
        table.covering(address.parse().unwrap()).map(|(_, value)| value).collect()
    }

    #[test]
    fn the_most_specific_network_comes_first() {
        let mut table = NetworkTable::new();
        table.insert("10.0.0.0/8".parse().unwrap(), 1);
        table.insert("10.1.2.3/32".parse().unwrap(), 2);
        table.insert("10.1.0.0/16".parse().unwrap(), 3);
        table.insert("fd00::/8".parse().unwrap(), 4);
        assert_eq!(owners(&table, "10.1.2.3"), [2, 3, 1]);
        assert_eq!(owners(&table, "10.1.2.4"), [3, 1]);
        assert_eq!(owners(&table, "10.2.0.1"), [1]);
        assert_eq!(owners(&table, "11.0.0.1"), [0_u8; 0]);
        assert_eq!(owners(&table, "fd00::1"), [4]);
    }

    #[test]
    fn owners_of_one_network_come_in_their_order_and_leave_nothing_behind() {
        let mut table = NetworkTable::new();
        let network = "192.0.2.0/24".parse().unwrap();
        for value in [7, 3, 7] {
            table.insert(network, value);
        }
        assert_eq!(owners(&table, "192.0.2.9"), [3, 7]);
        table.remove(network, 3);
        table.remove(network, 7);
        table.remove(network, 7);
        assert_eq!(table.networks().count(), 0);
        assert!(table.ipv4.is_empty());
    }
}
