//! Requests under way: building, sending, repeating, giving up (RFC 8489, sections 6.2.1 and 6.2.2).

use super::authentication::{Credentials, Signature};
use super::{Client, FailureReason, Timer, Transport};
use crate::deadlines::Deadlines;
use crate::stun::{AttributeKind, Class, Method, TransactionId, Writer};
use crate::{Family, Transmit};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A request is sent this often at most; then it has failed.
const MAX_TRANSMISSIONS: u8 = 7;
/// Pauses between transmissions double up to this.
const MAX_PAUSE: Duration = Duration::from_secs(3);
/// Over a connection a request is sent once and its answer may take so long. RFC 8489 (section 6.2.2)
/// says 39.5 s, the time in which a request over UDP would fail; ours fail sooner there too.
const STREAM_PATIENCE: Duration = Duration::from_secs(10);
/// UDP, as a value of REQUESTED-TRANSPORT: that between relay and peers, however we reach the relay.
const TRANSPORT_UDP: u32 = 17 << 24;

/// What a request is for.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    Binding(Family),
    Allocate,
    Refresh,
    Deallocate { then_allocate: bool },
    ChannelBind { peer: SocketAddr, number: u16 },
    CreatePermission { peer: IpAddr },
}

impl Purpose {
    pub(super) fn method(self) -> Method {
        match self {
            Self::Binding(_) => Method::BINDING,
            Self::Allocate => Method::ALLOCATE,
            Self::Refresh | Self::Deallocate { .. } => Method::REFRESH,
            Self::ChannelBind { .. } => Method::CHANNEL_BIND,
            Self::CreatePermission { .. } => Method::CREATE_PERMISSION,
        }
    }
}

/// A request waiting for its response.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) purpose: Purpose,
    pub(super) destination: SocketAddr,
    /// The key its response must be made with; none for requests without credentials.
    pub(super) signature: Option<Signature>,
    /// How many earlier requests for the same purpose were refused with a new challenge.
    pub(super) challenges: u8,
    pub(super) saw_wrong_integrity: bool,
    pub(super) sent_at: Instant,
    pub(super) transmissions: u8,
    datagram: Vec<u8>,
    pause: Duration,
}

/// All requests under way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    pub(super) by_id: BTreeMap<TransactionId, Request>,
}

impl Requests {
    /// Forgets all requests; late responses will not match.
    pub(super) fn clear(&mut self, timers: &mut Deadlines<Timer>) {
        for id in std::mem::take(&mut self.by_id).into_keys() {
            timers.clear(Timer::Retransmission(id));
        }
    }

    /// Forgets all requests but Binding.
    pub(super) fn clear_allocation(&mut self, timers: &mut Deadlines<Timer>) {
        self.retain(timers, |purpose| matches!(purpose, Purpose::Binding(_)));
    }

    /// Forgets the requests for one purpose.
    pub(super) fn forget(&mut self, purpose: Purpose, timers: &mut Deadlines<Timer>) {
        self.retain(timers, |other| other != purpose);
    }

    fn retain(&mut self, timers: &mut Deadlines<Timer>, wanted: impl Fn(Purpose) -> bool) {
        self.by_id.retain(|&id, request| {
            let keep = wanted(request.purpose);
            if !keep {
                timers.clear(Timer::Retransmission(id));
            }
            keep
        });
    }

    /// True if a request for this purpose is under way.
    pub(super) fn contains(&self, purpose: Purpose) -> bool {
        self.by_id.values().any(|request| request.purpose == purpose)
    }
}

impl Client {
    pub(super) fn send_binding(&mut self, now: Instant, family: Family) {
        if self.server(family).is_some() && !self.requests.contains(Purpose::Binding(family)) {
            self.send_request(now, Purpose::Binding(family), 0);
        }
    }

    pub(super) fn send_refresh(&mut self, now: Instant, challenges: u8) {
        if !self.requests.contains(Purpose::Refresh) {
            self.send_request(now, Purpose::Refresh, challenges);
        }
    }

    pub(super) fn send_deallocate(&mut self, now: Instant, then_allocate: bool, challenges: u8) {
        self.send_request(now, Purpose::Deallocate { then_allocate }, challenges);
    }

