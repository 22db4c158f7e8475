//! The byte stream to one relay: where to connect next, and when.
//!
//! The caller makes one attempt for each [`StreamId`] and says how it went. Everything else is decided here: the
//! relay's listeners take turns, TLS first because firewalls expect it, and after all of them failed there is a
//! pause. A stream that has worked is made again at once where it worked.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_protocol::{RelayAccess, RelayTls};
use adit_turn::Family;
use rand::Rng as _;
use rand_chacha::ChaCha20Rng;

use crate::event::{RelayTransport, StreamId, StreamTarget};

/// The first pause after no listener could be used; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A stream that has lasted so long has worked.
const WORTH: Duration = Duration::from_secs(10);

/// Where a relay takes streams.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listener {
    addresses: Vec<SocketAddr>,
    tls: Option<RelayTls>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The next attempt is due then; never without a network.
    Waiting(Option<Instant>),
    /// The caller connects.
    Connecting(StreamId),
    /// The caller is connected, since then.
    Open(StreamId, Instant),
}

/// The stream to one relay, or the way to one.
#[derive(Debug)]
pub(super) struct Stream {
    listeners: Vec<Listener>,
    /// Which of them is or was tried last.
    current: usize,
    /// Attempts in a row that came to nothing.
    failures: usize,
    state: State,
}

impl Stream {
    /// A stream that is to be made at once; `None` for a relay without a listener that we can reach.
    pub(super) fn new(now: Instant, access: &RelayAccess, families: &[Family]) -> Option<Self> {
        let listeners = listeners(access, families);
        let state = State::Waiting(Some(now));
        (!listeners.is_empty()).then_some(Self { listeners, current: 0, failures: 0, state })
    }

    /// Whether the relay has a listener that could be reached from these families.
    pub(super) fn is_possible(access: &RelayAccess, families: &[Family]) -> bool {
        !listeners(access, families).is_empty()
    }

    /// Begins again, from another network (or none).
    pub(super) fn rebind(
        &mut self,
        now: Instant,
        access: &RelayAccess,
        families: &[Family],
        has_network: bool,
    ) {
        self.listeners = listeners(access, families);
        self.current = self.current.min(self.listeners.len().saturating_sub(1));
        self.failures = 0;
        self.state = State::Waiting((has_network && !self.listeners.is_empty()).then_some(now));
    }

    /// The caller is to connect now, under this name.
    pub(super) fn connect(&mut self, id: StreamId) {
        self.state = State::Connecting(id);
    }

    /// The caller is connected. False if that is an old story.
    pub(super) fn note_opened(&mut self, now: Instant, id: StreamId) -> bool {
        let is_news = self.state == State::Connecting(id);
        if is_news {
            self.state = State::Open(id, now);
        }
        is_news
    }

    /// The stream is of no use (any more). Sets the time of the next attempt.
    pub(super) fn note_failed(&mut self, now: Instant, random: &mut ChaCha20Rng) {
        if self.id().is_none() {
            return;
        }
        let count = self.listeners.len().max(1);
        let has_worked = matches!(self.state, State::Open(_, since) if now >= since + WORTH);
        if has_worked {
            self.failures = 0;
            self.state = State::Waiting(Some(now));
            return;
        }
        self.failures += 1;
        self.current = (self.current + 1) % count;
        let pause = if self.failures.is_multiple_of(count) {
            let rounds = u32::try_from(self.failures / count - 1).unwrap_or(u32::MAX).min(16);
            let pause = (FIRST_PAUSE * 2_u32.pow(rounds)).min(MAX_PAUSE);
            // Spread over 75 to 125 % so that clients of one relay do not return in step.
            pause * random.random_range(75..125) / 100
        } else {
            Duration::ZERO
        };
        self.state = State::Waiting(Some(now + pause));
    }

    /// When the next attempt is due.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(at) => at,
            State::Connecting(_) | State::Open(..) => None,
        }
    }

    /// Whether every listener has failed in turn, and nothing has worked since.
    pub(super) fn failed(&self) -> bool {
        self.failures >= self.listeners.len()
    }

    /// The stream that is being made or open.
    pub(super) fn id(&self) -> Option<StreamId> {
        match self.state {
            State::Waiting(_) => None,
            State::Connecting(id) | State::Open(id, _) => Some(id),
        }
    }

    /// The stream that is open.
    pub(super) fn open_id(&self) -> Option<StreamId> {
        match self.state {
            State::Open(id, _) => Some(id),
            State::Waiting(_) | State::Connecting(_) => None,
        }
    }

    /// What the caller is to keep open.
    pub(super) fn target(&self) -> Option<StreamTarget> {
        let id = self.id()?;
        let Listener { addresses, tls } = self.listeners.get(self.current)?.clone();
        Some(StreamTarget { id, addresses, tls })
    }

    /// What carries the stream.
    pub(super) fn transport(&self) -> RelayTransport {
        match self.listeners.get(self.current) {
            Some(Listener { tls: None, .. }) => RelayTransport::Tcp,
            _ => RelayTransport::Tls,
        }
    }
}

