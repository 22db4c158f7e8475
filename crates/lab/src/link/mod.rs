//! Cables with delay, loss, a rate and an MTU, changeable while traffic flows.
//!
//! The kernel may lack `netem`, so frames cross a namespace of their own in which two threads move them between
//! two packet sockets. The threads belong to the lab's process: they end with it however it ends, and share its
//! clock. Deliberately absent: jitter and reordering, which belong to the simulator where they are repeatable.

mod emulator;
mod socket;
pub mod tap;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use crate::world::Host;
use emulator::Direction;
use socket::FrameSocket;

/// What a cable does to frames, in one direction. ARP and neighbour discovery cross it untouched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Profile {
    /// One-way delay; a frame never overtakes another.
    pub delay: Duration,
    /// Share of frames lost at random, 0.0 to 1.0.
    pub loss: f64,
    /// Largest IP packet carried, in bytes; larger ones vanish without a word, as behind a broken router.
    pub mtu: usize,
    /// Bits per second, counting Ethernet frames; `None` is as fast as the machine.
    pub rate: Option<u64>,
    /// Bytes that may wait for the rate or the delay before further frames are dropped.
    pub queue: usize,
    /// Start of the sequence that decides which frames are lost.
    pub seed: u64,
}

impl Profile {
    /// A perfect cable.
    pub const CLEAR: Self =
        Self { delay: Duration::ZERO, loss: 0.0, mtu: 65_535, rate: None, queue: 64 << 20, seed: 1 };

    /// A perfect cable with a one-way delay in milliseconds.
    pub const fn delay_ms(milliseconds: u64) -> Self {
        Self { delay: Duration::from_millis(milliseconds), ..Self::CLEAR }
    }

    /// The same with this share of frames lost.
    #[must_use]
    pub const fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }
}

/// Frames of one direction, counted since the cable was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames delivered to the far end.
    pub delivered: u64,
    /// Frames lost by chance.
    pub lost: u64,
    /// Frames dropped for their size, a full queue, or because the far end refused them.
    pub dropped: u64,
}

/// State shared by a cable's handle and its threads; the handle sets, the threads look at every frame.
#[derive(Debug)]
struct Control {
    /// Toward the second end, toward the first end.
    profiles: Mutex<[Profile; 2]>,
    /// Counts changes of `profiles`, so that the threads rarely take the lock.
    generation: AtomicU64,
    stop: AtomicBool,
    counters: [Counters; 2],
}

#[derive(Debug, Default)]
struct Counters {
    delivered: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
}

impl Counters {
    fn read(&self) -> Counts {
        Counts {
            delivered: self.delivered.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }
}

/// An emulated cable; frames stop when it is dropped.
#[derive(Debug)]
pub struct Link {
    control: Arc<Control>,
}

impl Link {
    /// Moves frames between two interfaces of `wire` until dropped.
    pub(crate) fn start(wire: &Host, a: &str, b: &str, profile: Profile) -> Result<Self> {
        let (a, b) = wire.enter(|| -> Result<_> { Ok((FrameSocket::open(a)?, FrameSocket::open(b)?)) })??;
        let (a, b) = (Arc::new(a), Arc::new(b));
        let control = Arc::new(Control {
            profiles: Mutex::new([profile; 2]),
            generation: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            counters: [Counters::default(), Counters::default()],
        });
        for (index, from, to) in [(0, &a, &b), (1, &b, &a)] {
            let direction = Direction::new(Arc::clone(&control), index, Arc::clone(from), Arc::clone(to));
            std::thread::Builder::new().name(format!("link-{index}")).spawn(move || direction.run())?;
        }
        Ok(Self { control })
    }

    /// Changes both directions; frames already on the way keep the delay they left with.
    pub fn set(&self, profile: Profile) {
        self.change(|profiles| *profiles = [profile; 2]);
    }

    /// Changes the direction toward the second end alone.
    pub fn set_toward_second(&self, profile: Profile) {
        self.change(|profiles| profiles[0] = profile);
    }

    /// Changes the direction toward the first end alone.
    pub fn set_toward_first(&self, profile: Profile) {
        self.change(|profiles| profiles[1] = profile);
    }

    /// Counts toward the second end, then toward the first.
    pub fn counts(&self) -> [Counts; 2] {
        [self.control.counters[0].read(), self.control.counters[1].read()]
    }

    fn change(&self, edit: impl FnOnce(&mut [Profile; 2])) {
        edit(&mut self.control.profiles.lock().unwrap_or_else(PoisonError::into_inner));
        self.control.generation.fetch_add(1, Ordering::Release);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.control.stop.store(true, Ordering::Relaxed);
    }
}
