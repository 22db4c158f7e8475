//! The control thread's hands: feeds a machine and carries out what it wants.
//!
//! The machine decides, the driver acts: datagrams to the sockets, packets to the TUN
//! device, updates to the worker, messages to the portal. Events that need more than that
//! go back to the caller.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use adit_control_client::{Disconnecting, Event as SessionEvent, FatalReason, Session};
use adit_dataplane::{PeerId, Update};
use adit_platform::tun::Tun;
use adit_protocol::Message;
use adit_protocol::peer::GoodbyeReason;
use adit_tunnel::{StreamId, StreamTarget};

use crate::delivery;
use crate::streams::{Keeper, News};
use crate::worker::{Content, FromWorker};
use crate::workers::{Ground, Workers};

/// The longest that stopping may wait for datagrams to leave.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// The longest that stopping may wait for the portal to take our last words.
const PORTAL_LIMIT: Duration = Duration::from_millis(500);

/// How often the sockets are asked whether everything has left.
const FLUSH_PAUSE: Duration = Duration::from_millis(2);

/// A state machine of `tunnel`, as the driver sees it.
pub(crate) trait Machine {
    /// What the portal says to it.
    type Incoming: Message + Disconnecting + Send + 'static;
    /// What it says to the portal.
    type Outgoing: Message + PartialEq + Send + Sync + 'static;
    /// What it wants beyond packets and messages.
    type Event;

    fn handle_portal(&mut self, now: Instant, message: Self::Incoming);
    fn handle_portal_connected(&mut self, now: Instant);
    fn handle_portal_lost(&mut self, now: Instant);
    fn handle_tun_packet(&mut self, now: Instant, packet: &mut [u8]);
    fn handle_datagram(&mut self, now: Instant, local: SocketAddr, from: SocketAddr, datagram: &mut [u8]);
    fn handle_stream_message(&mut self, now: Instant, from: StreamId, message: &mut [u8]);
    fn handle_stream_opened(&mut self, now: Instant, id: StreamId);
    fn handle_stream_closed(&mut self, now: Instant, id: StreamId);
    fn handle_peer_packet(&mut self, now: Instant, peer: PeerId, packet: &mut [u8]);
    fn handle_worker_event(&mut self, now: Instant, event: &adit_dataplane::Event);
    fn handle_timeout(&mut self, now: Instant);
    fn set_local_addresses(&mut self, now: Instant, addresses: &[SocketAddr]);
    fn handle_route_change(&mut self, now: Instant);
    fn handle_unreachable(&mut self, now: Instant, remote: SocketAddr);
    fn shut_down(&mut self, now: Instant, reason: GoodbyeReason);
    fn poll_timeout(&self) -> Option<(Instant, &'static str)>;
    fn poll_transmit(&mut self) -> Option<adit_tunnel::Transmit>;
    fn poll_streams(&mut self) -> Option<Vec<StreamTarget>>;
    fn poll_tun_write(&mut self) -> Option<Vec<u8>>;
    fn poll_update(&mut self) -> Option<Update>;
    fn poll_portal_message(&mut self) -> Option<Self::Outgoing>;
    fn poll_event(&mut self) -> Option<Self::Event>;
}

/// Implements [`Machine`] for a machine whose methods have these names and shapes already.
macro_rules! machine {
    ($machine:ty, $incoming:ty, $outgoing:ty, $event:ty) => {
        impl $crate::driver::Machine for $machine {
            type Incoming = $incoming;
            type Outgoing = $outgoing;
            type Event = $event;

            fn handle_portal(&mut self, now: std::time::Instant, message: $incoming) {
                <$machine>::handle_portal(self, now, message);
            }
            fn handle_portal_connected(&mut self, now: std::time::Instant) {
                <$machine>::handle_portal_connected(self, now);
            }
            fn handle_portal_lost(&mut self, now: std::time::Instant) {
                <$machine>::handle_portal_lost(self, now);
            }
            fn handle_tun_packet(&mut self, now: std::time::Instant, packet: &mut [u8]) {
                <$machine>::handle_tun_packet(self, now, packet);
            }
            fn handle_datagram(
                &mut self,
                now: std::time::Instant,
                local: std::net::SocketAddr,
                from: std::net::SocketAddr,
                datagram: &mut [u8],
            ) {
                <$machine>::handle_datagram(self, now, local, from, datagram);
            }
            fn handle_stream_message(
                &mut self,
                now: std::time::Instant,
                from: adit_tunnel::StreamId,
                message: &mut [u8],
            ) {
                <$machine>::handle_stream_message(self, now, from, message);
            }
            fn handle_stream_opened(&mut self, now: std::time::Instant, id: adit_tunnel::StreamId) {
                <$machine>::handle_stream_opened(self, now, id);
            }
            fn handle_stream_closed(&mut self, now: std::time::Instant, id: adit_tunnel::StreamId) {
                <$machine>::handle_stream_closed(self, now, id);
            }
            fn handle_peer_packet(
                &mut self,
                now: std::time::Instant,
                peer: adit_dataplane::PeerId,
                packet: &mut [u8],
            ) {
                <$machine>::handle_peer_packet(self, now, peer, packet);
            }
            fn handle_worker_event(&mut self, now: std::time::Instant, event: &adit_dataplane::Event) {
                <$machine>::handle_worker_event(self, now, event);
            }
            fn handle_timeout(&mut self, now: std::time::Instant) {
                <$machine>::handle_timeout(self, now);
            }
            fn set_local_addresses(&mut self, now: std::time::Instant, addresses: &[std::net::SocketAddr]) {
                <$machine>::set_local_addresses(self, now, addresses);
            }
            fn handle_route_change(&mut self, now: std::time::Instant) {
                <$machine>::handle_route_change(self, now);
            }
            fn handle_unreachable(&mut self, now: std::time::Instant, remote: std::net::SocketAddr) {
                <$machine>::handle_unreachable(self, now, remote);
            }
            fn shut_down(&mut self, now: std::time::Instant, reason: adit_protocol::peer::GoodbyeReason) {
                <$machine>::shut_down(self, now, reason);
            }
            fn poll_timeout(&self) -> Option<(std::time::Instant, &'static str)> {
                <$machine>::poll_timeout(self)
            }
            fn poll_transmit(&mut self) -> Option<adit_tunnel::Transmit> {
                <$machine>::poll_transmit(self)
            }
            fn poll_streams(&mut self) -> Option<Vec<adit_tunnel::StreamTarget>> {
                <$machine>::poll_streams(self)
            }
            fn poll_tun_write(&mut self) -> Option<Vec<u8>> {
                <$machine>::poll_tun_write(self)
            }
            fn poll_update(&mut self) -> Option<adit_dataplane::Update> {
                <$machine>::poll_update(self)
            }
            fn poll_portal_message(&mut self) -> Option<$outgoing> {
                <$machine>::poll_portal_message(self)
            }
            fn poll_event(&mut self) -> Option<$event> {
                <$machine>::poll_event(self)
            }
        }
    };
}

pub(crate) use machine;

/// What the portal session means for the program around the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PortalChange {
    Connected,
    Lost { reason: String },
    Dead { reason: FatalReason },
}

