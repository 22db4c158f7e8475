//! Complete handshakes, both sides in this thread: ours in virtual time, boringtun's in real time, which it reads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_wireguard::{Device, PeerId};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

use crate::ends;
use crate::stopwatch::{Stopwatch, least_of_each, sample};

/// Handshakes in one run.
const HANDSHAKES: usize = 50;
/// Runs of which the best counts.
const REPETITIONS: usize = 10;
/// Virtual time between two of our handshakes: more than a peer must leave between two initiations, and so much that
/// a second holds fewer than a device calls load.
const SPACING: Duration = Duration::from_millis(25);

pub(crate) fn run(rounds: u32) {
    let mut subjects = [Subject::Adit(Box::new(Ours::new())), Subject::Boringtun(Box::new(Theirs::new()))];
    for round in 1..=rounds {
        let least = least_of_each(&mut subjects, REPETITIONS, Subject::measure);
        for (whose, nanoseconds) in ["adit", "boringtun"].into_iter().zip(least) {
            sample("handshakes_per_s", whose, round, 1e9 / nanoseconds);
        }
    }
}

enum Subject {
    Adit(Box<Ours>),
    Boringtun(Box<Theirs>),
}

impl Subject {
    /// Nanoseconds of one handshake.
    fn measure(&mut self) -> f64 {
        let mut stopwatch = Stopwatch::default();
        stopwatch.time(|| {
            for number in 0..HANDSHAKES {
                match self {
                    Self::Adit(ours) => ours.shake_hands(number),
                    Self::Boringtun(theirs) => theirs.shake_hands(number),
                }
            }
        });
        stopwatch.nanoseconds_each(HANDSHAKES)
    }
}

/// Two devices that take turns in being the initiator.
struct Ours {
    now: Instant,
    devices: [Device; 2],
    peers: [PeerId; 2],
}

impl Ours {
    fn new() -> Self {
        let now = Instant::now();
        let mut devices = [1, 2].map(|number| ends::device(now, number));
        let keys = [devices[1].public_key(), devices[0].public_key()];
        let [first, second] = &mut devices;
        let peers = [ends::introduce(now, first, keys[0]), ends::introduce(now, second, keys[1])];
        Self { now, devices, peers }
    }

    fn shake_hands(&mut self, number: usize) {
        self.now += SPACING;
        let [first, second] = &mut self.devices;
        let (initiator, responder) = if number.is_multiple_of(2) { (first, second) } else { (second, first) };
        ends::shake_hands(self.now, initiator, self.peers[number % 2], responder);
        self.tidy_up();
    }

    /// What whoever drives a device does after each input. A handshake must have ended in a session on both sides.
    fn tidy_up(&mut self) {
        for (device, peer) in self.devices.iter_mut().zip(self.peers) {
            device.handle_timeout(self.now);
            while device.poll_event().is_some() {}
            while device.poll_transmit().is_some() {}
            assert_eq!(device.current_session(peer).map(|session| session.created()), Some(self.now));
        }
    }
}

/// Two of boringtun's tunnels that take turns in being the initiator.
struct Theirs {
    tunnels: [Tunn; 2],
}

/// Longer than any handshake message.
const BUFFER: usize = 256;

impl Theirs {
    fn new() -> Self {
        let secrets = [1, 2].map(|byte| StaticSecret::from([byte; 32]));
        let publics = [PublicKey::from(&secrets[0]), PublicKey::from(&secrets[1])];
        let tunnel = |own: usize| {
            // Without a limit, since real time does not pass between two handshakes.
            let limiter = Arc::new(RateLimiter::new(&publics[own], u64::MAX));
            let (secret, other) = (secrets[own].clone(), publics[1 - own]);
            Tunn::new(secret, other, Some([5; 32]), None, own as u32, Some(limiter))
        };
        Self { tunnels: [tunnel(0), tunnel(1)] }
    }

    fn shake_hands(&mut self, number: usize) {
        let [first, second] = &mut self.tunnels;
        let (initiator, responder) = if number.is_multiple_of(2) { (first, second) } else { (second, first) };
        let mut buffers = [[0; BUFFER]; 4];
        let [initiation, response, confirmation, nothing] = &mut buffers;
        let TunnResult::WriteToNetwork(initiation) = initiator.format_handshake_initiation(initiation, true)
        else {
            panic!("boringtun does not initiate");
        };
        let TunnResult::WriteToNetwork(response) = responder.decapsulate(None, initiation, response) else {
            panic!("boringtun does not answer");
        };
        let TunnResult::WriteToNetwork(confirmation) = initiator.decapsulate(None, response, confirmation)
        else {
            panic!("boringtun does not confirm");
        };
        let TunnResult::Done = responder.decapsulate(None, confirmation, nothing) else {
            panic!("boringtun does not take the confirmation");
        };
    }
}
