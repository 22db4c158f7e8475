//! A WireGuard device with one peer, as a machine: where the peer is, what waits for a session, what to tell.
//!
//! Inputs are packets from the TUN device, datagrams, time and the wish for a new handshake; after each of them
//! drain [`Machine::poll_transmit`], [`Machine::poll_tun_write`] and [`Machine::poll_event`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use adit_packet::PacketView;
use adit_wireguard::{
    AddPeerError, Counters, Device, Event as DeviceEvent, ExpiryReason, HEADER, PeerId, PresharedKey,
    PrivateKey, PublicKey, Received, SealError, Session, TAG,
};

/// Room in front of a packet that is to be sealed.
pub(crate) const HEADROOM: usize = HEADER;

/// Room behind it, for padding and tag.
pub(crate) const TAILROOM: usize = adit_wireguard::PADDING - 1 + TAG;

/// Packets kept while there is no session; the oldest goes first.
const MOST_WAITING: usize = 64;

/// Type of a cookie reply, which does not tell where the peer is.
const COOKIE_REPLY: u8 = 3;

/// What the machine needs to know.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) private_key: PrivateKey,
    pub(crate) peer: PublicKey,
    pub(crate) preshared_key: PresharedKey,
    /// Where the peer is; without it the peer must come first.
    pub(crate) endpoint: Option<SocketAddr>,
    /// Largest packet; padding does not go beyond it, so that full packets fit the path.
    pub(crate) mtu: usize,
    /// Something is sent at least this often, also to make the first session.
    pub(crate) keepalive: Option<Duration>,
    pub(crate) seed: [u8; 32],
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// There is a new session to send with.
    Session {
        /// Whether we began the handshake.
        initiator: bool,
        /// From our first initiation to the session; `None` when the peer began.
        handshake: Option<Duration>,
    },
    /// The peer is somewhere else now.
    Roamed { endpoint: SocketAddr },
    /// The peer does not answer any more.
    Expired { reason: ExpiryReason },
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Packets sealed.
    pub(crate) sent: u64,
    /// Packets opened and given to the TUN device.
    pub(crate) received: u64,
    /// Packets dropped because too many waited for a session, or there was nowhere to send them.
    pub(crate) undeliverable: u64,
    /// Opened packets that were no IP packets.
    pub(crate) malformed: u64,
}

/// One peer and the device it belongs to.
pub(crate) struct Machine {
    device: Device,
    peer: PeerId,
    endpoint: Option<SocketAddr>,
    mtu: usize,
    keepalive: Option<Duration>,
    started: Instant,
    handshake_began: Option<Instant>,
    waiting: VecDeque<Vec<u8>>,
    transmits: VecDeque<(SocketAddr, Vec<u8>)>,
    events: VecDeque<Event>,
    traffic: Traffic,
}

impl Machine {
    /// `unix_now` is the time of day at `now`.
    pub(crate) fn new(now: Instant, unix_now: Duration, config: Config) -> Result<Self, AddPeerError> {
        let mut device = Device::new(now, unix_now, config.private_key, config.seed);
        let peer = device.add_peer(now, config.peer, config.preshared_key)?;
        Ok(Self {
            device,
            peer,
            endpoint: config.endpoint,
            mtu: config.mtu,
            keepalive: config.keepalive.filter(|interval| !interval.is_zero()),
            started: now,
            handshake_began: None,
            waiting: VecDeque::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            traffic: Traffic::default(),
        })
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        self.device.public_key()
    }

