//! STUN Binding requests to relays (RFC 8489, 6) from one socket, so that what a NAT makes of it can be compared.
//!
//! Path MTU: requests are filled up with an attribute that servers ignore and may not be cut on the way (RFC 8899, 4.1).
//! Only the way to the relay is measured; answers are small.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use adit_platform::udp::{BindError, Config, ReceiveBatch, SendError, Transmit, UdpSocket};
use adit_turn::stun::{AttributeKind, Class, HEADER, Message, Method, TransactionId, Writer};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::{Attempt, AttemptFailure, FailureKind, FamilyReport, Mapping, PathMtu, no_answer};
use crate::dial::MarkedDial;

/// Pauses after each request to whoever has not answered (RFC 8489, 6.2.1, shortened: somebody waits for the result).
const PAUSES: [Duration; 4] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(750),
    Duration::from_millis(1_000),
];

/// Pauses after packets of each size.
const SIZE_PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(500)];

/// Usual sizes of packets: the least of IPv6, DSL and tunnels on the way, Ethernet, and large frames.
const SIZES: [u16; 6] = [1_280, 1_400, 1_460, 1_492, 1_500, 9_000];

/// An attribute that nobody knows, from the range that servers ignore (RFC 8489, 14), for filling up.
const FILLING: AttributeKind = AttributeKind(0xc0ad);

/// What was found over one address family.
#[derive(Debug)]
pub(super) struct Probed {
    /// One for each relay.
    pub(super) attempts: Vec<Attempt>,
    pub(super) family: FamilyReport,
}

/// Asks relays of one address family. Blocks for up to four seconds.
pub(super) fn probe(relays: &[SocketAddr], mark: Option<u32>) -> Probed {
    match Prober::new(relays, mark) {
        Ok(prober) => prober.run(mark),
        Err(error) => {
            let attempt = Err(AttemptFailure { kind: FailureKind::Unreachable, detail: error.to_string() });
            Probed { attempts: vec![attempt; relays.len()], family: FamilyReport::default() }
        }
    }
}

struct Prober<'a> {
    relays: &'a [SocketAddr],
    socket: UdpSocket,
    batch: ReceiveBatch,
    random: StdRng,
    requests: Vec<Request>,
    /// Why a request to a relay could not leave.
    refused: Vec<Option<AttemptFailure>>,
}

/// A request that was sent, and its answer.
struct Request {
    transaction: TransactionId,
    relay: usize,
    /// Of the whole packet; nothing for a request that was not filled up.
    size: Option<u16>,
    sent: Instant,
    answer: Option<(Duration, Option<SocketAddr>)>,
}

impl<'a> Prober<'a> {
    fn new(relays: &'a [SocketAddr], mark: Option<u32>) -> Result<Self, BindError> {
        let is_ipv6 = relays.first().is_some_and(SocketAddr::is_ipv6);
        let wildcard = if is_ipv6 { Config::wildcard_v6(0) } else { Config::wildcard_v4(0) };
        // One by one, so that each packet has the size that is meant.
        let config = Config { fwmark: mark, segmentation: false, coalescing: false, ..wildcard };
        Ok(Self {
            relays,
            socket: UdpSocket::bind(&config)?,
            batch: ReceiveBatch::new(4),
            random: StdRng::from_os_rng(),
            requests: Vec::new(),
            refused: vec![None; relays.len()],
        })
    }

    fn run(mut self, mark: Option<u32>) -> Probed {
        self.reach();
        let public = self.mapped().next().map(|(_, mapped)| mapped);
        let mapping = self.mapping();
        let nearest = (0..self.relays.len())
            .filter_map(|relay| Some((self.answer(relay)?, relay)))
            .min()
            .map(|(_, relay)| relay);
        let path_mtu = nearest.and_then(|relay| self.path_mtu(relay, mark));
        let attempts = (0..self.relays.len()).map(|relay| self.attempt(relay)).collect();
        Probed { attempts, family: FamilyReport { public, mapping, path_mtu } }
    }

    /// Asks until every relay has answered, or patience ends.
    fn reach(&mut self) {
        for pause in PAUSES {
            let silent: Vec<usize> =
                (0..self.relays.len()).filter(|relay| self.answer(*relay).is_none()).collect();
            for relay in silent {
                if let Err(error) = self.send(relay, None) {
                    let detail = error.to_string();
                    self.refused[relay] = Some(AttemptFailure { kind: FailureKind::Unreachable, detail });
                }
            }
            let is_done =
                |prober: &Self| (0..prober.relays.len()).all(|relay| prober.answer(relay).is_some());
            self.collect(pause, is_done);
        }
    }

    /// The shortest time in which a relay answered.
    fn answer(&self, relay: usize) -> Option<Duration> {
        let of = self.requests.iter().filter(|request| request.relay == relay);
        of.filter_map(|request| Some(request.answer?.0)).min()
    }

