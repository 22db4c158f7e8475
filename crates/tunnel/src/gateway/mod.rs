//! The gateway's machine: leases in, flows out.
//!
//! # What it enforces
//!
//! A packet of a client passes only if it carries the client's own tunnel address, and a
//! lease of that client covers its destination and its protocol. The proof is a value that
//! only the table of leases makes, and without it no flow can be made. A lease ends by a
//! timer at its deadline, by the portal's word, or with the connection; its flows end with it.
//!
//! # Deliberately absent
//!
//! Packets that start at a resource: nobody behind the gateway may open a flow to a client.
//! Packets from client to client. The translation of source addresses: the kernel masquerades.

mod admission;
mod clients;
mod domains;
mod handover;
mod held;
mod leases;
mod names;
mod portal;
mod translations;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_dataplane::{EndCause, Event as WorkerEvent, Origin, PeerId, Update};
use adit_peering::{ConnectionId, Event as PeerEvent, Role, StreamId, StreamTarget, Transmit};
use adit_policy::{AuthorizationId, ClientId};
use adit_protocol::flow::FlowRecord;
use adit_protocol::peer::{GoodbyeReason, PeerMessage};
use adit_protocol::{CandidateUpdate, GatewayToPortal};
use adit_wireguard::{PrivateKey, PublicKey};

use self::clients::Client;
use self::held::Announcement;
use crate::address::TunnelRanges;
use crate::clock::PortalClock;
use crate::deadlines::Deadlines;
use crate::drops::{DropCounters, DropReason};
use crate::flow_log::FlowLog;
use crate::interface::Interface;
use crate::link::{Link, peer_of};
use crate::seeds::Seeds;

pub use self::clients::ClientStatus;
pub use self::handover::Handover;

/// What a [`Gateway`] needs to know.
#[derive(Debug)]
pub struct GatewayConfig {
    /// The WireGuard key of this run.
    pub private_key: PrivateKey,
    /// Feeds every random choice; secret, and used once.
    pub seed: [u8; 32],
    /// The secret behind reset tokens; kept across restarts. `None` makes no tokens.
    pub reset_secret: Option<[u8; 32]>,
}

/// Names a question to the resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LookupId(u64);

/// Why a name could not be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ResolveFailure {
    /// The name does not exist, or has no address.
    #[error("no such name")]
    NotFound,
    /// The resolver did not answer.
    #[error("the resolver did not answer")]
    ResolverFailed,
}

/// A fact that the program around the machine acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayEvent {
    /// Configure the tunnel interface like this.
    InterfaceChanged(Interface),
    /// Look up all addresses of a name, and hand them in with [`Gateway::handle_resolved`].
    Resolve {
        /// Names the question.
        id: LookupId,
        /// The name, lower case, without a trailing dot.
        name: String,
    },
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A lease ends.
    Lease(AuthorizationId),
    /// What was held for a grant has waited long enough.
    Held(ClientId),
    /// The resolver had time enough.
    Resolve(LookupId),
}

impl Timer {
    const fn name(self) -> &'static str {
        match self {
            Self::Lease(_) => "end a lease",
            Self::Held(_) => "refuse what no grant came for",
            Self::Resolve(_) => "give up on the resolver",
        }
    }
}

/// The gateway's machine.
///
/// Call a `handle_*` method or a command, then drain [`Gateway::poll_transmit`], [`Gateway::poll_streams`],
/// [`Gateway::poll_update`], [`Gateway::poll_tun_write`], [`Gateway::poll_portal_message`] and [`Gateway::poll_event`], then ask
/// [`Gateway::poll_timeout`] for the next deadline. Time never runs backwards.
#[derive(Debug)]
pub struct Gateway {
    link: Link,
    clock: PortalClock,
    configuration: Option<(adit_protocol::Interface, TunnelRanges)>,
    /// The host's own addresses.
    addresses: Vec<IpAddr>,
    is_portal_online: bool,
    is_shut_down: bool,
    clients: BTreeMap<ClientId, Client>,
    by_connection: HashMap<ConnectionId, ClientId>,
    /// Whose lease it is.
    owners: BTreeMap<AuthorizationId, ClientId>,
    /// Who asked for which name.
    resolving: BTreeMap<LookupId, (ClientId, String)>,
    last_resolve: u64,
    timers: Deadlines<Timer>,
    flows: FlowLog,
    portal_messages: VecDeque<GatewayToPortal>,
    events: VecDeque<GatewayEvent>,
}

