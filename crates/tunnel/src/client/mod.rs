//! The client's machine: from a packet of an application to a flow through a gateway.
//!
//! # The way of a packet
//!
//! Workers hand over what has no flow. The packet is classified once: a question to the
//! resolver, a proxy address of a name, an address of a resource, or nothing of ours. With
//! an authorization and a connection it gets a flow and leaves; else it waits in its
//! resource's queue, and whatever changes next (an answer of the portal, a path, an
//! answer about a name) takes the queue through the same routing again.
//!
//! # Deliberately absent
//!
//! Closing what is not used at once: a gateway through which nothing is granted any more says goodbye
//! by itself; only if that does not come, the client does. Decisions about access: the portal's answer is kept until it says otherwise or the lease
//! ends, and the gateway enforces. Reconnecting by itself: a connection that is gone comes
//! back when the next packet asks for it.

mod access;
mod buffer;
mod connection;
mod domains;
mod forward;
mod gateways;
mod hold;
mod names;
mod portal;
mod recent_flows;
mod request;
mod resources;
mod status;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_dataplane::{PeerId, Update};
use adit_peering::{Event as PeerEvent, Role, StreamId, StreamTarget, Transmit};
use adit_policy::{AuthorizationId, GatewayId, ResourceId};
use adit_protocol::flow::FlowRecord;
use adit_protocol::peer::GoodbyeReason;
use adit_protocol::{CandidateUpdate, ClientToPortal};
use adit_wireguard::{PrivateKey, PublicKey};

use self::access::Accesses;
use self::domains::{DomainKey, Domains};
use self::gateways::Gateways;
use self::names::Names;
use self::recent_flows::RecentFlows;
use self::resources::Resources;
use crate::answers::Answers;
use crate::clock::PortalClock;
use crate::deadlines::Deadlines;
use crate::drops::{DropCounters, DropReason};
use crate::flow_log::FlowLog;
use crate::interface::Interface;
use crate::link::Link;

pub use self::names::{DnsFailure, DnsQueryId, DnsTransport};
pub use self::status::{ConnectionStatus, PathStatus, Ping, PingError, ResourceState, ResourceStatus};

/// What a [`Client`] needs to know.
#[derive(Debug)]
pub struct ClientConfig {
    /// The WireGuard key of this run.
    pub private_key: PrivateKey,
    /// Feeds every random choice; secret, and used once.
    pub seed: [u8; 32],
    /// Which of several tunnels of a host this is, 0 to 4; each gives names other proxy addresses.
    pub profile: u8,
}

/// A fact that the program around the machine acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// Configure the tunnel interface like this.
    InterfaceChanged(Interface),
    /// The list of resources changed.
    ResourcesChanged,
    /// A connection came, changed its path, or went.
    ConnectionChanged {
        /// The gateway at the other end.
        gateway: GatewayId,
        /// How the connection stands now; `None` when it is gone.
        status: Option<ConnectionStatus>,
    },
    /// Ask an upstream resolver, and hand in what it says with [`Client::handle_dns_response`].
    DnsQuery {
        /// Names the query.
        id: DnsQueryId,
        /// Whom to ask.
        upstream: SocketAddr,
        /// By which transport.
        transport: DnsTransport,
        /// The query.
        message: Vec<u8>,
    },
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Ask the portal again.
    Request(ResourceId),
    /// The oldest waiting packet's time is over.
    Queue(ResourceId),
    /// A lease ends.
    Lease(AuthorizationId),
    /// A lease that is in use is to be renewed.
    Renewal(AuthorizationId),
    /// Announce a name again.
    Domain(DomainKey),
    /// A gateway that restarts should be back.
    Hold(GatewayId),
    /// Nothing is granted through a gateway any more, and its goodbye should have come.
    Unused(GatewayId),
}

impl Timer {
    const fn name(self) -> &'static str {
        match self {
            Self::Request(_) => "repeat an authorization request",
            Self::Queue(_) => "drop packets that waited too long",
            Self::Lease(_) => "end an authorization",
            Self::Renewal(_) => "renew an authorization",
            Self::Domain(_) => "announce a name again",
            Self::Hold(_) => "give up a gateway that restarts",
            Self::Unused(_) => "leave a gateway of no use",
        }
    }
}

/// The client's machine.
///
/// Call a `handle_*` method or a command, then drain [`Client::poll_transmit`], [`Client::poll_streams`],
/// [`Client::poll_update`], [`Client::poll_tun_write`], [`Client::poll_portal_message`] and [`Client::poll_event`], then ask
/// [`Client::poll_timeout`] for the next deadline. Time never runs backwards.
#[derive(Debug)]
pub struct Client {
    link: Link,
    answers: Answers,
    clock: PortalClock,
    configuration: Option<adit_protocol::Interface>,
    profile: u8,
    published: Option<Interface>,
    /// Whether the portal would hear us: set by its init, cleared when the session is lost.
    is_portal_online: bool,
    is_shut_down: bool,
    resources: Resources,
    accesses: Accesses,
    gateways: Gateways,
    domains: Domains,
    names: Names,
    recent_flows: RecentFlows,
    flows: FlowLog,
    next_request: u64,
    timers: Deadlines<Timer>,
    portal_messages: VecDeque<ClientToPortal>,
    events: VecDeque<ClientEvent>,
}

