//! What both machines do with their peers: connections, relays, and the way from `peering`
//! to the workers.
//!
//! A worker knows peers by the number of their connection. Numbers are never used twice, so
//! an update or a packet of a connection that is gone cannot hit its successor.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_dataplane::{Event as WorkerEvent, Flow, FlowKey, FlowUsage, GrantId, PeerId, Update};
use adit_peering::{
    Config, ConnectionId, Event, Forwarding, Inbound, Introduction, Node, OpenError, StreamId, Transmit,
};
use adit_policy::RelayId;
use adit_protocol::client::RelaysChanged;
use adit_protocol::{PeerIntroduction, RelayAccess, peer};
use adit_wireguard::{PresharedKey, PublicKey};

use crate::drops::{DropCounters, DropReason};
use crate::interface::DEFAULT_MTU;

/// The peers of a machine and the forwarding state of its workers.
#[derive(Debug)]
pub(crate) struct Link {
    node: Node,
    relays: BTreeMap<RelayId, RelayAccess>,
    updates: VecDeque<Update>,
    tun_writes: VecDeque<Vec<u8>>,
    last_grant: u64,
    connections: HashMap<PeerId, ConnectionId>,
    handshakes: HashMap<PeerId, Instant>,
    /// The largest inner packet that any path has carried, and whether nobody was told yet.
    widest: u16,
    is_wider: bool,
    /// Packets that the slow path dropped.
    pub(crate) drops: DropCounters,
}

/// How a worker knows the peer at the other end of a connection.
pub(crate) const fn peer_of(connection: ConnectionId) -> PeerId {
    PeerId(connection.value())
}

impl Link {
    pub(crate) fn new(now: Instant, unix_now: Duration, config: Config) -> Self {
        Self {
            node: Node::new(now, unix_now, config),
            relays: BTreeMap::new(),
            updates: VecDeque::new(),
            tun_writes: VecDeque::new(),
            last_grant: 0,
            connections: HashMap::new(),
            handshakes: HashMap::new(),
            widest: DEFAULT_MTU,
            is_wider: false,
            drops: DropCounters::new(),
        }
    }

