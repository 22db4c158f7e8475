//! Address translation of one client's flows: which tuple each has beyond the gateway.
//!
//! A flow to a name goes to the name's real address with its source port, so two names that
//! share an address, or a name and a network, can collide: then the later flow gets another
//! source port. Flows without translation are kept too, because they can be collided with.
//!
//! Nothing is lost if an entry stays too long or goes too early: a worker replaces the older
//! of two flows that share a tuple, and the next packet of the replaced one comes here again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use adit_dataplane::GrantId;
use adit_packet::{FlowTuple, protocol};

/// The most flows of one client; beyond it the oldest entry goes.
const MAX_FLOWS: usize = 65_536;
/// How many ports are tried before the flow is refused.
const MAX_TRIES: usize = 1024;
/// The lowest port that a flow is moved to.
const FIRST_PORT: u16 = 1024;

#[derive(Debug, Clone, Copy)]
struct Entry {
    number: u64,
    /// The tuple of forward packets beyond the gateway.
    beyond: FlowTuple,
    grant: GrantId,
}

/// The translations of one client.
#[derive(Debug, Default)]
pub(crate) struct Translations {
    flows: HashMap<FlowTuple, Entry>,
    /// By the tuple beyond the gateway.
    taken: HashMap<FlowTuple, FlowTuple>,
    /// In the order of their making.
    by_number: BTreeMap<u64, FlowTuple>,
    by_grant: BTreeMap<GrantId, BTreeSet<u64>>,
    last_number: u64,
}

impl Translations {
    /// The tuple beyond the gateway of the flow `inside`: `wanted`, or with another source port.
    ///
    /// `None` when no source port is free.
    pub(crate) fn assign(
        &mut self,
        inside: FlowTuple,
        wanted: FlowTuple,
        grant: GrantId,
    ) -> Option<FlowTuple> {
        if let Some(entry) = self.flows.get(&inside) {
            if (entry.beyond.destination, entry.grant) == (wanted.destination, grant) {
                return Some(entry.beyond);
            }
            self.end(&inside);
        }
        let beyond = self.free_tuple(wanted)?;
        if self.flows.len() >= MAX_FLOWS
            && let Some(oldest) = self.by_number.values().next().copied()
        {
            self.end(&oldest);
        }
        self.insert(inside, beyond, grant);
        Some(beyond)
    }

    /// Every flow: its tuple inside, its tuple beyond the gateway, and what it rests on.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FlowTuple, FlowTuple, GrantId)> {
        self.by_number.values().filter_map(|inside| {
            let entry = self.flows.get(inside)?;
            Some((*inside, entry.beyond, entry.grant))
        })
    }

    /// Takes over a flow from an earlier run, whose tuples must both be free.
    pub(crate) fn restore(&mut self, inside: FlowTuple, beyond: FlowTuple, grant: GrantId) -> bool {
        let is_free = !self.flows.contains_key(&inside) && !self.taken.contains_key(&beyond);
        if is_free && self.flows.len() < MAX_FLOWS {
            self.insert(inside, beyond, grant);
            return true;
        }
        false
    }

    fn insert(&mut self, inside: FlowTuple, beyond: FlowTuple, grant: GrantId) {
        self.last_number += 1;
        let number = self.last_number;
        self.flows.insert(inside, Entry { number, beyond, grant });
        self.taken.insert(beyond, inside);
        self.by_number.insert(number, inside);
        self.by_grant.entry(grant).or_default().insert(number);
    }

    /// The flow is over: its tuple is free again.
    pub(crate) fn end(&mut self, inside: &FlowTuple) {
        let Some(entry) = self.flows.remove(inside) else { return };
        self.taken.remove(&entry.beyond);
        self.by_number.remove(&entry.number);
        if let Some(numbers) = self.by_grant.get_mut(&entry.grant) {
            numbers.remove(&entry.number);
            if numbers.is_empty() {
                self.by_grant.remove(&entry.grant);
            }
        }
    }

    /// Flows that rest on one grant rest on another now.
    pub(crate) fn move_grant(&mut self, from: GrantId, to: GrantId) {
        for number in self.by_grant.remove(&from).unwrap_or_default() {
            if let Some(entry) = self.by_number.get(&number).and_then(|inside| self.flows.get_mut(inside)) {
                entry.grant = to;
                self.by_grant.entry(to).or_default().insert(number);
            }
        }
    }

    /// All flows that rest on `grant` are over.
    pub(crate) fn end_grant(&mut self, grant: GrantId) {
        for number in self.by_grant.get(&grant).cloned().unwrap_or_default() {
            if let Some(inside) = self.by_number.get(&number).copied() {
                self.end(&inside);
            }
        }
    }

    /// How many flows there ever were.
    pub(crate) const fn made(&self) -> u64 {
        self.last_number
    }

    pub(crate) fn len(&self) -> usize {
        self.flows.len()
    }

    /// The wanted tuple, or the next one that is free.
    fn free_tuple(&self, wanted: FlowTuple) -> Option<FlowTuple> {
        let tries = if has_ports(wanted.protocol) { MAX_TRIES } else { 1 };
        let mut tuple = wanted;
        for _ in 0..tries {
            if !self.taken.contains_key(&tuple) {
                return Some(tuple);
            }
            tuple.source_port = tuple.source_port.checked_add(1).unwrap_or(FIRST_PORT).max(FIRST_PORT);
            if is_echo(tuple.protocol) {
                // An echo has one identifier, which stands in both places.
                tuple.destination_port = tuple.source_port;
            }
        }
        None
    }
}

