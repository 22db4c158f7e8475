//! A load: numbered datagrams through all flows at a given rate, and what arrives of them.
//!
//! One thread sends and one receives, so that the generator takes at most one processor and a half of a machine that
//! the relay shares with it. Both read one clock: a one-way time is exact.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use adit_turn::{channel_data, stun};
use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::flow::Flow;
use crate::histogram::Histogram;
use crate::socket::{self, Receiver};
use crate::tally::{Expected, HEADER, Label, Tally};

/// The most that the kernel sends in one call.
const LARGEST_TRAIN: usize = 64;
const LARGEST_BYTES: usize = 65_000;

/// Pause of a sender that is ahead of its schedule.
const PAUSE: Duration = Duration::from_micros(40);

/// Time for the last datagrams to arrive.
const GRACE: Duration = Duration::from_millis(300);

/// Longest wait of the receiver before it looks whether it should end.
const LOOK_EVERY: u16 = 20;

/// Messages taken from one socket before the next has its turn.
const AT_ONCE: u32 = 32;

/// Loads of this process so far.
static LOADS: AtomicU64 = AtomicU64::new(1);

/// Where datagrams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From clients to peers.
    Up,
    /// From peers to clients.
    Down,
}

impl Direction {
    /// A number of its own for a flow's datagrams of this direction.
    pub(crate) fn stream(self, flow: usize) -> u64 {
        2 * flow as u64 + u64::from(self == Self::Down)
    }
}

/// What to send.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Datagrams a second, all flows and directions together.
    pub(crate) rate: f64,
    pub(crate) duration: Duration,
    /// Bytes of payload.
    pub(crate) size: usize,
    /// Datagrams that leave together.
    pub(crate) train: usize,
    /// One direction, or both in turn.
    pub(crate) directions: Vec<Direction>,
}

/// What became of it, in one direction or both.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) sent: u64,
    /// Datagrams that this machine's kernel did not take; counted as sent, and lost.
    pub(crate) refused: u64,
    pub(crate) tally: Tally,
    pub(crate) delays: Histogram,
    /// When the last one arrived, since the start.
    pub(crate) last: Duration,
}

/// What became of a load.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// In the order of [`Load::directions`].
    pub(crate) each: Vec<(Direction, Arrivals)>,
    /// STUN messages that came meanwhile.
    pub(crate) control: u64,
    pub(crate) duration: Duration,
}

impl Load {
    /// # Errors
    /// Says which figure is out of range.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.size >= HEADER, "datagrams have at least {HEADER} bytes");
        ensure!((1..=LARGEST_TRAIN).contains(&self.train), "trains have 1 to {LARGEST_TRAIN} datagrams");
        let bytes = self.train * (self.size + channel_data::HEADER);
        ensure!(bytes <= LARGEST_BYTES, "a train of {bytes} bytes is longer than {LARGEST_BYTES}");
        ensure!(self.rate > 0.0 && !self.directions.is_empty(), "there is nothing to send");
        Ok(())
    }

    /// More than any stream will send.
    fn most(&self) -> u64 {
        // At least the first train of each stream.
        (self.rate * self.duration.as_secs_f64()) as u64 + 2 * self.train as u64
    }
}

impl Outcome {
    /// Both directions together.
    pub(crate) fn sum(&self) -> Arrivals {
        let mut sum = Arrivals::default();
        for (_, arrivals) in &self.each {
            sum.sent += arrivals.sent;
            sum.refused += arrivals.refused;
            sum.tally.merge(&arrivals.tally);
            sum.delays.merge(&arrivals.delays);
            sum.last = sum.last.max(arrivals.last);
        }
        sum
    }
}

impl Arrivals {
    /// Share that did not arrive, 0.0 to 1.0.
    pub(crate) fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { 1.0 - self.tally.received as f64 / self.sent as f64 }
    }
}

/// What both threads know.
#[derive(Clone, Copy)]
struct Run<'a> {
    number: u64,
    epoch: Instant,
    load: &'a Load,
    flows: &'a [Flow],
}

