//! From the machine's reports of flows to the portal, by way of the disk.
//!
//! A thread of its own writes: the control thread hands reports over through a bounded queue and never waits for a disk.
//! When the queue is full, a report is dropped and counted. The thread makes reports durable together, gives out one batch at
//! a time, and gives it out again when the portal does not answer, or comes back.

mod reports;
mod segment;
mod spool;

use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_protocol::flow::{FlowRecord, FlowReport, Flows, FlowsStored};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use metrics::{counter, gauge};
use tokio::sync::mpsc;
use uuid::Uuid;

pub(crate) use self::reports::Reports;
use self::spool::Spool;

/// Reports that wait for the thread.
const QUEUE: usize = 16_384;
/// Reports are written together that come within this time.
const TOGETHER: Duration = Duration::from_millis(500);
/// As many are written without waiting longer.
const MANY: u64 = 1024;
/// The portal has this long to answer a batch.
const ANSWER: Duration = Duration::from_secs(30);
/// Complaints about the disk are at least this far apart.
const COMPLAINTS: Duration = Duration::from_secs(60);

/// What the thread is told.
#[derive(Debug)]
enum Order {
    Report(Box<FlowRecord>),
    /// Whether batches can be sent.
    Online(bool),
    Stored(FlowsStored),
}

/// The control thread's end of the spool.
#[derive(Debug)]
struct FlowSpool {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl FlowSpool {
    /// Opens the spool in `directory` with room for `most_bytes`; batches to send come out of the receiver.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used, or there is no thread left.
    fn start(directory: &Path, most_bytes: u64) -> std::io::Result<(Self, mpsc::Receiver<Flows>)> {
        let mut spool = Spool::open(directory, most_bytes, Uuid::new_v4())?;
        // Flows that an earlier run left open are over.
        spool.push(&FlowReport::Restarted)?;
        spool.flush()?;
        let (orders, receiver) = crossbeam_channel::bounded(QUEUE);
        // One batch is under way at a time; room for one that is overdue.
        let (batches, to_send) = mpsc::channel(2);
        let writer = Writer { spool, batches, is_online: false, asked: None, complained: None, shown: 0 };
        let thread =
            std::thread::Builder::new().name("flow-spool".to_owned()).spawn(move || writer.run(&receiver))?;
        Ok((Self { orders: Some(orders), thread: Some(thread) }, to_send))
    }

    /// Takes a report; never waits.
    fn report(&self, record: FlowRecord) {
        self.order(Order::Report(Box::new(record)));
    }

    /// Says whether the portal is there and wants reports.
    fn set_online(&self, is_online: bool) {
        self.order(Order::Online(is_online));
    }

    /// The portal has stored a batch.
    fn stored(&self, stored: FlowsStored) {
        self.order(Order::Stored(stored));
    }

    fn order(&self, order: Order) {
        if self.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_err()) {
            counter!("adit_flow_reports_dropped_total", "reason" => "queue").increment(1);
        }
    }

    /// Takes a report, and waits for room up to a second: for the last ones of a run.
    fn report_last(&self, record: FlowRecord) {
        if let Some(orders) = &self.orders {
            let _ = orders.send_timeout(Order::Report(Box::new(record)), Duration::from_secs(1));
        }
    }
}

impl Drop for FlowSpool {
    /// What was reported is on disk when this returns.
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Writer {
    spool: Spool,
    batches: mpsc::Sender<Flows>,
    is_online: bool,
    /// When the batch that is under way was given out.
    asked: Option<Instant>,
    complained: Option<Instant>,
    /// Dropped reports that the metrics know of.
    shown: u64,
}

impl Writer {
    /// Works until the control thread's end is gone, and leaves nothing unwritten.
    fn run(mut self, orders: &Receiver<Order>) {
        let mut flush_at: Option<Instant> = None;
        loop {
            let until = flush_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(1));
            match orders.recv_deadline(until) {
                Ok(order) => self.carry_out(order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let flushed = self.spool.flush();
                    return self.expect(flushed);
                }
            }
            if self.spool.pending() > 0 && flush_at.is_none() {
                flush_at = Some(Instant::now() + TOGETHER);
            }
            if self.spool.pending() >= MANY || flush_at.is_some_and(|at| at <= Instant::now()) {
                let flushed = self.spool.flush();
                self.expect(flushed);
                flush_at = None;
                self.show();
            }
            self.send();
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Report(record) => {
                let pushed = self.spool.push(&FlowReport::Flow(record));
                self.expect(pushed);
            }
            Order::Online(is_online) => {
                self.is_online = is_online;
                self.asked = None;
            }
            Order::Stored(FlowsStored { spool, number }) => {
                let stored = self.spool.stored(spool, number);
                self.expect(stored);
                self.asked = None;
            }
        }
    }

    /// Gives out the next batch, unless one is under way.
    fn send(&mut self) {
        if !self.is_online || self.asked.is_some_and(|asked| asked.elapsed() < ANSWER) {
            return;
        }
        match self.spool.batch() {
            Ok(Some(batch)) => {
                if self.batches.try_send(batch).is_ok() {
                    self.asked = Some(Instant::now());
                }
            }
            Ok(None) => self.asked = None,
            Err(error) => self.expect(Err(error)),
        }
    }

    fn show(&mut self) {
        let dropped = self.spool.dropped();
        counter!("adit_flow_reports_dropped_total", "reason" => "spool").increment(dropped - self.shown);
        self.shown = dropped;
        #[expect(clippy::cast_precision_loss, reason = "a gauge shows magnitudes")]
        gauge!("adit_flow_spool_bytes").set(self.spool.length() as f64);
    }

    /// A disk that fails costs reports, not traffic.
    fn expect(&mut self, done: std::io::Result<()>) {
        let Err(error) = done else { return };
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINTS) {
            self.complained = Some(Instant::now());
            tracing::warn!(%error, "reports of flows cannot be kept on disk");
        }
    }
}