    fn attempt(&self, relay: usize) -> Attempt {
        let limit = PAUSES.iter().sum();
        self.answer(relay).ok_or_else(|| self.refused[relay].clone().unwrap_or_else(|| no_answer(limit)))
    }

    /// The relays that said where they see us, and what they said.
    fn mapped(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        self.requests.iter().filter_map(|request| Some((self.relays[request.relay], request.answer?.1?)))
    }

    /// Two relays on different addresses must have looked, unless nothing is translated at all.
    fn mapping(&self) -> Option<Mapping> {
        let (relay, first) = self.mapped().next()?;
        let mut others = self.mapped().filter(|(other, _)| other.ip() != relay.ip()).peekable();
        // Only an address of this host can be bound.
        let is_ours = std::net::UdpSocket::bind((first.ip(), 0)).is_ok();
        if is_ours && first.port() == self.socket.local_addr().port() {
            return Some(Mapping::None);
        }
        others.peek()?;
        let is_same = others.all(|(_, mapped)| mapped == first);
        Some(if is_same { Mapping::Independent } else { Mapping::Dependent })
    }

    /// The largest of the usual sizes that gets to a relay whole.
    fn path_mtu(&mut self, relay: usize, mark: Option<u32>) -> Option<PathMtu> {
        for pause in SIZE_PAUSES {
            let missing: Vec<u16> = SIZES.into_iter().filter(|size| !self.has_passed(*size)).collect();
            // What is too large for the interface does not leave, and is not missed.
            let sent = missing.iter().filter(|size| self.send(relay, Some(**size)).is_ok()).count();
            if sent > 0 {
                self.collect(pause, |prober| missing.iter().all(|size| prober.has_passed(*size)));
            }
        }
        let bytes = SIZES.into_iter().filter(|size| self.has_passed(*size)).max()?;
        let has_lost = self.requests.iter().any(|request| request.size.is_some_and(|size| size > bytes));
        let is_silent = has_lost && believed_mtu(self.relays[relay], mark).is_some_and(|mtu| mtu > bytes);
        Some(PathMtu { bytes, is_silent })
    }

    fn has_passed(&self, size: u16) -> bool {
        self.requests.iter().any(|request| request.size == Some(size) && request.answer.is_some())
    }

    fn send(&mut self, relay: usize, size: Option<u16>) -> Result<(), SendError> {
        let transaction = TransactionId(self.random.random());
        let destination = self.relays[relay];
        let contents = request(transaction, size.map(|size| payload(size, destination)));
        self.socket.send(&Transmit { source: None, destination, contents: &contents, segment_size: None })?;
        self.requests.push(Request { transaction, relay, size, sent: Instant::now(), answer: None });
        Ok(())
    }

    /// Takes answers for `limit`, or until it is enough.
    fn collect(&mut self, limit: Duration, is_enough: impl Fn(&Self) -> bool) {
        let until = Instant::now() + limit;
        while !is_enough(self) {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(timeout) = PollTimeout::try_from(left) else { return };
            let mut watched = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            if left.is_zero() || poll(&mut watched, timeout).is_err() {
                return;
            }
            if self.socket.receive(&mut self.batch).is_err() {
                return;
            }
            self.take();
        }
    }

    fn take(&mut self) {
        let now = Instant::now();
        for datagram in self.batch.datagrams() {
            let Ok(message) = Message::parse(datagram.payload) else { continue };
            let is_answer = message.class() == Class::Success && message.method() == Method::BINDING;
            let mut requests = self.requests.iter_mut();
            let asked = requests.find(|request| request.transaction == message.transaction());
            if let Some(request) = asked.filter(|request| {
                is_answer && self.relays[request.relay] == datagram.source && request.answer.is_none()
            }) {
                let mapped = message.xor_address(AttributeKind::XOR_MAPPED_ADDRESS);
                request.answer = Some((now.duration_since(request.sent), mapped));
            }
        }
    }
}

/// Bytes of a UDP datagram in a packet of `size` bytes.
fn payload(size: u16, destination: SocketAddr) -> usize {
    let headers = if destination.is_ipv6() { 48 } else { 28 };
    usize::from(size) - headers
}

/// A Binding request, filled up to `length` bytes (rounded down to four, as STUN wants it).
fn request(transaction: TransactionId, length: Option<usize>) -> Vec<u8> {
    let writer = Writer::new(Method::BINDING, Class::Request, transaction);
    let Some(length) = length else { return writer.finish() };
    let filling = (length & !3).saturating_sub(HEADER + 4);
    writer.attribute(FILLING, &vec![0; filling]).finish()
}

/// What the kernel takes for the path MTU after all that routers have said (IPv4 only).
fn believed_mtu(relay: SocketAddr, mark: Option<u32>) -> Option<u16> {
    if relay.is_ipv6() {
        return None;
    }
    let socket = MarkedDial { mark }.plain_udp_socket(relay).ok()?;
    let mtu = getsockopt(&socket, sockopt::IpMtu).ok()?;
    u16::try_from(mtu).ok()
}