/// Sends the load and counts what arrives.
pub(crate) fn run(flows: &[Flow], load: &Load) -> Result<Outcome> {
    load.check()?;
    let number = LOADS.fetch_add(1, Ordering::Relaxed);
    let run = Run { number, epoch: Instant::now(), load, flows };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiving = scope.spawn(|| run.receive(&stop));
        let sent = run.send();
        thread::sleep(GRACE);
        stop.store(true, Ordering::Relaxed);
        let received = receiving.join().map_err(|_| anyhow!("the receiver panicked"))?;
        let ((sent, duration), (mut each, control)) = (sent?, received?);
        for ((_, arrivals), (sent, refused)) in each.iter_mut().zip(sent) {
            (arrivals.sent, arrivals.refused) = (sent, refused);
        }
        Ok(Outcome { each, control, duration })
    })
}

impl Run<'_> {
    /// Keeps to the schedule, in several trains when it is late; how many datagrams each direction sent, and how many
    /// of these the kernel refused.
    fn send(&self) -> Result<(Vec<(u64, u64)>, Duration)> {
        let Load { rate, duration, size, train, directions } = self.load;
        let mut memory = vec![0; train * (size + channel_data::HEADER)];
        let mut next = vec![0_u64; 2 * self.flows.len()];
        let mut counts = vec![(0, 0); directions.len()];
        let (start, mut trains) = (Instant::now(), 0_usize);
        loop {
            let elapsed = start.elapsed();
            if elapsed >= *duration {
                return Ok((counts, elapsed));
            }
            // Truncation is meant: a train is due when the turn of its last datagram has come.
            let due = (elapsed.as_secs_f64() * rate / *train as f64) as usize;
            if due <= trains {
                thread::sleep(PAUSE);
                continue;
            }
            let which = trains % directions.len();
            let (direction, flow) = (directions[which], trains / directions.len() % self.flows.len());
            trains += 1;
            let stream = direction.stream(flow);
            let numbers = &mut next[usize::try_from(stream)?];
            let taken = self.send_train(&mut memory, flow, direction, *numbers)?;
            *numbers += *train as u64;
            counts[which].0 += *train as u64;
            counts[which].1 += if taken { 0 } else { *train as u64 };
        }
    }

    fn send_train(&self, memory: &mut [u8], flow: usize, direction: Direction, first: u64) -> Result<bool> {
        let Load { size, train, .. } = self.load;
        let Flow { client, peer, channel, .. } = &self.flows[flow];
        let (socket, header) = match (direction, channel) {
            (Direction::Up, Some(number)) => {
                let length = u16::try_from(*size).context("the size of a datagram")?;
                (client, &channel_data::header(*number, length)[..])
            }
            (Direction::Up, None) => (client, &[][..]),
            (Direction::Down, _) => (peer, &[][..]),
        };
        let segment = header.len() + size;
        let (load, stream, sent) = (self.number, direction.stream(flow), self.epoch.elapsed());
        let train = &mut memory[..segment * train];
        for (datagram, number) in train.chunks_exact_mut(segment).zip(first..) {
            datagram[..header.len()].copy_from_slice(header);
            Label { load, stream, number, sent }.write(&mut datagram[header.len()..]);
        }
        socket::send(socket, train, segment)
    }

    /// Takes what arrives until told to stop.
    fn receive(&self, stop: &AtomicBool) -> Result<(Vec<(Direction, Arrivals)>, u64)> {
        let mut arrivals = Counting::new(self);
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        for (index, flow) in self.flows.iter().enumerate() {
            for direction in &self.load.directions {
                let socket = if *direction == Direction::Up { &flow.peer } else { &flow.client };
                epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, direction.stream(index)))?;
            }
        }
        let (mut events, mut receiver) = (vec![EpollEvent::empty(); 64], Receiver::new());
        while !stop.load(Ordering::Relaxed) {
            let count = match epoll.wait(&mut events, EpollTimeout::from(LOOK_EVERY)) {
                Err(nix::errno::Errno::EINTR) => continue,
                count => count?,
            };
            for event in &events[..count] {
                arrivals.receive(event.data(), &mut receiver)?;
            }
        }
        Ok(arrivals.close())
    }
}

/// The receiver's side of a load.
struct Counting<'a> {
    run: &'a Run<'a>,
    /// By stream.
    tallies: Vec<Tally>,
    /// Up and down.
    delays: [Histogram; 2],
    last: [Duration; 2],
    control: u64,
}

impl<'a> Counting<'a> {
    fn new(run: &'a Run<'a>) -> Self {
        let tallies = vec![Tally::default(); 2 * run.flows.len()];
        Self { run, tallies, delays: Default::default(), last: [Duration::ZERO; 2], control: 0 }
    }