const fn is_echo(protocol: u8) -> bool {
    matches!(protocol, protocol::ICMP | protocol::ICMPV6)
}

const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP) || is_echo(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &str = "10.0.0.5";

    fn inside(proxy: &str, source_port: u16) -> FlowTuple {
        FlowTuple {
            protocol: protocol::TCP,
            source: "100.64.0.2".parse().unwrap(),
            destination: proxy.parse().unwrap(),
            source_port,
            destination_port: 443,
        }
    }

    fn assign(table: &mut Translations, proxy: &str, source_port: u16) -> FlowTuple {
        assign_to(table, inside(proxy, source_port), GrantId(1)).unwrap()
    }

    fn assign_to(table: &mut Translations, inside: FlowTuple, grant: GrantId) -> Option<FlowTuple> {
        table.assign(inside, FlowTuple { destination: REAL.parse().unwrap(), ..inside }, grant)
    }

    #[test]
    fn the_source_port_is_kept_unless_it_collides() {
        let mut table = Translations::default();
        assert_eq!(assign(&mut table, "100.96.0.1", 5000).source_port, 5000);
        assert_eq!(assign(&mut table, "100.96.0.2", 5000).source_port, 5001);
        assert_eq!(assign(&mut table, "10.0.0.5", 5000).source_port, 5002, "a flow to the address itself");
        assert_eq!(assign(&mut table, "100.96.0.2", 5000).source_port, 5001, "the same flow again");
        table.end(&inside("100.96.0.1", 5000));
        assert_eq!(assign(&mut table, "100.96.0.3", 5000).source_port, 5000);
    }

    #[test]
    fn ports_wrap_to_the_first_unprivileged_one() {
        let mut table = Translations::default();
        assert_eq!(assign(&mut table, "100.96.0.1", u16::MAX).source_port, u16::MAX);
        assert_eq!(assign(&mut table, "100.96.0.2", u16::MAX).source_port, FIRST_PORT);
        assert_eq!(assign(&mut table, "100.96.0.1", 53).source_port, 53);
        assert_eq!(assign(&mut table, "100.96.0.2", 53).source_port, FIRST_PORT + 1);
    }

    #[test]
    fn an_echo_keeps_one_identifier() {
        let mut table = Translations::default();
        let echo = |proxy: &str| FlowTuple {
            protocol: protocol::ICMP,
            source_port: 7,
            destination_port: 7,
            ..inside(proxy, 0)
        };
        for proxy in ["100.96.0.1", "100.96.0.2"] {
            let beyond = assign_to(&mut table, echo(proxy), GrantId(1)).unwrap();
            assert_eq!(beyond.source_port, beyond.destination_port);
        }
        assert_eq!(table.len(), 2);
    }

    #[test]
    fn a_protocol_without_ports_cannot_be_moved() {
        let mut table = Translations::default();
        let gre =
            |proxy: &str| FlowTuple { protocol: 47, source_port: 0, destination_port: 0, ..inside(proxy, 0) };
        assert!(assign_to(&mut table, gre("100.96.0.1"), GrantId(1)).is_some());
        assert!(assign_to(&mut table, gre("100.96.0.2"), GrantId(1)).is_none());
    }

    #[test]
    fn a_grant_takes_all_its_flows_along() {
        let mut table = Translations::default();
        assign(&mut table, "100.96.0.1", 1);
        assign(&mut table, "100.96.0.2", 1);
        assign_to(&mut table, inside("100.96.0.3", 1), GrantId(2)).unwrap();
        table.end_grant(GrantId(1));
        assert_eq!(table.len(), 1);
        table.end_grant(GrantId(2));
        assert!(table.flows.is_empty() && table.taken.is_empty());
        assert!(table.by_number.is_empty() && table.by_grant.is_empty());
    }
}