/// The listeners of a relay that may be reached, the best first.
fn listeners(access: &RelayAccess, families: &[Family]) -> Vec<Listener> {
    let ip = |of, address: Option<SocketAddr>| Some(address.filter(|_| families.contains(&of))?.ip());
    let ips: Vec<_> =
        [ip(Family::V4, access.ipv4), ip(Family::V6, access.ipv6)].into_iter().flatten().collect();
    let at = |port: u16| ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect::<Vec<_>>();
    let tls = access.tls.clone().map(|tls| Listener { addresses: at(tls.port), tls: Some(tls) });
    let tcp = access.tcp_port.map(|port| Listener { addresses: at(port), tls: None });
    let listeners = [tls, tcp].into_iter().flatten();
    listeners.filter(|listener| !listener.addresses.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn access(tcp_port: Option<u16>, tls_port: Option<u16>) -> RelayAccess {
        let tls = |port| RelayTls { port, server_name: "relay.example".to_owned(), certificate_sha256: None };
        RelayAccess {
            id: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            ipv4: Some("192.0.2.1:3478".parse().unwrap()),
            ipv6: Some("[2001:db8::1]:3478".parse().unwrap()),
            tcp_port,
            tls: tls_port.map(tls),
            username: String::new(),
            password: String::new(),
            expires_at_ms: 0,
        }
    }

    #[test]
    fn listeners_take_turns_and_pauses_grow() {
        let (start, mut random) = (Instant::now(), ChaCha20Rng::from_seed([1; 32]));
        let both = [Family::V4, Family::V6];
        let mut stream = Stream::new(start, &access(Some(3478), Some(443)), &both).unwrap();
        let (mut now, mut tried) = (start, Vec::new());
        for number in 0..40 {
            let due = stream.due().unwrap();
            tried.push(due - now);
            now = due;
            stream.connect(StreamId(number));
            let target = stream.target().unwrap();
            let (port, has_tls) = if number % 2 == 0 { (443, true) } else { (3478, false) };
            assert_eq!((target.addresses[0].port(), target.tls.is_some()), (port, has_tls));
            assert_eq!(target.addresses.len(), 2);
            assert!(stream.due().is_none() && stream.open_id().is_none());
            stream.note_failed(now, &mut random);
            assert_eq!(stream.failed(), number > 0);
        }
        let pauses: Vec<_> = tried.iter().step_by(2).skip(1).map(Duration::as_millis).collect();
        assert!(tried.iter().skip(1).step_by(2).all(Duration::is_zero), "the other listener at once");
        assert!((750..1250).contains(&pauses[0]) && (1500..2500).contains(&pauses[1]), "{pauses:?}");
        assert!(pauses[10..].iter().all(|pause| (22_500..37_500).contains(pause)), "{pauses:?}");
    }

    #[test]
    fn a_stream_that_has_worked_is_made_again_at_once_where_it_worked() {
        let (now, mut random) = (Instant::now(), ChaCha20Rng::from_seed([1; 32]));
        let mut stream = Stream::new(now, &access(Some(3478), Some(443)), &[Family::V4]).unwrap();
        stream.connect(StreamId(1));
        stream.note_failed(now, &mut random);
        stream.connect(StreamId(2));
        assert!(!stream.note_opened(now, StreamId(1)), "too late");
        assert!(stream.note_opened(now, StreamId(2)));
        assert_eq!(stream.transport(), RelayTransport::Tcp);
        let later = now + WORTH;
        stream.note_failed(later, &mut random);
        assert_eq!(stream.due(), Some(later));
        stream.connect(StreamId(3));
        assert_eq!(stream.target().unwrap().tls, None);
        stream.note_opened(later, StreamId(3));
        stream.note_failed(later, &mut random);
        stream.connect(StreamId(4));
        assert!(stream.target().unwrap().tls.is_some(), "closed at once is no success");
    }

    #[test]
    fn a_relay_is_reached_only_where_it_listens_and_we_can_go() {
        let now = Instant::now();
        assert!(Stream::new(now, &access(None, None), &[Family::V4]).is_none());
        assert!(Stream::new(now, &access(Some(443), None), &[]).is_none());
        assert!(Stream::is_possible(&access(Some(443), None), &[Family::V6]));
        let mut stream = Stream::new(now, &access(Some(443), None), &[Family::V6]).unwrap();
        stream.connect(StreamId(1));
        assert_eq!(stream.target().unwrap().addresses, ["[2001:db8::1]:443".parse().unwrap()]);
        stream.rebind(now, &access(Some(443), None), &[Family::V4, Family::V6], false);
        assert_eq!((stream.due(), stream.id()), (None, None), "no network");
    }
}