impl Client {
    /// A machine without addresses, resources or connections.
    ///
    /// `unix_now` is the time of day at `now`; only WireGuard's timestamps depend on it.
    pub fn new(now: Instant, unix_now: Duration, config: ClientConfig) -> Self {
        let mut seeds = crate::seeds::Seeds::new(config.seed);
        let node = adit_peering::Config {
            role: Role::Client,
            private_key: config.private_key,
            seed: seeds.next(),
            reset_secret: None,
        };
        Self {
            link: Link::new(now, unix_now, node),
            answers: Answers::new(now),
            clock: PortalClock::new(now, u64::try_from(unix_now.as_millis()).unwrap_or(u64::MAX)),
            configuration: None,
            published: None,
            is_portal_online: false,
            is_shut_down: false,
            resources: Resources::new(),
            accesses: Accesses::default(),
            gateways: Gateways::default(),
            domains: Domains::default(),
            profile: config.profile,
            names: Names::new(seeds.next()),
            recent_flows: RecentFlows::default(),
            flows: FlowLog::new(seeds.next()),
            next_request: 1,
            timers: Deadlines::new(),
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

    /// Takes a packet from the TUN device that has no flow.
    pub fn handle_tun_packet(&mut self, now: Instant, packet: &mut [u8]) {
        if self.is_shut_down {
            return self.link.drops.count(DropReason::ShutDown);
        }
        self.route_tun_packet(now, packet);
        self.settle(now);
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
            && let Some(packet) = datagram.get(range)
        {
            self.take_early_answer(now, connection, packet);
        }
        self.settle(now);
    }

    /// Takes a message of a stream to a relay that no worker understood.
    pub fn handle_stream_message(&mut self, now: Instant, from: StreamId, message: &mut [u8]) {
        if let Some((connection, range)) = self.link.handle_stream_message(now, from, message)
            && let Some(packet) = message.get(range)
        {
            self.take_early_answer(now, connection, packet);
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
            Some(connection) => self.take_early_answer(now, connection, packet),
            None => self.link.drops.count(DropReason::UnknownPeer),
        }
        self.settle(now);
    }

    /// Takes what a worker noticed.
    pub fn handle_worker_event(&mut self, now: Instant, event: &adit_dataplane::Event) {
        if let adit_dataplane::Event::FlowEnded { key, cause, .. } = event {
            self.flows.ended(self.clock.unix_ms_at(now), key, *cause);
        }
        self.link.note_worker_event(now, event);
        self.settle(now);
    }

    /// Says goodbye to every gateway and does nothing from then on.
    pub fn shut_down(&mut self, now: Instant, reason: GoodbyeReason) {
        if self.is_shut_down {
            return;
        }
        // First, so that nothing that waits asks for another connection.
        self.accesses = Accesses::default();
        for id in self.gateways.ids() {
            self.leave_gateway(now, id, Some(reason));
        }
        if reason == GoodbyeReason::SignedOut {
            self.portal_messages.push_back(ClientToPortal::SignOut(Default::default()));
        }
        self.is_shut_down = true;
        self.timers.clear_all();
        // Behind the goodbyes: a relay that is told forgets us at once instead of in ten minutes.
        self.link.set_relays(now, Vec::new());
        self.flows.shut_down();
        self.settle(now);
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.link.node_mut().handle_timeout(now);
        self.names.handle_timeout(now);
        self.flows.handle_timeout(now, self.clock.unix_ms_at(now));
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Request(resource) => self.repeat_request(now, resource),
                Timer::Queue(resource) => self.expire_waiting(now, resource),
                Timer::Lease(id) => self.end_authorization(now, id, "expired"),
                Timer::Renewal(id) => self.renew(now, id),
                Timer::Domain(key) => self.repeat_announcement(now, key),
                Timer::Hold(gateway) => self.end_hold(now, gateway),
                Timer::Unused(gateway) => self.leave_unused(now, gateway),
            }
        }
        self.settle(now);
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let own = self.timers.next().map(|(at, timer)| (at, timer.name()));
        let flows = self.flows.next_due().map(|at| (at, "report open flows"));
        [own, flows, self.link.node().poll_timeout(), self.names.poll_timeout()].into_iter().flatten().min()
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
    pub fn poll_portal_message(&mut self) -> Option<ClientToPortal> {
        self.portal_messages.pop_front()
    }

    /// The next report of a flow. Once the machine is shut down and no worker runs any more, also of every flow that was
    /// open until then.
    pub fn poll_flow(&mut self, now: Instant) -> Option<FlowRecord> {
        self.flows.poll(self.clock.unix_ms_at(now))
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Packets that the slow path dropped, by reason.
    pub const fn drops(&self) -> &DropCounters {
        &self.link.drops
    }

    /// Brings everything in line after an input: the node's events may cause others.
    fn settle(&mut self, now: Instant) {
        self.collect_names();
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
                    self.portal_messages.push_back(ClientToPortal::Candidates(update));
                }
            }
            PeerEvent::RelaysNeeded => {
                if self.is_portal_online {
                    self.portal_messages.push_back(ClientToPortal::RequestRelays(Default::default()));
                }
            }
            PeerEvent::Connected { id, path } => self.connected(now, id, path),
            PeerEvent::PathChanged { id, path } => self.path_changed(id, path),
            PeerEvent::Closed { id, reason } => self.closed(now, id, reason),
            PeerEvent::Control { id, message_id, message } => self.control(now, id, message_id, message),
        }
    }
}