    pub(super) fn send_channel_bind(&mut self, now: Instant, peer: SocketAddr, challenges: u8) {
        let Some(number) = self.peers.number_of(peer) else {
            return;
        };
        let purpose = Purpose::ChannelBind { peer, number };
        if !self.requests.contains(purpose) {
            self.peers.reserve(now, peer);
            self.send_request(now, purpose, challenges);
        }
    }

    pub(super) fn send_create_permission(&mut self, now: Instant, peer: IpAddr, challenges: u8) {
        let purpose = Purpose::CreatePermission { peer };
        if self.peers.wants_permission(peer) && !self.requests.contains(purpose) {
            self.send_request(now, purpose, challenges);
        }
    }

    /// Builds a request, sends it and watches for its response.
    pub(super) fn send_request(&mut self, now: Instant, purpose: Purpose, challenges: u8) {
        let family = match purpose {
            Purpose::Binding(family) => family,
            _ => self.allocation.family(),
        };
        let Some(destination) = self.server(family).map(|server| server.address) else {
            return;
        };
        let id = self.new_transaction_id();
        let writer = self.write(Writer::new(purpose.method(), Class::Request, id), purpose);
        let (datagram, signature) = match purpose {
            Purpose::Binding(_) => (writer.fingerprint().finish(), None),
            _ => self.authentication.sign(writer, &self.signer(purpose)),
        };
        let pause = match self.transport {
            Transport::Udp => self.round_trip.retransmission_timeout(),
            Transport::Stream => STREAM_PATIENCE,
        };
        if let Some(server) = self.server_mut(family) {
            server.asked.get_or_insert(now);
        }
        self.transmits.push_back(Transmit { destination, payload: datagram.clone() });
        self.timers.set(Timer::Retransmission(id), now + pause);
        let request = Request {
            purpose,
            destination,
            signature,
            challenges,
            saw_wrong_integrity: false,
            sent_at: now,
            transmissions: 1,
            datagram,
            pause,
        };
        self.requests.by_id.insert(id, request);
    }

    /// An allocation is ended in the name of the credentials that made it.
    fn signer(&self, purpose: Purpose) -> Credentials {
        let owner = match purpose {
            Purpose::Deallocate { .. } => self.allocation.owner(),
            _ => None,
        };
        owner.unwrap_or(self.authentication.credentials()).clone()
    }

    /// Adds the attributes a purpose needs.
    fn write(&self, writer: Writer, purpose: Purpose) -> Writer {
        match purpose {
            Purpose::Binding(_) => writer,
            Purpose::Allocate => {
                let writer = writer.number(AttributeKind::REQUESTED_TRANSPORT, TRANSPORT_UDP);
                let writer = self.allocation.write_families(writer);
                if self.software.is_empty() {
                    return writer;
                }
                writer.attribute(AttributeKind::SOFTWARE, self.software.as_bytes())
            }
            Purpose::Refresh => writer,
            Purpose::Deallocate { .. } => writer.number(AttributeKind::LIFETIME, 0),
            Purpose::ChannelBind { peer, number } => writer
                .number(AttributeKind::CHANNEL_NUMBER, u32::from(number) << 16)
                .xor_address(AttributeKind::XOR_PEER_ADDRESS, peer),
            Purpose::CreatePermission { peer } => {
                writer.xor_address(AttributeKind::XOR_PEER_ADDRESS, SocketAddr::new(peer, 0))
            }
        }
    }

    /// Sends a request again, or gives up.
    pub(super) fn retransmit(&mut self, now: Instant, id: TransactionId) {
        let Some(request) = self.requests.by_id.get_mut(&id) else {
            return;
        };
        if request.transmissions < MAX_TRANSMISSIONS && self.transport == Transport::Udp {
            request.transmissions += 1;
            request.pause = (request.pause * 2).min(MAX_PAUSE);
            self.transmits
                .push_back(Transmit { destination: request.destination, payload: request.datagram.clone() });
            self.counters.retransmissions += 1;
            let (pause, silent) = (request.pause, Family::of(request.destination.ip()));
            self.timers.set(Timer::Retransmission(id), now + pause);
            self.ask_elsewhere(now, silent);
            return;
        }
        if let Some(request) = self.requests.by_id.remove(&id) {
            let reason = if request.saw_wrong_integrity {
                FailureReason::WrongIntegrity
            } else {
                FailureReason::Timeout
            };
            self.handle_give_up(now, request.purpose, reason);
        }
    }
}
