//! One visit to a TURN server as a machine: allocate, open a way to each peer, send numbered datagrams that the peers
//! send back, refresh, delete, and see that nothing passes any more.
//!
//! After each input drain [`Exchange::poll_transmit`]; when [`Exchange::is_done`], the report is complete.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_turn::client::{Client, Config, Event, Handled, Transport};
use adit_turn::stun::{Class, Message, Method};
use adit_turn::{Family, Transmit};

/// How long to wait for the last echoes.
const GRACE: Duration = Duration::from_secs(2);

/// How long a server may take to carry a deletion out: some let an allocation end at their next tick.
const SETTLING: Duration = Duration::from_millis(1_500);

/// How long nothing may pass after that.
const SILENCE: Duration = Duration::from_millis(300);

/// The longest that any step but sending may take.
const STEP_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of a payload that hold its number.
pub(crate) const NUMBER: usize = 8;

/// How datagrams travel between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// ChannelData over a bound channel.
    Channel,
    /// Send and Data indications under a permission.
    Indication,
}

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) server: SocketAddr,
    /// Between client and server.
    pub(crate) transport: Transport,
    pub(crate) username: String,
    pub(crate) password: String,
    /// Echo servers, at least one; datagrams go to them in turn.
    pub(crate) peers: Vec<SocketAddr>,
    pub(crate) framing: Framing,
    /// Datagrams to send in all.
    pub(crate) count: usize,
    /// Payload sizes in bytes, used in turn; each at least [`NUMBER`].
    pub(crate) sizes: Vec<usize>,
    pub(crate) interval: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// Why it did not come to its end.
    pub(crate) failure: Option<String>,
    pub(crate) mapped: Option<SocketAddr>,
    pub(crate) relayed: Vec<SocketAddr>,
    /// From the start to the allocation.
    pub(crate) allocated_after: Option<Duration>,
    /// From the allocation until every peer could be reached.
    pub(crate) opened_after: Option<Duration>,
    pub(crate) sent: usize,
    pub(crate) received: usize,
    pub(crate) duplicates: usize,
    /// Echoes whose content or sender is not that of the datagram sent.
    pub(crate) corrupt: usize,
    pub(crate) median_round_trip: Option<Duration>,
    /// Error responses by code.
    pub(crate) errors: Vec<u16>,
    pub(crate) refreshed: bool,
    pub(crate) deleted: bool,
    /// Datagrams that came although the allocation was deleted.
    pub(crate) after_deletion: usize,
    pub(crate) retransmissions: u64,
    pub(crate) wrong_integrity: u64,
    pub(crate) garbage: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Allocating,
    Opening,
    Sending,
    Collecting,
    Refreshing,
    Deleting,
    Settling,
    Listening,
    Done,
}

/// The visit.
pub(crate) struct Exchange {
    client: Client,
    plan: Plan,
    phase: Phase,
    /// When the phase ends or, while sending, the next datagram leaves.
    deadline: Instant,
    started: Instant,
    allocated: Instant,
    permissions: usize,
    refreshes: usize,
    sent: Vec<(Instant, Option<Instant>)>,
    /// What was sent last: sent again once the allocation is gone.
    last: Option<Transmit>,
    transmits: VecDeque<Transmit>,
    report: Report,
}