    pub(crate) const fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) const fn node_mut(&mut self) -> &mut Node {
        &mut self.node
    }

    /// Begins to connect to the peer that the portal introduced.
    pub(crate) fn open<Id>(
        &mut self,
        now: Instant,
        own_address: Ipv6Addr,
        peer: &PeerIntroduction<Id>,
    ) -> Result<ConnectionId, OpenError> {
        let connection = self.node.open(
            now,
            Introduction {
                public_key: PublicKey(peer.public_key.0),
                preshared_key: PresharedKey(peer.preshared_key.0),
                epoch: peer.epoch,
                local_ice: peer.local_ice.clone(),
                remote_ice: peer.remote_ice.clone(),
                candidates: peer.candidates.clone(),
                local_tunnel_address: own_address,
                remote_tunnel_address: peer.ipv6,
            },
        )?;
        self.connections.insert(peer_of(connection), connection);
        Ok(connection)
    }

    /// Uses exactly these relays.
    pub(crate) fn set_relays(&mut self, now: Instant, relays: Vec<RelayAccess>) {
        self.relays = relays.into_iter().map(|relay| (relay.id, relay)).collect();
        self.apply_relays(now);
    }

    /// Applies a change of the relays.
    pub(crate) fn change_relays(&mut self, now: Instant, change: RelaysChanged) {
        for id in change.removed {
            self.relays.remove(&id);
        }
        self.relays.extend(change.added.into_iter().map(|relay| (relay.id, relay)));
        self.apply_relays(now);
    }

    /// The relays in use, sorted by id.
    pub(crate) fn relays(&self) -> impl Iterator<Item = &RelayAccess> {
        self.relays.values()
    }

    fn apply_relays(&mut self, now: Instant) {
        let relays: Vec<RelayAccess> = self.relays().cloned().collect();
        self.node.set_relays(now, &relays);
    }

    /// Takes a datagram that no worker understood; returns the packet in it, if there is one.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Option<(ConnectionId, std::ops::Range<usize>)> {
        match self.node.handle_datagram(now, local, from, datagram) {
            Ok(Inbound::Packet { connection, range }) => Some((connection, range)),
            Ok(Inbound::Consumed) => None,
            Err(reason) => {
                tracing::trace!(%from, ?reason, "dropped a datagram");
                self.drops.count(DropReason::UnknownDatagram);
                None
            }
        }
    }

    /// The same for a message that came from a relay over a stream.
    pub(crate) fn handle_stream_message(
        &mut self,
        now: Instant,
        from: StreamId,
        message: &mut [u8],
    ) -> Option<(ConnectionId, std::ops::Range<usize>)> {
        match self.node.handle_stream_message(now, from, message) {
            Ok(Inbound::Packet { connection, range }) => Some((connection, range)),
            Ok(Inbound::Consumed) => None,
            Err(reason) => {
                tracing::trace!(stream = from.0, ?reason, "dropped a message of a stream");
                self.drops.count(DropReason::UnknownDatagram);
                None
            }
        }
    }

    /// Takes a decrypted packet if it is a peer control message.
    pub(crate) fn handle_control(&mut self, now: Instant, connection: ConnectionId, packet: &[u8]) -> bool {
        let is_control = peer::is_control(packet);
        if is_control && self.node.handle_control_packet(now, connection, packet).is_err() {
            self.drops.count(DropReason::InvalidControl);
        }
        is_control
    }

    /// Tells the node what a worker noticed of a peer.
    pub(crate) fn note_worker_event(&mut self, now: Instant, event: &WorkerEvent) {
        let (peer, noticed) = match event {
            WorkerEvent::PeerActive { peer } => (peer, adit_peering::WorkerEvent::Active),
            WorkerEvent::Roamed { peer, path } => {
                (peer, adit_peering::WorkerEvent::Roamed { path: from_worker(path) })
            }
            WorkerEvent::FlowEnded { .. } => return,
        };
        if let Some(connection) = self.connections.get(peer).copied() {
            self.node.note_worker_event(now, connection, noticed);
        }
    }

    /// The connection that workers know as `peer`.
    pub(crate) fn connection_of(&self, peer: PeerId) -> Option<ConnectionId> {
        self.connections.get(&peer).copied()
    }

    /// How many connections workers know.
    pub(crate) fn peer_count(&self) -> usize {
        self.connections.len()
    }

    /// When the newest handshake with the peer was completed.
    pub(crate) fn last_handshake(&self, connection: ConnectionId) -> Option<Instant> {
        self.handshakes.get(&peer_of(connection)).copied()
    }

    /// Sends an IP packet to the peer.
    pub(crate) fn send(&mut self, now: Instant, connection: ConnectionId, packet: &[u8]) {
        if self.node.send_packet(now, connection, packet).is_err() {
            self.drops.count(DropReason::NotConnected);
        }
    }

    /// Hands an IP packet to the operating system.
    pub(crate) fn write_tun(&mut self, packet: Vec<u8>) {
        self.tun_writes.push_back(packet);
    }

    /// Names a new grant; a grant that was revoked never comes back under its old name.
    pub(crate) const fn next_grant(&mut self) -> GrantId {
        self.last_grant += 1;
        GrantId(self.last_grant)
    }

    /// Lets the packets of a flow pass; where they are counted comes back.
    pub(crate) fn install(&mut self, flow: Flow) -> Arc<FlowUsage> {
        let usage = Arc::default();
        self.updates.push_back(Update::FlowInstalled { flow: Box::new(flow), usage: Arc::clone(&usage) });
        usage
    }

    /// Lets the workers drop the packets of `key` by themselves for a while.
    pub(crate) fn refuse(&mut self, key: FlowKey, reason: DropReason, until: Instant) {
        self.updates.push_back(Update::FlowRefused { key, reason: reason.for_worker(), until });
    }

    /// Ends every flow that rests on `grant`, at once.
    pub(crate) fn revoke(&mut self, grant: GrantId) {
        self.updates.push_back(Update::GrantRevoked { grant });
    }

    /// Lets the flows that rest on one grant rest on another.
    pub(crate) fn move_grant(&mut self, from: GrantId, to: GrantId) {
        self.updates.push_back(Update::GrantMoved { from, to });
    }

    /// Gives the flows of a connection that is gone to the one that takes its place.
    pub(crate) fn move_flows(&mut self, from: ConnectionId, to: ConnectionId) {
        self.connections.remove(&peer_of(from));
        self.handshakes.remove(&peer_of(from));
        self.updates.push_back(Update::FlowsMoved { from: peer_of(from), to: peer_of(to) });
    }

    /// Ends every flow of a connection that is gone.
    pub(crate) fn forget_flows(&mut self, connection: ConnectionId) {
        self.connections.remove(&peer_of(connection));
        self.handshakes.remove(&peer_of(connection));
        self.updates.push_back(Update::FlowsForgotten { peer: peer_of(connection) });
    }

    /// The next event of the node, after what it wants the workers to know is queued.
    ///
    /// In this order a worker has the session and the path of a peer before the first flow.
    pub(crate) fn poll_node(&mut self, now: Instant) -> Option<Event> {
        while let Some(forwarding) = self.node.poll_forwarding() {
            if let Forwarding::SendSession { id, .. } = &forwarding
                && self.connections.contains_key(&peer_of(*id))
            {
                self.handshakes.insert(peer_of(*id), now);
            }
            if let Forwarding::MtuChanged { mtu, .. } = forwarding {
                self.is_wider |= mtu > self.widest;
                self.widest = self.widest.max(mtu);
            }
            self.updates.push_back(to_update(forwarding));
        }
        self.node.poll_event()
    }

    /// The MTU that suits the interface: what the widest path so far carries.
    pub(crate) const fn interface_mtu(&self) -> u16 {
        self.widest
    }

    /// Whether that has grown since this was last asked.
    pub(crate) fn take_wider(&mut self) -> bool {
        std::mem::take(&mut self.is_wider)
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.node.poll_transmit()
    }

    pub(crate) fn poll_update(&mut self) -> Option<Update> {
        self.updates.pop_front()
    }

    pub(crate) fn poll_tun_write(&mut self) -> Option<Vec<u8>> {
        self.tun_writes.pop_front()
    }
}

