//! STUN requests under way: which connection and pair a response belongs to.
//!
//! A response carries nothing but its transaction id, so without this table every agent
//! would have to be asked. Each connection may have a bounded number of requests under way;
//! the oldest give way, as they were answered or lost long ago.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crate::ConnectionId;
use crate::address::Pair;

/// Requests that one connection may have under way.
const PER_CONNECTION: usize = 512;

/// A transaction id (RFC 8489, section 5).
pub(crate) type TransactionId = [u8; 12];

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The ICE agent: a connectivity check.
    Agent,
    /// We ourselves: a probe.
    Probe,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transaction {
    pub(crate) connection: ConnectionId,
    pub(crate) pair: Pair,
    pub(crate) sent: Instant,
    pub(crate) asker: Asker,
}

/// All requests under way.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    by_id: BTreeMap<TransactionId, Transaction>,
    by_connection: BTreeMap<ConnectionId, VecDeque<TransactionId>>,
}

impl Transactions {
    pub(crate) fn insert(&mut self, id: TransactionId, transaction: Transaction) {
        let queue = self.by_connection.entry(transaction.connection).or_default();
        queue.push_back(id);
        if queue.len() > PER_CONNECTION
            && let Some(oldest) = queue.pop_front()
        {
            self.by_id.remove(&oldest);
        }
        self.by_id.insert(id, transaction);
    }

    pub(crate) fn get(&self, id: &TransactionId) -> Option<Transaction> {
        self.by_id.get(id).copied()
    }

    /// Takes an answered request out.
    pub(crate) fn remove(&mut self, id: &TransactionId) {
        let Some(transaction) = self.by_id.remove(id) else { return };
        if let Some(queue) = self.by_connection.get_mut(&transaction.connection) {
            queue.retain(|other| other != id);
        }
    }

    /// Takes everything of a connection out.
    pub(crate) fn forget(&mut self, connection: ConnectionId) {
        for id in self.by_connection.remove(&connection).into_iter().flatten() {
            self.by_id.remove(&id);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_a_share_and_leaves_nothing() {
        let mut transactions = Transactions::default();
        let address = "192.0.2.1:1".parse().unwrap();
        let transaction = |connection| Transaction {
            connection: ConnectionId(connection),
            pair: Pair { local: address, remote: address },
            sent: Instant::now(),
            asker: Asker::Agent,
        };
        let id = |number: u32| {
            let mut id = [0; 12];
            id[..4].copy_from_slice(&number.to_be_bytes());
            id
        };
        for number in 0..2000 {
            transactions.insert(id(number), transaction(1));
        }
        transactions.insert(id(9999), transaction(2));
        assert_eq!(transactions.len(), PER_CONNECTION + 1);
        assert!(transactions.get(&id(0)).is_none() && transactions.get(&id(1999)).is_some());
        transactions.remove(&id(1999));
        transactions.forget(ConnectionId(1));
        assert_eq!(transactions.len(), 1);
        transactions.forget(ConnectionId(2));
        assert_eq!((transactions.len(), transactions.by_connection.len()), (0, 0));
    }
}