impl Exchange {
    pub(crate) fn new(now: Instant, plan: Plan, seed: [u8; 32]) -> Self {
        let serves = |family| Some(plan.server).filter(|server| Family::of(server.ip()) == family);
        let config = Config {
            transport: plan.transport,
            server_v4: serves(Family::V4),
            server_v6: serves(Family::V6),
            username: plan.username.clone(),
            password: plan.password.clone(),
            software: String::new(),
        };
        let mut client = Client::new(now, config, seed);
        client.handle_connected(now);
        Self {
            client,
            plan,
            phase: Phase::Allocating,
            deadline: now + STEP_LIMIT,
            started: now,
            allocated: now,
            permissions: 0,
            refreshes: 0,
            sent: Vec::new(),
            last: None,
            transmits: VecDeque::new(),
            report: Report::default(),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Whether the server has nothing more to say to us: it has confirmed that the allocation is gone.
    pub(crate) const fn may_be_left(&self) -> bool {
        self.report.deleted && !matches!(self.phase, Phase::Done)
    }

    /// The server has ended the connection; nothing can come back any more.
    pub(crate) fn note_left(&mut self) {
        self.finish(None);
    }

    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    pub(crate) fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        if from == self.plan.server {
            self.note_response(datagram);
        }
        if let Handled::Data { peer, payload } = self.client.handle_datagram(now, from, datagram) {
            self.note_echo(now, peer, &datagram[payload]);
        }
        self.advance(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
        self.advance(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why.
    pub(crate) fn poll_timeout(&self) -> (Instant, &'static str) {
        let own = (self.deadline, "end of a step");
        self.client.poll_timeout().map_or(own, |client| client.min(own))
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.client.poll_transmit().or_else(|| self.transmits.pop_front())
    }

    /// Goes from phase to phase as far as possible.
    fn advance(&mut self, now: Instant) {
        while let Some(event) = self.client.poll_event() {
            self.note_event(event);
        }
        loop {
            let before = self.phase;
            match self.phase {
                Phase::Allocating if self.can_reach_peers() => self.open_ways(now),
                Phase::Opening if self.ways_are_open() => self.begin_sending(now),
                Phase::Sending => self.send_due(now),
                Phase::Collecting if self.report.received == self.plan.count || now >= self.deadline => {
                    self.client.check(now);
                    self.enter(Phase::Refreshing, now + STEP_LIMIT);
                }
                Phase::Refreshing if self.refreshes >= 1 => self.delete(now),
                Phase::Deleting if self.refreshes >= 2 => {
                    self.report.deleted = true;
                    self.enter(Phase::Settling, now + SETTLING);
                }
                Phase::Settling if now >= self.deadline => self.listen(now),
                Phase::Listening if now >= self.deadline => self.finish(None),
                Phase::Allocating | Phase::Opening | Phase::Refreshing | Phase::Deleting
                    if now >= self.deadline =>
                {
                    self.finish(Some(format!("no end of {:?}", self.phase).to_lowercase()));
                }
                Phase::Allocating
                | Phase::Opening
                | Phase::Collecting
                | Phase::Refreshing
                | Phase::Deleting
                | Phase::Settling
                | Phase::Listening
                | Phase::Done => {}
            }
            if self.phase == before {
                return;
            }
        }
    }

    fn enter(&mut self, phase: Phase, deadline: Instant) {
        (self.phase, self.deadline) = (phase, deadline);
    }

    fn can_reach_peers(&self) -> bool {
        let reaches = |peer: &SocketAddr| self.client.server_for(Family::of(peer.ip())).is_some();
        self.plan.peers.iter().all(reaches)
    }

    fn open_ways(&mut self, now: Instant) {
        self.allocated = now;
        self.report.allocated_after = Some(now.saturating_duration_since(self.started));
        self.report.relayed = self.client.relayed_addresses().collect();
        for peer in &self.plan.peers {
            match self.plan.framing {
                Framing::Channel => self.client.bind_channel(now, *peer),
                Framing::Indication => self.client.permit(now, peer.ip()),
            }
        }
        self.enter(Phase::Opening, now + STEP_LIMIT);
    }

    fn ways_are_open(&self) -> bool {
        match self.plan.framing {
            Framing::Channel => self.plan.peers.iter().all(|peer| self.client.channel(*peer).is_some()),
            Framing::Indication => self.permissions >= self.plan.peers.len(),
        }
    }

    fn begin_sending(&mut self, now: Instant) {
        self.report.opened_after = Some(now.saturating_duration_since(self.allocated));
        self.enter(Phase::Sending, now);
    }

    fn send_due(&mut self, now: Instant) {
        while self.sent.len() < self.plan.count && self.deadline <= now {
            let number = self.sent.len();
            let transmit = self.client.send(now, self.peer_of(number), &self.payload(number));
            self.sent.push((now, None));
            self.report.sent += usize::from(transmit.is_some());
            self.last.clone_from(&transmit);
            self.transmits.extend(transmit);
            self.deadline += self.plan.interval;
        }
        if self.sent.len() == self.plan.count {
            self.enter(Phase::Collecting, now + GRACE);
        }
    }

    fn delete(&mut self, now: Instant) {
        self.report.refreshed = true;
        self.client.close(now);
        self.enter(Phase::Deleting, now + STEP_LIMIT);
    }

    /// Tries the way that is gone.
    fn listen(&mut self, now: Instant) {
        self.transmits.extend(self.last.take());
        self.enter(Phase::Listening, now + SILENCE);
    }

    fn finish(&mut self, failure: Option<String>) {
        let mut round_trips: Vec<Duration> =
            self.sent.iter().filter_map(|(sent, back)| Some(back.as_ref()?.duration_since(*sent))).collect();
        round_trips.sort_unstable();
        let counters = self.client.counters();
        self.report.median_round_trip = round_trips.get(round_trips.len() / 2).copied();
        self.report.retransmissions = counters.retransmissions;
        self.report.wrong_integrity = counters.wrong_integrity;
        self.report.garbage = counters.garbage;
        self.report.failure = failure;
        self.phase = Phase::Done;
    }

    fn note_event(&mut self, event: Event) {
        match event {
            Event::MappedAddress { address } => self.report.mapped = Some(address),
            Event::AllocationFailed { reason } | Event::AllocationLost { reason } => {
                self.finish(Some(format!("the allocation failed: {reason}")));
            }
            Event::Unresponsive => self.finish(Some("nothing is answered".to_owned())),
            Event::ChannelFailed { peer } => self.finish(Some(format!("no channel to {peer}"))),
            Event::AllocationCreated { .. } | Event::ChannelBound { .. } => {}
        }
    }

    /// Counts what the server answered, and what it should no longer send.
    fn note_response(&mut self, datagram: &[u8]) {
        let message = Message::parse(datagram).ok();
        match message.as_ref().map(|message| (message.class(), message.method())) {
            Some((Class::Success, Method::CREATE_PERMISSION)) => self.permissions += 1,
            Some((Class::Success, Method::REFRESH)) => self.refreshes += 1,
            Some((Class::Error, _)) => {
                let code = message.and_then(|message| message.error_code());
                self.report.errors.extend(code.map(|code| code.0));
            }
            Some((Class::Success | Class::Request, _)) => {}
            None | Some((Class::Indication, _)) => {
                self.report.after_deletion += usize::from(self.phase == Phase::Listening);
            }
        }
    }

    fn note_echo(&mut self, now: Instant, peer: SocketAddr, payload: &[u8]) {
        let number = payload.first_chunk::<NUMBER>().map(|bytes| u64::from_be_bytes(*bytes));
        let number = number.and_then(|number| usize::try_from(number).ok());
        let Some(number) = number.filter(|number| *number < self.sent.len()) else {
            self.report.corrupt += 1;
            return;
        };
        let is_whole = payload == self.payload(number) && peer == self.peer_of(number);
        let back = &mut self.sent[number].1;
        match (is_whole, back.is_some()) {
            (false, _) => self.report.corrupt += 1,
            (true, true) => self.report.duplicates += 1,
            (true, false) => {
                *back = Some(now);
                self.report.received += 1;
            }
        }
    }

    fn peer_of(&self, number: usize) -> SocketAddr {
        self.plan.peers[number % self.plan.peers.len()]
    }

    /// The number, and bytes that differ from one datagram to the next.
    fn payload(&self, number: usize) -> Vec<u8> {
        let size = self.plan.sizes[number % self.plan.sizes.len()].max(NUMBER);
        let mut payload = (number as u64).to_be_bytes().to_vec();
        payload.extend((NUMBER..size).map(|at| (number.wrapping_mul(31) ^ at) as u8));
        payload
    }
}

#[cfg(test)]
mod tests {
    use adit_turn::credentials;
    use adit_turn::server::{self, Command, HEADROOM, Server, Socket, TAILROOM};

    use super::*;

    const SERVER: &str = "192.0.2.10:3478";
    const CLIENT: &str = "198.51.100.1:5000";
    const PEER: &str = "203.0.113.1:7";
    const SECRET: &[u8] = b"a secret";

    fn plan(framing: Framing) -> Plan {
        let username = credentials::username(1_800_003_600, "test");
        Plan {
            server: SERVER.parse().unwrap(),
            transport: Transport::Udp,
            password: credentials::password(SECRET, &username),
            username,
            peers: vec![PEER.parse().unwrap()],
            framing,
            count: 20,
            sizes: vec![8, 9, 100],
            interval: Duration::from_millis(5),
        }
    }

    fn server(now: Instant) -> Server {
        let config = server::Config {
            public_v4: Some("192.0.2.10".parse().unwrap()),
            public_v6: None,
            own_addresses: Vec::new(),
            listener_port: 3478,
            ports: 50_000..=50_099,
            realm: "adit".to_owned(),
            secret: SECRET.to_vec(),
            previous_secret: None,
            allowed_peers: vec!["203.0.113.0/24".parse().unwrap()],
            announce_routes: false,
            dont_fragment: false,
            limits: server::Limits::default(),
        };
        Server::new(now, Duration::from_secs(1_800_000_000), config, [1; 32])
    }

    /// Takes a datagram to the server and everything that follows from it back; the peer echoes what `echo` lets by.
    fn deliver(now: Instant, exchange: &mut Exchange, server: &mut Server, datagram: &[u8], echo: bool) {
        let (address, from) = (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
        let client = match exchange.plan.transport {
            Transport::Udp => server::Client::udp(address),
            Transport::Stream => server::Client::stream(server::StreamId(1), address),
        };
        if let Some(forward) = server.handle_client(now, client, datagram) {
            let Socket::Relay(port) = forward.source else { panic!("{forward:?}") };
            let payload = &datagram[forward.range];
            let mut buffer = vec![0; HEADROOM + payload.len() + TAILROOM];
            buffer[HEADROOM..HEADROOM + payload.len()].copy_from_slice(payload);
            let range = HEADROOM..HEADROOM + payload.len();
            let back =
                server.handle_peer(now, port, forward.destination, &mut buffer, range).filter(|_| echo);
            if let Some(back) = back {
                exchange.handle_datagram(now, from, &buffer[back.range]);
            }
        }
        while let Some(command) = server.poll_command() {
            match command {
                Command::Send { payload, .. } => exchange.handle_datagram(now, from, &payload),
                Command::BindPort { port } => server.handle_port_bound(now, port, true),
                Command::ReleasePort { .. } | Command::AddRoute { .. } | Command::RemoveRoute { .. } => {}
            }
        }
    }

    /// A whole visit in virtual time.
    fn visit(plan: Plan, echo: bool) -> Report {
        let mut now = Instant::now();
        let mut server = server(now);
        let mut exchange = Exchange::new(now, plan, [2; 32]);
        while !exchange.is_done() {
            while let Some(transmit) = exchange.poll_transmit() {
                deliver(now, &mut exchange, &mut server, &transmit.payload, echo);
            }
            now = now.max(exchange.poll_timeout().0);
            exchange.handle_timeout(now);
        }
        exchange.report().clone()
    }

    #[test]
    fn a_visit_to_our_own_server_loses_nothing() {
        let transports = [Transport::Udp, Transport::Stream];
        let framings = [Framing::Channel, Framing::Indication];
        for (framing, transport) in framings.into_iter().flat_map(|one| transports.map(|other| (one, other)))
        {
            let report = visit(Plan { transport, ..plan(framing) }, true);
            assert_eq!(report.failure, None, "{report:?}");
            assert_eq!((report.sent, report.received, report.corrupt, report.duplicates), (20, 20, 0, 0));
            assert_eq!((report.refreshed, report.deleted, report.after_deletion), (true, true, 0));
            assert_eq!(report.errors, [401]);
            assert_eq!(report.relayed.len(), 1);
        }
    }

    #[test]
    fn lost_echoes_are_missed_and_the_visit_goes_on() {
        let report = visit(plan(Framing::Channel), false);
        assert_eq!((report.sent, report.received, report.deleted), (20, 0, true), "{report:?}");
    }

    #[test]
    fn wrong_credentials_end_the_visit_with_the_reason() {
        let report = visit(Plan { password: "wrong".to_owned(), ..plan(Framing::Channel) }, true);
        assert!(report.failure.as_ref().is_some_and(|failure| failure.contains("401")), "{report:?}");
        assert_eq!((report.sent, report.deleted), (0, false));
    }
}