impl Gateway {
    /// A machine without addresses, leases or connections.
    ///
    /// `unix_now` is the time of day at `now`; only WireGuard's timestamps depend on it.
    pub fn new(now: Instant, unix_now: Duration, config: GatewayConfig) -> Self {
        let mut seeds = Seeds::new(config.seed);
        let node = adit_peering::Config {
            role: Role::Gateway,
            private_key: config.private_key,
            seed: seeds.next(),
            reset_secret: config.reset_secret,
        };
        Self {
            link: Link::new(now, unix_now, node),
            clock: PortalClock::new(now, u64::try_from(unix_now.as_millis()).unwrap_or(u64::MAX)),
            configuration: None,
            addresses: Vec::new(),
            is_portal_online: false,
            is_shut_down: false,
            clients: BTreeMap::new(),
            by_connection: HashMap::new(),
            owners: BTreeMap::new(),
            resolving: BTreeMap::new(),
            last_resolve: 0,
            timers: Deadlines::new(),
            flows: FlowLog::new(seeds.next()),
            portal_messages: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Our WireGuard public key, for the hello to the portal.
    pub fn public_key(&self) -> PublicKey {
        self.link.node().public_key()
    }

    /// Our candidates, for the hello to the portal.
    pub fn local_candidates(&self) -> Vec<adit_protocol::Candidate> {
        self.link.node().local_candidates()
    }

    /// Sets the whole list of local socket addresses, best first; a change is a roam.
    pub fn set_local_addresses(&mut self, now: Instant, addresses: &[SocketAddr]) {
        self.addresses = addresses.iter().map(|address| address.ip().to_canonical()).collect();
        self.link.node_mut().set_local_addresses(now, addresses);
        self.settle(now);
    }

    /// The host's way out changed while its addresses did not; paths are tried again.
    pub fn handle_route_change(&mut self, now: Instant) {
        self.link.node_mut().handle_route_change(now);
        self.settle(now);
    }

    /// The network says that datagrams to an address do not arrive. Anybody may have made that up, so it only
    /// starts probes.
    pub fn handle_unreachable(&mut self, now: Instant, remote: SocketAddr) {
        self.link.node_mut().handle_unreachable(now, remote);
        self.settle(now);
    }

    /// Takes a packet from the TUN device that has no flow: nothing behind us may start one.
    pub fn handle_tun_packet(&mut self, _now: Instant, packet: &mut [u8]) {
        let is_control = adit_protocol::peer::is_control(packet);
        let reason = if is_control { DropReason::ControlLookalike } else { DropReason::Unsolicited };
        self.link.drops.count(reason);
    }

    /// Takes a datagram that no worker understood.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        datagram: &mut [u8],
    ) {
        if let Some((connection, range)) = self.link.handle_datagram(now, local, from, datagram)
            && let Some(packet) = datagram.get_mut(range)
        {
            self.admit(now, connection, packet);
        }
        self.settle(now);
    }

    /// Takes a message of a stream to a relay that no worker understood.
    pub fn handle_stream_message(&mut self, now: Instant, from: StreamId, message: &mut [u8]) {
        if let Some((connection, range)) = self.link.handle_stream_message(now, from, message)
            && let Some(packet) = message.get_mut(range)
        {
            self.admit(now, connection, packet);
        }
        self.settle(now);
    }

    /// A stream to a relay can be written to.
    pub fn handle_stream_opened(&mut self, now: Instant, id: StreamId) {
        self.link.node_mut().handle_stream_opened(now, id);
        self.settle(now);
    }

    /// A stream to a relay could not be made, or is gone.
    pub fn handle_stream_closed(&mut self, now: Instant, id: StreamId) {
        self.link.node_mut().handle_stream_closed(now, id);
        self.settle(now);
    }

    /// Takes a decrypted packet that a worker had no flow for.
    pub fn handle_peer_packet(&mut self, now: Instant, peer: PeerId, packet: &mut [u8]) {
        match self.link.connection_of(peer) {
            Some(connection) if self.link.handle_control(now, connection, packet) => {}
            Some(connection) => self.admit(now, connection, packet),
            None => self.link.drops.count(DropReason::UnknownPeer),
        }
        self.settle(now);
    }

    /// Takes what a worker noticed.
    pub fn handle_worker_event(&mut self, now: Instant, event: &WorkerEvent) {
        if let WorkerEvent::FlowEnded { key, cause, .. } = event {
            self.flows.ended(self.clock.unix_ms_at(now), key, *cause);
            self.flow_ended(key, *cause);
        }
        self.link.note_worker_event(now, event);
        self.settle(now);
    }

    /// Tells the portal to choose us no more, says goodbye to every client, and does nothing from then on.
    pub fn shut_down(&mut self, now: Instant, reason: GoodbyeReason) {
        if self.is_shut_down {
            return;
        }
        self.is_shut_down = true;
        self.portal_messages.push_back(GatewayToPortal::Draining(Default::default()));
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        for id in clients {
            self.close_client(now, id, reason, None);
        }
        self.resolving.clear();
        self.timers.clear_all();
        // Behind the goodbyes: a relay that is told forgets us at once instead of in ten minutes.
        self.link.set_relays(now, Vec::new());
        self.flows.shut_down();
        self.settle(now);
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.link.node_mut().handle_timeout(now);
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Lease(id) => self.end_lease(now, id, GoodbyeReason::Expired),
                Timer::Held(client) => self.release_expired(now, client),
                Timer::Resolve(id) => self.resolver_answered(now, id, Err(ResolveFailure::ResolverFailed)),
            }
        }
        self.flows.handle_timeout(now, self.clock.unix_ms_at(now));
        self.settle(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let own = self.timers.next().map(|(at, timer)| (at, timer.name()));
        let flows = self.flows.next_due().map(|at| (at, "report open flows"));
        [own, flows, self.link.node().poll_timeout()].into_iter().flatten().min()
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.link.poll_transmit()
    }

