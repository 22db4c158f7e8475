//! Opening flows, many at a time, and giving them back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::flow::{Flow, Place};
use crate::histogram::Histogram;
use crate::socket::Receiver;

/// Longest time without any flow that has come to its end.
const STALL_LIMIT: Duration = Duration::from_secs(15);

/// How long to wait for the answer to a deletion: a relay that does not hear of it forgets by itself.
const RELEASE_LIMIT: Duration = Duration::from_millis(500);

/// Longest wait before time is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How opening went.
#[derive(Clone, Debug, Default)]
pub(crate) struct Opened {
    pub(crate) took: Duration,
    /// From the first request of a flow to its channel.
    pub(crate) each: Histogram,
}

/// Flows under way, by number.
struct UnderWay {
    flows: BTreeMap<usize, (Instant, Flow)>,
    epoll: Epoll,
    receiver: Receiver,
    events: Vec<EpollEvent>,
}

/// Opens `count` flows, at most `at_once` at a time. Their sockets are there before time is taken: what they cost is
/// not the relay's.
///
/// # Errors
/// When one is refused, or nothing happens for a while.
pub(crate) fn open(place: &Place, count: usize, at_once: usize) -> Result<(Vec<Flow>, Opened)> {
    let mut way = UnderWay::new(at_once)?;
    let closed: Result<Vec<Flow>> = (0..count).map(|index| Flow::new(index, place)).collect();
    let mut closed = closed?.into_iter().enumerate();
    let (begin, mut opened) = (Instant::now(), Opened::default());
    let (mut flows, mut latest) = (Vec::with_capacity(count), begin);
    while flows.len() < count {
        let now = Instant::now();
        let free = at_once.saturating_sub(way.flows.len());
        for (index, mut flow) in closed.by_ref().take(free) {
            flow.begin(index, place, now)?;
            way.begin(index, flow, now)?;
        }
        for (since, flow) in way.take_open()? {
            latest = Instant::now();
            opened.each.add(latest.saturating_duration_since(since));
            flows.push(flow);
        }
        if way.flows.is_empty() {
            continue;
        }
        if latest.elapsed() > STALL_LIMIT {
            bail!("{} of {count} flows opened, and no further one for {STALL_LIMIT:?}", flows.len());
        }
        way.wait(place.relay)?;
    }
    opened.took = begin.elapsed();
    Ok((flows, opened))
}

/// Gives all allocations back; true when the relay confirmed each.
pub(crate) fn release(mut flows: Vec<Flow>, place: &Place, at_once: usize) -> Result<bool> {
    let mut all = true;
    while !flows.is_empty() {
        let mut way = UnderWay::new(at_once)?;
        let (begin, rest) = (Instant::now(), flows.len().saturating_sub(at_once));
        for (index, mut flow) in flows.drain(rest..).enumerate() {
            if let Some(machine) = &mut flow.machine {
                machine.close(begin);
                way.begin(index, flow, begin)?;
            }
        }
        while !way.flows.is_empty() && begin.elapsed() < RELEASE_LIMIT {
            way.wait(place.relay)?;
            // Without anything to wait for, it has got its answer.
            way.flows.retain(|_, (_, flow)| deadline(flow).is_some());
        }
        all &= way.flows.is_empty();
    }
    Ok(all)
}

impl UnderWay {
    fn new(at_once: usize) -> Result<Self> {
        Ok(Self {
            flows: BTreeMap::new(),
            epoll: Epoll::new(EpollCreateFlags::empty())?,
            receiver: Receiver::new(),
            events: vec![EpollEvent::empty(); at_once.max(1)],
        })
    }

    fn begin(&mut self, index: usize, mut flow: Flow, now: Instant) -> Result<()> {
        self.epoll.add(&flow.client, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        flow.advance(now)?;
        self.flows.insert(index, (now, flow));
        Ok(())
    }

    /// Takes out those that are open.
    fn take_open(&mut self) -> Result<Vec<(Instant, Flow)>> {
        let open: Vec<usize> =
            self.flows.iter().filter(|(_, (_, flow))| flow.is_open()).map(|(index, _)| *index).collect();
        let mut taken = Vec::with_capacity(open.len());
        for index in open {
            let (since, flow) = self.flows.remove(&index).context("it was there")?;
            self.epoll.delete(&flow.client)?;
            taken.push((since, flow));
        }
        Ok(taken)
    }

    /// Waits for answers or for the next deadline, and lets the machines work.
    fn wait(&mut self, relay: Option<SocketAddr>) -> Result<()> {
        let now = Instant::now();
        let next = self.flows.values().filter_map(|(_, flow)| deadline(flow)).min();
        let wait = next.map_or(LOOK_EVERY, |at| at.saturating_duration_since(now)).min(LOOK_EVERY);
        let count = self.epoll.wait(&mut self.events, EpollTimeout::try_from(wait)?)?;
        let now = Instant::now();
        for event in self.events.iter().take(count) {
            let Some((_, flow)) =
                usize::try_from(event.data()).ok().and_then(|index| self.flows.get_mut(&index))
            else {
                continue;
            };
            let (Some(machine), Some(relay)) = (&mut flow.machine, relay) else { continue };
            while self.receiver.receive(&flow.client, |datagram| {
                machine.handle_datagram(now, relay, datagram);
            })? {}
            flow.advance(now)?;
        }
        for (_, flow) in self.flows.values_mut() {
            if deadline(flow).is_some_and(|at| at <= now)
                && let Some(machine) = &mut flow.machine
            {
                machine.handle_timeout(now);
                flow.advance(now)?;
            }
        }
        Ok(())
    }
}

fn deadline(flow: &Flow) -> Option<Instant> {
    flow.machine.as_ref().and_then(|machine| machine.poll_timeout()).map(|(at, _)| at)
}
