//! All worker threads of a process, as the control thread sees them: told the same, in the same order.
//!
//! ```text
//!                 ┌► worker 0 ─ TUN queue 0, UDP sockets 0
//!  control thread ┤
//!                 └► worker 1 ─ TUN queue 1, UDP sockets 1
//! ```
//!
//! The kernel divides the work: a flow comes out of one TUN queue for ever, and the datagrams of one remote address out
//! of one socket, so that each direction of a flow has one worker and nothing overtakes anything. The two directions may
//! have different ones; every worker therefore has every flow, session and path.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use adit_dataplane::{Config, Update, Worker};
use adit_platform::tun::Tun;
use anyhow::Context as _;
use tokio::sync::mpsc;

use crate::offloads::Offloads;
use crate::sockets::Sockets;
use crate::streams::Streams;
use crate::worker::{FromWorker, ToControl, WorkerLink};

/// The most workers that are started unless more are asked for.
const MOST_UNASKED: usize = 4;

/// The most workers that can be asked for.
const MOST: usize = 64;

/// How many workers there are unless it is said: one for each core, at most 4.
#[must_use]
pub fn default_workers() -> NonZeroUsize {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    cores.min(NonZeroUsize::MIN.saturating_add(MOST_UNASKED - 1))
}

/// Reads a number of workers, for a command line.
///
/// # Errors
///
/// Says what it should be.
pub fn parse_workers(text: &str) -> Result<NonZeroUsize, String> {
    let count = text.parse().ok().filter(|count: &NonZeroUsize| count.get() <= MOST);
    count.ok_or_else(|| format!("must be a number from 1 to {MOST}"))
}

/// What the workers stand on: a queue of the TUN device and sockets for each.
#[derive(Debug)]
pub(crate) struct Ground {
    plots: Vec<(Arc<Tun>, Arc<Sockets>)>,
    streams: Arc<Streams>,
}

impl Ground {
    /// Divides the device and the sockets among `workers`. Where the kernel cannot keep flows apart, one worker gets all,
    /// for packets that overtake each other cost more than a second worker brings.
    pub(crate) fn divide(
        tun: Tun,
        sockets: Sockets,
        streams: Arc<Streams>,
        workers: NonZeroUsize,
        mark: Option<u32>,
        offloads: Offloads,
    ) -> Self {
        let another = || anyhow::Ok((tun.add_queue()?, sockets.another(mark, offloads)?));
        let others: anyhow::Result<Vec<_>> = (1..workers.get()).map(|_| another()).collect();
        let others = others.unwrap_or_else(|error| {
            let error = format!("{error:#}");
            tracing::warn!(error, "cannot divide the work among several workers; one does it all");
            Vec::new()
        });
        let plots = std::iter::once((tun, sockets)).chain(others);
        let plots = plots.map(|(tun, sockets)| (Arc::new(tun), Arc::new(sockets))).collect();
        Self { plots, streams }
    }

    /// The device, for the control thread.
    pub(crate) fn tun(&self) -> &Tun {
        &self.plots[0].0
    }

    /// The sockets of the control thread.
    pub(crate) fn sockets(&self) -> &Sockets {
        &self.plots[0].1
    }

    /// The streams to relays.
    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Tries segmentation again on all sockets.
    pub(crate) fn retry_segmentation(&self) {
        self.plots.iter().for_each(|(_, sockets)| sockets.retry_segmentation());
    }

    /// Whether the kernel has sent everything that it was given.
    pub(crate) fn are_flushed(&self) -> bool {
        self.plots.iter().all(|(_, sockets)| sockets.are_flushed()) && self.streams.are_flushed()
    }
}

/// The control thread's end of all workers; dropping it stops them.
#[derive(Debug)]
pub(crate) struct Workers {
    each: Vec<One>,
    /// What was queued ends something.
    ends_something: bool,
}

#[derive(Debug)]
struct One {
    link: WorkerLink,
    /// Its packets that were dealt with, and how many of them it knows to be.
    misses: u64,
    flushed: u64,
}

impl Workers {
    /// Starts one worker for each part of the ground; together they keep as many flows as `config` says.
    ///
    /// # Errors
    ///
    /// When the operating system has no descriptor or thread left.
    pub(crate) fn start(
        now: Instant,
        config: &Config,
        ground: &Ground,
    ) -> anyhow::Result<(Self, mpsc::Receiver<FromWorker>)> {
        let count = ground.plots.len();
        let max_flows = (config.max_flows / count).max(1);
        let (queues, from_workers) = ToControl::all(count);
        let start = |((tun, sockets), to_control): (&(Arc<Tun>, Arc<Sockets>), _)| {
            let worker = Worker::new(now, Config { max_flows, ..config.clone() });
            let streams = Arc::clone(&ground.streams);
            let link = WorkerLink::start(worker, Arc::clone(tun), Arc::clone(sockets), streams, to_control)?;
            anyhow::Ok(One { link, misses: 0, flushed: 0 })
        };
        let each: anyhow::Result<Vec<_>> = ground.plots.iter().zip(queues).map(start).collect();
        let each = each.context("cannot start the packet path")?;
        tracing::debug!(workers = count, "the packet path is ready");
        Ok((Self { each, ends_something: false }, from_workers))
    }

    /// Queues an update for all.
    pub(crate) fn update(&mut self, update: &Update) {
        self.ends_something |= update.ends_something();
        for one in &self.each {
            one.link.update(update.clone());
        }
    }

    /// Notes that a packet of a worker was dealt with.
    pub(crate) fn note_dealt_with(&mut self, worker: usize) {
        if let Some(one) = self.each.get_mut(worker) {
            one.misses += 1;
        }
    }

    /// Tells each that all it waits for has been sent, if there is news.
    ///
    /// A worker looks for news before every packet. It is woken up only if it has to do something without one:
    /// otherwise each new flow would cost every worker a turn, at the very moment when its first packet is under way.
    pub(crate) fn flush(&mut self, are_updated: bool) {
        let rings = std::mem::take(&mut self.ends_something);
        for one in &mut self.each {
            if are_updated || one.misses != one.flushed {
                one.flushed = one.misses;
                one.link.update(Update::Flushed { misses: one.misses });
            }
            if rings {
                one.link.ring();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_platform::tun::Offload;

    use super::*;

    #[test]
    fn where_flows_cannot_be_kept_apart_one_worker_does_it_all() {
        // A stand-in without a kernel device cannot be given another queue.
        let (tun, _kernel) = Tun::pair(Offload::None).unwrap();
        let sockets = Sockets::bind(0, None, Offloads::default()).unwrap();
        let four = NonZeroUsize::new(4).unwrap();
        let (streams, _) = Streams::new().unwrap();
        let ground = Ground::divide(tun, sockets, streams, four, None, Offloads::default());
        assert_eq!(ground.plots.len(), 1);
    }

    #[test]
    fn a_number_of_workers_is_read_within_bounds() {
        assert_eq!(parse_workers("4").map(NonZeroUsize::get), Ok(4));
        for text in ["0", "65", "-1", "many", ""] {
            assert!(parse_workers(text).is_err(), "{text}");
        }
    }
}