fn to_update(forwarding: Forwarding) -> Update {
    match forwarding {
        Forwarding::SessionAdded { id, session } => Update::SessionAdded { peer: peer_of(id), session },
        Forwarding::SessionRemoved { receiver_index } => Update::SessionRemoved { receiver_index },
        Forwarding::SendSession { id, session } => Update::SendSession { peer: peer_of(id), session },
        Forwarding::PathChanged { id, path } => {
            Update::PathChanged { peer: peer_of(id), path: to_worker(path) }
        }
        Forwarding::MtuChanged { id, mtu } => Update::MtuChanged { peer: peer_of(id), mtu },
        Forwarding::PeerRemoved { id } => Update::PeerRemoved { peer: peer_of(id) },
    }
}

fn to_worker(path: adit_peering::Path) -> adit_dataplane::Path {
    let adit_peering::Path { local, remote, channel, stream } = path;
    adit_dataplane::Path { local, remote, channel, stream: stream.map(|id| adit_dataplane::StreamId(id.0)) }
}

fn from_worker(path: &adit_dataplane::Path) -> adit_peering::Path {
    let adit_dataplane::Path { local, remote, channel, stream } = *path;
    adit_peering::Path { local, remote, channel, stream: stream.map(|id| StreamId(id.0)) }
}
