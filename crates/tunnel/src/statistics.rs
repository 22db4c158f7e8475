//! How much a machine holds, for metrics and for tests that nothing stays behind.

use adit_peering::Node;

/// How much a machine holds; all zero after the last connection closed and nothing waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Connections.
    pub connections: usize,
    /// Connections as the workers know them; as many.
    pub peers: usize,
    /// Leases, or authorizations as the client calls them.
    pub leases: usize,
    /// Packets and announcements that wait for something.
    pub waiting: usize,
    /// Names announced to gateways, or by clients.
    pub names: usize,
    /// Flows with a translation; a client keeps none.
    pub flows: usize,
    /// The machine's own deadlines.
    pub timers: usize,
    /// WireGuard sessions.
    pub sessions: usize,
    /// TURN channels.
    pub channels: usize,
    /// Deadlines of connections.
    pub connection_timers: usize,
    /// Checks and probes under way.
    pub transactions: usize,
}

impl Statistics {
    pub(crate) fn of(node: &Node) -> Self {
        let node = node.statistics();
        Self {
            sessions: node.sessions,
            channels: node.channels,
            connection_timers: node.timers,
            transactions: node.transactions,
            ..Self::default()
        }
    }
}