    pub(crate) fn counters(&self) -> Counters {
        self.device.counters()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Seals the packet at `buffer[HEADROOM..HEADROOM + length]` in place, with `TAILROOM` behind it; the datagram to
    /// send and where to. Without a session the packet waits for one.
    pub(crate) fn handle_packet(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        length: usize,
    ) -> Option<(SocketAddr, usize)> {
        let Some(endpoint) = self.endpoint else {
            self.traffic.undeliverable += 1;
            return None;
        };
        let room = (length + TAILROOM - TAG).min(self.mtu).max(length);
        match self.device.seal(now, self.peer, &mut buffer[..HEADROOM + room + TAG], length) {
            Ok(sealed) => {
                self.traffic.sent += 1;
                Some((endpoint, sealed))
            }
            Err(SealError::NoSession) => {
                self.wait(buffer[HEADROOM..HEADROOM + length].to_vec());
                self.begin_handshake(now);
                None
            }
            Err(_) => {
                self.traffic.undeliverable += 1;
                None
            }
        }
    }

    /// Takes a datagram from the network; where in it a packet for the TUN device lies, if it brought one.
    pub(crate) fn handle_datagram(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &mut [u8],
    ) -> Option<Range<usize>> {
        // What is not authentic is counted by the device.
        let received = self.device.handle_datagram(now, source, datagram).ok()?;
        let packet = match received {
            Received::Handshake { peer, reply } => {
                if peer.is_some() && datagram.first() != Some(&COOKIE_REPLY) {
                    self.note_source(source);
                }
                self.transmits.extend(reply.map(|reply| (source, reply)));
                None
            }
            Received::Data { session, plaintext, .. } => {
                if is_newest(&session, datagram) {
                    self.note_source(source);
                }
                self.packet_within(datagram, plaintext)
            }
        };
        self.digest(now);
        packet
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.device.handle_timeout(now);
        if self.keepalive_due().is_some_and(|due| due <= now) {
            let mut datagram = vec![0; adit_wireguard::OVERHEAD];
            match (self.device.seal(now, self.peer, &mut datagram, 0), self.endpoint) {
                (Ok(_), Some(endpoint)) => self.transmits.push_back((endpoint, datagram)),
                _ => self.begin_handshake(now),
            }
        }
        self.digest(now);
    }

    /// Begins a new handshake although a session may be there.
    pub(crate) fn rekey(&mut self, now: Instant) {
        self.handshake_began = Some(now);
        self.device.initiate(now, self.peer);
        self.digest(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why.
    pub(crate) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let keepalive = self.keepalive_due().map(|due| (due, "persistent keepalive"));
        self.device.poll_timeout().into_iter().chain(keepalive).min()
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.transmits.pop_front()
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Nothing is due while a handshake is under way or the peer's place is unknown.
    fn keepalive_due(&self) -> Option<Instant> {
        let interval = self.keepalive.filter(|_| self.endpoint.is_some())?;
        if self.device.is_handshaking(self.peer) {
            return None;
        }
        let last = self.device.activity(self.peer).and_then(adit_wireguard::Activity::last_sent);
        Some(last.map_or(self.started, |last| last + interval))
    }

    fn begin_handshake(&mut self, now: Instant) {
        if self.endpoint.is_some() && !self.device.is_handshaking(self.peer) {
            self.rekey(now);
        }
    }

    fn wait(&mut self, packet: Vec<u8>) {
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
            self.traffic.undeliverable += 1;
        }
        self.waiting.push_back(packet);
    }

    /// The peer is where its newest authentic datagram came from.
    fn note_source(&mut self, source: SocketAddr) {
        if self.endpoint.replace(source).is_some_and(|before| before != source) {
            self.events.push_back(Event::Roamed { endpoint: source });
        }
    }

    /// Cuts the padding off; only the packet's own header says where it begins.
    fn packet_within(&mut self, datagram: &[u8], plaintext: Range<usize>) -> Option<Range<usize>> {
        if plaintext.is_empty() {
            return None;
        }
        let start = plaintext.start;
        let Ok(view) = PacketView::parse(&datagram[plaintext]) else {
            self.traffic.malformed += 1;
            return None;
        };
        self.traffic.received += 1;
        Some(start..start + view.total_length())
    }

    /// Takes what the device has to say.
    fn digest(&mut self, now: Instant) {
        while let Some(event) = self.device.poll_event() {
            match event {
                DeviceEvent::SendSessionChanged { session, .. } => self.use_session(now, &session),
                DeviceEvent::PeerExpired { reason, .. } => self.events.push_back(Event::Expired { reason }),
                DeviceEvent::SessionEstablished { .. } | DeviceEvent::SessionRemoved { .. } => {}
            }
        }
        while let Some(transmit) = self.device.poll_transmit() {
            self.transmits.extend(self.endpoint.map(|endpoint| (endpoint, transmit.datagram)));
        }
    }

    fn use_session(&mut self, now: Instant, session: &Session) {
        let initiator = session.is_initiator();
        let began = self.handshake_began.take().filter(|_| initiator);
        let handshake = began.map(|began| now.saturating_duration_since(began));
        self.events.push_back(Event::Session { initiator, handshake });
        for packet in std::mem::take(&mut self.waiting) {
            let mut datagram = vec![0; HEADROOM + packet.len() + TAILROOM];
            datagram[HEADROOM..HEADROOM + packet.len()].copy_from_slice(&packet);
            if let Some((endpoint, sealed)) = self.handle_packet(now, &mut datagram, packet.len()) {
                datagram.truncate(sealed);
                self.transmits.push_back((endpoint, datagram));
            }
        }
    }
}

/// Whether an opened datagram is newer than all before; an old one that was overtaken tells nothing about the present.
fn is_newest(session: &Session, datagram: &[u8]) -> bool {
    let counter = datagram.get(8..HEADER).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    counter.is_some_and(|counter| session.window().newest() == counter + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "192.0.2.1:51820";
    const THEIRS: &str = "192.0.2.2:51820";

    /// An IPv4 packet with an unknown protocol and nothing else in it.
    const PACKET: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];

    fn machine(now: Instant, seed: u8, peer: u8, endpoint: Option<&str>) -> Machine {
        let config = Config {
            private_key: PrivateKey::from_bytes([seed; 32]),
            peer: PrivateKey::from_bytes([peer; 32]).public_key(),
            preshared_key: PresharedKey([7; 32]),
            endpoint: endpoint.map(|text| text.parse().unwrap()),
            mtu: 1420,
            keepalive: None,
            seed: [seed; 32],
        };
        Machine::new(now, Duration::from_secs(1_800_000_000), config).unwrap()
    }

    fn send(now: Instant, machine: &mut Machine) -> Option<(SocketAddr, Vec<u8>)> {
        let mut buffer = vec![0; HEADROOM + PACKET.len() + TAILROOM];
        buffer[HEADROOM..HEADROOM + PACKET.len()].copy_from_slice(&PACKET);
        let (endpoint, length) = machine.handle_packet(now, &mut buffer, PACKET.len())?;
        buffer.truncate(length);
        Some((endpoint, buffer))
    }

    /// Moves datagrams until none is left; the packets that arrived at each side.
    fn settle(now: Instant, a: (&mut Machine, &str), b: (&mut Machine, &str)) -> (usize, usize) {
        let (mut at_a, mut at_b) = (0, 0);
        let (from_a, from_b): (SocketAddr, SocketAddr) = (a.1.parse().unwrap(), b.1.parse().unwrap());
        loop {
            if let Some((_, mut datagram)) = a.0.poll_transmit() {
                at_b += usize::from(b.0.handle_datagram(now, from_a, &mut datagram).is_some());
            } else if let Some((_, mut datagram)) = b.0.poll_transmit() {
                at_a += usize::from(a.0.handle_datagram(now, from_b, &mut datagram).is_some());
            } else {
                return (at_a, at_b);
            }
        }
    }

    #[test]
    fn the_first_packet_waits_for_the_session_and_arrives_without_padding() {
        let now = Instant::now();
        let (mut a, mut b) = (machine(now, 1, 2, Some(THEIRS)), machine(now, 2, 1, None));
        assert!(send(now, &mut b).is_none(), "nowhere to send to");
        assert!(send(now, &mut a).is_none(), "no session yet");
        assert_eq!(settle(now, (&mut a, OURS), (&mut b, THEIRS)), (0, 1));
        assert_eq!(a.poll_event(), Some(Event::Session { initiator: true, handshake: Some(Duration::ZERO) }));
        assert_eq!(b.poll_event(), Some(Event::Session { initiator: false, handshake: None }));
        let (to, mut datagram) = send(now, &mut b).unwrap();
        assert_eq!(to.to_string(), OURS, "learned from the handshake");
        let range = a.handle_datagram(now, THEIRS.parse().unwrap(), &mut datagram).unwrap();
        assert_eq!(datagram[range], PACKET);
        assert_eq!((a.traffic().received, b.traffic().undeliverable), (1, 1));
    }

    #[test]
    fn a_peer_roams_with_its_newest_datagram_and_not_with_an_overtaken_one() {
        let now = Instant::now();
        let (mut a, mut b) = (machine(now, 1, 2, Some(THEIRS)), machine(now, 2, 1, None));
        a.rekey(now);
        settle(now, (&mut a, OURS), (&mut b, THEIRS));
        while b.poll_event().is_some() {}
        let (_, mut old) = send(now, &mut a).unwrap();
        let (_, mut new) = send(now, &mut a).unwrap();
        let elsewhere = "198.51.100.1:7".parse().unwrap();
        assert!(b.handle_datagram(now, elsewhere, &mut new).is_some());
        assert_eq!(b.poll_event(), Some(Event::Roamed { endpoint: elsewhere }));
        assert!(b.handle_datagram(now, OURS.parse().unwrap(), &mut old).is_some());
        assert_eq!(b.poll_event(), None);
        assert_eq!(send(now, &mut b).unwrap().0, elsewhere);
    }

    #[test]
    fn padding_does_not_make_full_packets_larger() {
        let now = Instant::now();
        let (mut a, mut b) = (machine(now, 1, 2, Some(THEIRS)), machine(now, 2, 1, None));
        a.rekey(now);
        settle(now, (&mut a, OURS), (&mut b, THEIRS));
        for (length, padded) in [(1, 16), (1400, 1408), (1416, 1416), (1420, 1420), (1500, 1500)] {
            let mut buffer = vec![0; HEADROOM + length + TAILROOM];
            let (_, sealed) = a.handle_packet(now, &mut buffer, length).unwrap();
            assert_eq!(sealed, padded + adit_wireguard::OVERHEAD, "{length}");
        }
    }

    #[test]
    fn a_keepalive_makes_the_session_and_keeps_time() {
        let now = Instant::now();
        let (mut a, mut b) = (machine(now, 1, 2, Some(THEIRS)), machine(now, 2, 1, None));
        a.keepalive = Some(Duration::from_secs(1));
        assert!(a.poll_timeout().is_some_and(|(due, _)| due <= now));
        a.handle_timeout(now);
        settle(now, (&mut a, OURS), (&mut b, THEIRS));
        let (due, reason) = a.poll_timeout().unwrap();
        assert_eq!((due, reason), (now + Duration::from_secs(1), "persistent keepalive"));
        a.handle_timeout(due);
        let (_, mut datagram) = a.poll_transmit().unwrap();
        assert_eq!(datagram.len(), adit_wireguard::OVERHEAD);
        assert!(b.handle_datagram(due, OURS.parse().unwrap(), &mut datagram).is_none());
        assert_eq!(b.counters().drops().map(|(_, count)| count).sum::<u64>(), 0);
    }
}