    /// The streams to relays that are to be open, all of them, if they changed since the last call. To be asked after
    /// [`poll_transmit`](Self::poll_transmit) has nothing left.
    pub fn poll_streams(&mut self) -> Option<Vec<StreamTarget>> {
        self.link.node_mut().poll_streams()
    }

    /// The next IP packet for the TUN device.
    pub fn poll_tun_write(&mut self) -> Option<Vec<u8>> {
        self.link.poll_tun_write()
    }

    /// The next change of the workers' tables; they apply all, in this order.
    pub fn poll_update(&mut self) -> Option<Update> {
        self.link.poll_update()
    }

    /// The next message for the portal.
    pub fn poll_portal_message(&mut self) -> Option<GatewayToPortal> {
        self.portal_messages.pop_front()
    }

    /// The next report of a flow. Once the machine is shut down and no worker runs any more, also of every flow that was
    /// open until then.
    pub fn poll_flow(&mut self, now: Instant) -> Option<FlowRecord> {
        self.flows.poll(self.clock.unix_ms_at(now))
    }

    /// Flows that are not, or not completely, reported because there were too many.
    pub const fn flows_lost(&self) -> u64 {
        self.flows.lost()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<GatewayEvent> {
        self.events.pop_front()
    }

    /// Packets that the slow path dropped, by reason.
    pub const fn drops(&self) -> &DropCounters {
        &self.link.drops
    }

    /// Brings everything in line after an input: the node's events may cause others.
    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.link.poll_node(now) {
            self.handle_peer_event(now, event);
        }
        if self.link.take_wider() {
            self.publish_interface();
        }
    }

    fn handle_peer_event(&mut self, now: Instant, event: PeerEvent) {
        match event {
            PeerEvent::LocalCandidates { added, removed } => {
                if self.is_portal_online {
                    let update = CandidateUpdate { added, removed };
                    self.portal_messages.push_back(GatewayToPortal::Candidates(update));
                }
            }
            PeerEvent::RelaysNeeded => {
                if self.is_portal_online {
                    self.portal_messages.push_back(GatewayToPortal::RequestRelays(Default::default()));
                }
            }
            PeerEvent::Connected { id, path } | PeerEvent::PathChanged { id, path } => {
                if let Some(client) = self.client_at(id) {
                    client.path = Some(path);
                    self.flows.note_path(peer_of(id), path.kind);
                }
            }
            PeerEvent::Closed { id, reason } => self.closed(id, reason),
            PeerEvent::Control { id, message_id, message } => self.control(now, id, message_id, message),
        }
    }

    fn control(&mut self, now: Instant, connection: ConnectionId, message_id: u32, message: PeerMessage) {
        let PeerMessage::AssignedAddresses { resource, name, addresses } = message else {
            return self.link.drops.count(DropReason::InvalidControl);
        };
        let Some(client) = self.by_connection.get(&connection).copied() else { return };
        let name = name.to_ascii_lowercase();
        self.announce(now, client, Announcement { message_id, resource, name, proxies: addresses });
    }

    /// A flow is over by itself. What ended because of us was accounted for when it did.
    fn flow_ended(&mut self, key: &adit_dataplane::FlowKey, cause: EndCause) {
        let Origin::Peer(peer) = key.origin else { return };
        if !matches!(cause, EndCause::Idle | EndCause::Closed | EndCause::Evicted) {
            return;
        }
        if let Some(connection) = self.link.connection_of(peer)
            && let Some(client) = self.client_at(connection)
        {
            client.translations.end(&key.tuple());
        }
    }

    fn client_at(&mut self, connection: ConnectionId) -> Option<&mut Client> {
        self.clients.get_mut(self.by_connection.get(&connection)?)
    }
}
