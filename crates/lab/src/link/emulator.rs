//! One direction of an emulated cable: read what came, decide its fate, send what is due.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::socket::FrameSocket;
use super::{Control, Counters, Profile};

/// Frames read before those due are sent: keeps a flood from delaying the sending side.
const BATCH: usize = 64;

/// Longest sleep, so that the end of the cable is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Frame buffers kept for reuse.
const SPARE_BUFFERS: usize = 4_096;

const ETHERNET_HEADER: usize = 14;

struct Waiting {
    due: Instant,
    frame: Vec<u8>,
}

/// The frames of one direction.
pub(super) struct Direction {
    control: Arc<Control>,
    index: usize,
    from: Arc<FrameSocket>,
    to: Arc<FrameSocket>,
    profile: Profile,
    generation: u64,
    chance: Chance,
    queue: VecDeque<Waiting>,
    queued_bytes: usize,
    /// When the rate lets the next frame begin.
    rate_free_at: Instant,
    spare: Vec<Vec<u8>>,
}

impl Direction {
    pub(super) fn new(
        control: Arc<Control>,
        index: usize,
        from: Arc<FrameSocket>,
        to: Arc<FrameSocket>,
    ) -> Self {
        let profile = control.profiles.lock().unwrap_or_else(PoisonError::into_inner)[index];
        Self {
            control,
            index,
            from,
            to,
            profile,
            generation: 0,
            // The two directions draw from different sequences.
            chance: Chance::new(profile.seed, index),
            queue: VecDeque::new(),
            queued_bytes: 0,
            rate_free_at: Instant::now(),
            spare: Vec::new(),
        }
    }

    /// Moves frames until the cable is dropped or its interface is gone.
    pub(super) fn run(mut self) {
        let mut buffer = vec![0; 1 << 16];
        while !self.control.stop.load(Ordering::Relaxed) {
            self.take_changes();
            if self.read_frames(&mut buffer).is_err() {
                return;
            }
            self.send_due();
            self.sleep();
        }
    }

    fn take_changes(&mut self) {
        let generation = self.control.generation.load(Ordering::Acquire);
        if generation == self.generation {
            return;
        }
        self.generation = generation;
        let profile = self.control.profiles.lock().unwrap_or_else(PoisonError::into_inner)[self.index];
        if profile.seed != self.profile.seed {
            self.chance = Chance::new(profile.seed, self.index);
        }
        self.profile = profile;
    }

    fn read_frames(&mut self, buffer: &mut [u8]) -> Result<(), nix::errno::Errno> {
        for _ in 0..BATCH {
            match self.from.receive(buffer) {
                Ok(Some(length)) => self.admit(&buffer[..length]),
                Ok(None) => break,
                // The peer interface is down for the moment.
                Err(nix::errno::Errno::ENETDOWN) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn admit(&mut self, frame: &[u8]) {
        if resolves_addresses(frame) {
            return self.send(frame);
        }
        let too_large = frame.len() > self.profile.mtu.saturating_add(ETHERNET_HEADER);
        if too_large || self.queued_bytes + frame.len() > self.profile.queue {
            return count(&self.counters().dropped);
        }
        if self.profile.loss > 0.0 && self.chance.draw() < self.profile.loss {
            return count(&self.counters().lost);
        }
        let departure = self.departure(frame.len());
        let due = departure + self.profile.delay;
        // A shorter delay set meanwhile must not make frames overtake.
        let due = self.queue.back().map_or(due, |last| due.max(last.due));
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.clear();
        copy.extend_from_slice(frame);
        self.queued_bytes += copy.len();
        self.queue.push_back(Waiting { due, frame: copy });
    }

    /// When the last bit of a frame of this length has left, at the profile's rate.
    fn departure(&mut self, length: usize) -> Instant {
        let now = Instant::now();
        let Some(rate) = self.profile.rate else {
            return now;
        };
        let nanoseconds = (length as u64 * 8).saturating_mul(1_000_000_000) / rate.max(1);
        self.rate_free_at = self.rate_free_at.max(now) + Duration::from_nanos(nanoseconds);
        self.rate_free_at
    }

    fn send_due(&mut self) {
        let now = Instant::now();
        while let Some(waiting) = self.queue.pop_front_if(|waiting| waiting.due <= now) {
            self.queued_bytes -= waiting.frame.len();
            self.send(&waiting.frame);
            if self.spare.len() < SPARE_BUFFERS {
                self.spare.push(waiting.frame);
            }
        }
    }

    fn send(&self, frame: &[u8]) {
        let sent = self.to.send(frame).is_ok();
        count(if sent { &self.counters().delivered } else { &self.counters().dropped });
    }

    fn sleep(&self) {
        let until_due =
            self.queue.front().map(|waiting| waiting.due.saturating_duration_since(Instant::now()));
        let timeout = until_due.map_or(LOOK_EVERY, |wait| wait.min(LOOK_EVERY));
        let mut descriptors = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
        // Interrupted or not, the loop looks at everything again.
        let _ = ppoll(&mut descriptors, Some(TimeSpec::from_duration(timeout)), None);
    }

    fn counters(&self) -> &Counters {
        &self.control.counters[self.index]
    }
}

fn count(counter: &std::sync::atomic::AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// ARP, and ICMPv6 neighbour and router discovery (types 133 to 137).
///
/// Delay and loss belong to the long path that a cable stands for; on such a path nobody resolves addresses
/// across it, and a first packet must not pay for it.
fn resolves_addresses(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x06]) => true,
        Some([0x86, 0xdd]) => frame.get(20) == Some(&58) && matches!(frame.get(54), Some(133..=137)),
        _ => false,
    }
}

/// SplitMix64: small, seeded, and good enough to decide which frame is lost.
struct Chance {
    state: u64,
}

impl Chance {
    const fn new(seed: u64, index: usize) -> Self {
        Self { state: seed ^ ((index as u64) << 63) }
    }

    /// The next number, at least 0 and below 1.
    fn draw(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_repeatable_and_even() {
        let mut a = Chance::new(7, 0);
        let mut b = Chance::new(7, 0);
        let mut other = Chance::new(7, 1);
        let draws: Vec<f64> = (0..100_000).map(|_| a.draw()).collect();
        assert!(draws.iter().all(|draw| *draw == b.draw() && (0.0..1.0).contains(draw)));
        assert_ne!(draws[0], other.draw());
        let below: usize = draws.iter().filter(|draw| **draw < 0.05).count();
        assert!((4_700..5_300).contains(&below), "{below} of 100,000 below 5 %");
    }

    #[test]
    fn neighbour_discovery_is_told_from_echo() {
        let mut frame = [0u8; 64];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[20] = 58;
        frame[54] = 135;
        assert!(resolves_addresses(&frame));
        frame[54] = 128;
        assert!(!resolves_addresses(&frame));
        frame[12..14].copy_from_slice(&[0x08, 0x06]);
        assert!(resolves_addresses(&frame));
    }
}