/// Who hears first that we stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// The portal, so that it names us to nobody who has just been told to go.
    Portal,
    /// The peers, who wait for our successor and ask nobody.
    Peers,
}

/// A machine with everything it acts through.
pub(crate) struct Driver<M: Machine> {
    pub(crate) machine: M,
    ground: Ground,
    workers: Workers,
    streams: Keeper,
    session: Session<M::Incoming, M::Outgoing>,
    /// What the machine was last told.
    addresses: Vec<SocketAddr>,
}

impl<M: Machine> Driver<M> {
    pub(crate) fn new(
        machine: M,
        ground: Ground,
        workers: Workers,
        streams: Keeper,
        session: Session<M::Incoming, M::Outgoing>,
    ) -> Self {
        Self { machine, ground, workers, streams, session, addresses: Vec::new() }
    }

    /// The device of the tunnel.
    pub(crate) fn tun(&self) -> &Tun {
        self.ground.tun()
    }

    /// The UDP port in use, of IPv4 if there are two.
    pub(crate) fn port(&self) -> Option<u16> {
        self.ground.sockets().all().next().map(|socket| socket.local_addr().port())
    }

    /// When the machine wants to be woken; far away when it does not.
    pub(crate) fn deadline(&self) -> tokio::time::Instant {
        const FAR: Duration = Duration::from_secs(3600);
        let deadline =
            self.machine.poll_timeout().map_or_else(|| Instant::now() + FAR, |(deadline, _)| deadline);
        tokio::time::Instant::from_std(deadline)
    }

    /// The next thing that happens in the session with the portal; `None` when it is over.
    pub(crate) async fn next_session_event(&mut self) -> Option<SessionEvent<M::Incoming>> {
        self.session.next_event().await
    }

    /// Feeds the machine what happened in the session.
    pub(crate) fn handle_session_event(&mut self, event: SessionEvent<M::Incoming>) -> Option<PortalChange> {
        let now = Instant::now();
        match event {
            SessionEvent::Connected => {
                self.machine.handle_portal_connected(now);
                Some(PortalChange::Connected)
            }
            SessionEvent::Message(message) => {
                self.machine.handle_portal(now, message);
                None
            }
            SessionEvent::Disconnected { reason, retry_in } => {
                tracing::info!(
                    reason,
                    retry_in_ms = retry_in.as_millis() as u64,
                    "not connected to the portal"
                );
                self.machine.handle_portal_lost(now);
                Some(PortalChange::Lost { reason })
            }
            SessionEvent::Fatal { reason } => {
                self.machine.handle_portal_lost(now);
                Some(PortalChange::Dead { reason })
            }
        }
    }