    fn receive(&mut self, stream: u64, receiver: &mut Receiver) -> Result<()> {
        let index = usize::try_from(stream)?;
        let flow = &self.run.flows[index / 2];
        let (is_down, load) = (index % 2 == 1, self.run.load);
        let (socket, channel) = if is_down { (&flow.client, flow.channel) } else { (&flow.peer, None) };
        let expected = Expected { load: self.run.number, stream, size: load.size, most: load.most() };
        let (tally, delays) = (&mut self.tallies[index], &mut self.delays[index % 2]);
        let last = &mut self.last[index % 2];
        for _ in 0..AT_ONCE {
            let now = &mut None;
            let more = receiver.receive(socket, |datagram| {
                let now = *now.get_or_insert_with(|| self.run.epoch.elapsed());
                if is_down && stun::looks_like(datagram) {
                    self.control += 1;
                    return;
                }
                if let Some(delay) = tally.note(payload(datagram, channel), &expected, now) {
                    delays.add(delay);
                    *last = now;
                }
            })?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn close(self) -> (Vec<(Direction, Arrivals)>, u64) {
        let [up, down] = self.delays;
        let mut each = Vec::new();
        for direction in &self.run.load.directions {
            let first = usize::from(*direction == Direction::Down);
            let mut tally = Tally::default();
            self.tallies.iter().skip(first).step_by(2).for_each(|stream| tally.merge(stream));
            let delays = if first == 1 { down.clone() } else { up.clone() };
            let last = self.last[first];
            each.push((*direction, Arrivals { tally, delays, last, ..Arrivals::default() }));
        }
        (each, self.control)
    }
}

/// What the relay carried: the inside of ChannelData on the right channel, or all where there is none. Anything else
/// is empty, and so no datagram of a load.
fn payload(datagram: &[u8], channel: Option<u16>) -> &[u8] {
    let Some(channel) = channel else { return datagram };
    match channel_data::parse(datagram) {
        Some((number, range)) if number == channel => &datagram[range],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::flow::Place;

    fn direct(count: usize) -> Vec<Flow> {
        let here = Ipv4Addr::LOCALHOST.into();
        let place = Place {
            relay: None,
            secret: String::new(),
            clients: "127.0.0.1/32".parse().unwrap(),
            peers: here,
        };
        (0..count).map(|index| Flow::new(index, &place).unwrap()).collect()
    }

    #[test]
    fn what_is_sent_both_ways_arrives_whole_and_in_order() {
        let flows = direct(3);
        let load = Load {
            rate: 4_000.0,
            duration: Duration::from_millis(200),
            size: 100,
            train: 4,
            directions: vec![Direction::Up, Direction::Down],
        };
        for _ in 0..2 {
            let outcome = run(&flows, &load).unwrap();
            let sum = outcome.sum();
            assert!((400..=800).contains(&sum.sent), "{}", sum.sent);
            assert_eq!(sum.tally.received, sum.sent);
            assert_eq!((sum.tally.reordered, sum.tally.stale, sum.tally.corrupt), (0, 0, 0));
            let [(_, up), (_, down)] = &outcome.each[..] else { panic!("two directions") };
            assert!(up.sent.abs_diff(down.sent) <= 4 && down.delays.longest() > Duration::ZERO);
        }
    }

    #[test]
    fn one_direction_alone_and_impossible_loads() {
        let flows = direct(1);
        let load = Load {
            rate: 1_000.0,
            duration: Duration::from_millis(50),
            size: 32,
            train: 1,
            directions: vec![Direction::Down],
        };
        let outcome = run(&flows, &load).unwrap();
        assert_eq!((outcome.each.len(), outcome.sum().loss()), (1, 0.0));
        for impossible in [
            Load { size: 31, ..load.clone() },
            Load { train: 65, ..load.clone() },
            Load { train: 64, size: 1_200, ..load.clone() },
            Load { directions: Vec::new(), ..load.clone() },
        ] {
            run(&flows, &impossible).unwrap_err();
        }
    }

    #[test]
    fn only_the_flows_own_channel_counts() {
        let datagram = b"\x40\x01\x00\x02hi\0\0";
        assert_eq!(payload(datagram, Some(0x4001)), b"hi");
        assert_eq!(payload(datagram, Some(0x4002)), b"");
        assert_eq!(payload(b"hi", Some(0x4001)), b"");
        assert_eq!(payload(datagram, None), datagram);
    }
}