    /// Feeds the machine what a worker has for it.
    ///
    /// # Errors
    ///
    /// When the worker cannot go on.
    pub(crate) fn handle_worker(&mut self, message: FromWorker) -> anyhow::Result<()> {
        let now = Instant::now();
        let FromWorker { worker, content } = message;
        match content {
            Content::TunPacket(mut packet) => {
                self.workers.note_dealt_with(worker);
                self.machine.handle_tun_packet(now, &mut packet);
            }
            Content::Datagram { local, from, mut payload } => {
                self.machine.handle_datagram(now, local, from, &mut payload);
            }
            Content::StreamMessage { stream, mut message } => {
                self.machine.handle_stream_message(now, StreamId(stream.0), &mut message);
            }
            Content::PeerPacket { peer, mut packet } => {
                self.workers.note_dealt_with(worker);
                self.machine.handle_peer_packet(now, peer, &mut packet);
            }
            Content::Unreachable(remote) => self.machine.handle_unreachable(now, remote),
            Content::Event(event) => self.machine.handle_worker_event(now, &event),
            Content::Failed(reason) => anyhow::bail!("the packet path failed: {reason}"),
        }
        Ok(())
    }

    /// Feeds the machine what became of a stream.
    pub(crate) fn handle_stream_news(&mut self, news: News) {
        let now = Instant::now();
        match news {
            News::Opened(id) => self.machine.handle_stream_opened(now, StreamId(id.0)),
            News::Closed(id) => self.machine.handle_stream_closed(now, StreamId(id.0)),
        }
    }

    /// Lets the machine do what has become due.
    pub(crate) fn handle_timeout(&mut self) {
        self.machine.handle_timeout(Instant::now());
    }

    /// Tells the machine the addresses of the host, or that the way out from them is another.
    pub(crate) fn set_addresses(&mut self, addresses: &[IpAddr]) {
        let addresses = self.ground.sockets().with_ports(addresses);
        tracing::debug!(?addresses, "the host's addresses");
        self.session.network_changed();
        self.ground.retry_segmentation();
        let now = Instant::now();
        if addresses == self.addresses {
            self.machine.handle_route_change(now);
        } else {
            self.machine.set_local_addresses(now, &addresses);
            self.addresses = addresses;
        }
    }

    /// Carries out everything that the machine wants and returns what is left for the caller.
    ///
    /// Updates go first: a worker must know a session before its datagrams arrive. Last it hears that all packets
    /// have left, so that what it sends itself does not overtake them.
    pub(crate) fn drain(&mut self) -> Vec<M::Event> {
        let mut updated = false;
        while let Some(update) = self.machine.poll_update() {
            self.workers.update(&update);
            updated = true;
        }
        transmit(&mut self.machine, &self.ground);
        if let Some(wanted) = self.machine.poll_streams() {
            self.streams.want(&wanted);
        }
        while let Some(packet) = self.machine.poll_tun_write() {
            delivery::write(self.ground.tun(), &packet);
        }
        self.workers.flush(updated);
        while let Some(message) = self.machine.poll_portal_message() {
            self.session.send(message);
        }
        std::iter::from_fn(|| self.machine.poll_event()).collect()
    }

    /// Says goodbye to everybody and waits, within bounds, until it has left.
    ///
    /// The portal hears first, so that it names us to nobody who has just been told to go.
    pub(crate) async fn shut_down(mut self, reason: GoodbyeReason) -> M {
        self.machine.shut_down(Instant::now(), reason);
        self.finish(First::Portal).await
    }

    /// Says something to the portal that is not the machine's business.
    pub(crate) fn tell_portal(&self, message: M::Outgoing) {
        self.session.send(message);
    }

    /// Says what the machine still has to say and waits, within bounds, until it has left.
    ///
    /// The machine comes back when no worker runs any more.
    pub(crate) async fn finish(self, first: First) -> M {
        let Self { mut machine, ground, session, workers, .. } = self;
        while let Some(message) = machine.poll_portal_message() {
            session.send(message);
        }
        if first == First::Portal {
            session.close(PORTAL_LIMIT).await;
            // No packet may follow the goodbyes.
            drop(workers);
            transmit(&mut machine, &ground);
        } else {
            drop(workers);
            transmit(&mut machine, &ground);
            session.close(PORTAL_LIMIT).await;
        }
        let deadline = Instant::now() + FLUSH_LIMIT;
        while !ground.are_flushed() && Instant::now() < deadline {
            tokio::time::sleep(FLUSH_PAUSE).await;
        }
        machine
    }
}

fn transmit(machine: &mut impl Machine, ground: &Ground) {
    while let Some(transmit) = machine.poll_transmit() {
        let adit_tunnel::Transmit { source, destination, stream, payload } = transmit;
        match stream {
            None => ground.sockets().send(source.ip(), destination, &payload, None),
            Some(id) => ground.streams().send(adit_dataplane::StreamId(id.0), &payload),
        }
    }
}
