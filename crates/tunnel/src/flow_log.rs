//! What is reported of flows, by a gateway of its clients' and by a client of its own: who reached what, when, and how much
//! it was.
//!
//! The packet path knows nothing of it. It counts as it always does, in the [`FlowUsage`] of each flow; here is kept what
//! a flow is about, from the slow path's decision about its first packet until a worker says that it is over, and then the
//! counters are read once. A flow is reported when it ends; one that lives on is reported after ten seconds, and every few
//! minutes as long as it carries something.
//!
//! Deliberately absent: flows that were refused (they are counted by reason), and packets. Where there is nobody to
//! report to, nothing is kept.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_dataplane::{EndCause, FlowCounters, FlowKey, FlowUsage, PeerId};
use adit_packet::FlowTuple;
use adit_peering::PathKind;
use adit_policy::{AuthorizationId, ClientId, GatewayId, ResourceId};
use adit_protocol::flow::{FlowEnd, FlowPath, FlowRecord, MAX_FLOW_NAME};
use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

/// A flow that lives as long as this is reported while it is open.
const FIRST_REPORT: Duration = Duration::from_secs(10);
/// How often after that.
const REPORT_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Flows looked at in one turn.
const TURN: usize = 1024;
/// Turns are at least this far apart, unless there is more to look at than one turn can.
const PAUSE: Duration = Duration::from_secs(1);
/// Open flows kept at most, as many as the workers keep; of further ones nothing is reported.
const MOST_OPEN: usize = 1_048_576;
/// Reports that wait to be fetched; further ones are dropped and counted.
const MOST_REPORTS: usize = 65_536;
/// Uses of one flow that are still counting because it was installed again and again.
const MOST_USES: usize = 8;

/// Who is at the other end of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FarEnd {
    /// The client whose flow it is.
    Client(ClientId),
    /// The gateway that our flow goes through.
    Gateway(GatewayId),
}

/// What a flow is about.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) authorization: AuthorizationId,
    pub(crate) far_end: FarEnd,
    /// The connection with the other end.
    pub(crate) peer: PeerId,
    pub(crate) resource: ResourceId,
    /// The tuple of forward packets when they leave us.
    pub(crate) beyond: FlowTuple,
    /// The name that the client asked for.
    pub(crate) name: Option<Arc<str>>,
}

/// A flow that is not over.
#[derive(Debug)]
struct Open {
    number: u64,
    id: uuid::Uuid,
    subject: Subject,
    opened_ms: u64,
    usage: Arc<FlowUsage>,
    /// Its uses before it was installed again, as long as a worker may still count there.
    earlier: Vec<Arc<FlowUsage>>,
    /// What went by the slow path, and what earlier uses carried.
    counted: FlowCounters,
    /// Packets that the last report knew of.
    reported: u64,
}

/// One connection with another end.
#[derive(Debug, Default)]
struct Peer {
    flows: usize,
    path: Option<FlowPath>,
    is_gone: bool,
}

/// When to look at a flow again.
type Due = (Instant, FlowKey, u64);

/// Open flows, and reports that wait to be fetched.
#[derive(Debug)]
pub(crate) struct FlowLog {
    random: ChaCha20Rng,
    is_enabled: bool,
    is_shut_down: bool,
    open: HashMap<FlowKey, Open>,
    peers: HashMap<PeerId, Peer>,
    /// In the order of time, because the time until each look is always the same.
    first: VecDeque<Due>,
    later: VecDeque<Due>,
    not_before: Option<Instant>,
    last_number: u64,
    reports: VecDeque<FlowRecord>,
    lost: u64,
}

impl FlowLog {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            random: ChaCha20Rng::from_seed(seed),
            // Until the portal says otherwise: what happens before its first word is not lost.
            is_enabled: true,
            is_shut_down: false,
            open: HashMap::new(),
            peers: HashMap::new(),
            first: VecDeque::new(),
            later: VecDeque::new(),
            not_before: None,
            last_number: 0,
            reports: VecDeque::new(),
            lost: 0,
        }
    }

    /// Whether there is somebody to report to.
    pub(crate) fn enable(&mut self, is_enabled: bool) {
        self.is_enabled = is_enabled;
        if !is_enabled {
            self.open.clear();
            self.reports.clear();
            self.peers.values_mut().for_each(|peer| peer.flows = 0);
            self.tidy();
        }
    }

    /// Flows of which nothing, or no end, will be reported.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }

    /// The next report. After [`shut_down`](Self::shut_down) also of every flow that is still open.
    pub(crate) fn poll(&mut self, at_ms: u64) -> Option<FlowRecord> {
        if self.reports.is_empty() && self.is_shut_down {
            let key = self.open.keys().next().copied()?;
            self.close(at_ms, &key, FlowEnd::ShuttingDown);
        }
        self.reports.pop_front()
    }

    /// All flows are over.
    pub(crate) const fn shut_down(&mut self) {
        self.is_shut_down = true;
    }

    /// A flow was installed, or installed again, and `packets` of `bytes` in all went by the slow path.
    pub(crate) fn opened(
        &mut self,
        now: Instant,
        at_ms: u64,
        key: FlowKey,
        usage: &Arc<FlowUsage>,
        subject: Subject,
        [packets, bytes]: [u64; 2],
    ) {
        if !self.is_enabled || self.is_shut_down {
            return;
        }
        if let Some(open) = self.open.get_mut(&key) {
            if open.is_same(&subject) {
                open.use_again(Arc::clone(usage));
                open.count_first(packets, bytes);
                return;
            }
            self.close(at_ms, &key, FlowEnd::Replaced);
        }
        if self.open.len() >= MOST_OPEN {
            self.lost += 1;
            return;
        }
        self.last_number += 1;
        let mut open = Open {
            number: self.last_number,
            id: self.next_id(at_ms),
            subject,
            opened_ms: at_ms,
            usage: Arc::clone(usage),
            earlier: Vec::new(),
            counted: FlowCounters::default(),
            reported: 0,
        };
        open.count_first(packets, bytes);
        self.first.push_back((now + FIRST_REPORT, key, open.number));
        self.peers.entry(open.subject.peer).or_default().flows += 1;
        self.open.insert(key, open);
    }

    /// A worker says that the flow with this key is over; it may mean one that was replaced since.
    pub(crate) fn ended(&mut self, at_ms: u64, key: &FlowKey, cause: EndCause) {
        if self.open.get(key).is_some_and(|open| open.usage.is_over()) {
            let end = match cause {
                EndCause::PeerGone if self.is_shut_down => FlowEnd::ShuttingDown,
                _ => end_of(cause),
            };
            self.close(at_ms, key, end);
        }
    }

    /// A connection uses this path now.
    pub(crate) fn note_path(&mut self, peer: PeerId, kind: PathKind) {
        self.peers.entry(peer).or_default().path = Some(match kind {
            PathKind::Direct => FlowPath::Direct,
            PathKind::Relayed { .. } => FlowPath::Relayed,
        });
    }

    /// The flows of a connection that is gone go on over another one.
    pub(crate) fn move_peer(&mut self, from: PeerId, to: PeerId) {
        let flows = self.open.values_mut().filter(|open| open.subject.peer == from);
        let moved = flows.map(|open| open.subject.peer = to).count();
        self.peers.remove(&from);
        self.peers.entry(to).or_default().flows += moved;
    }

    /// A connection is gone; its flows will end.
    pub(crate) fn note_gone(&mut self, peer: PeerId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.is_gone = true;
            self.forget_if_done(peer);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let fronts = [self.first.front(), self.later.front()];
        let due = fronts.into_iter().flatten().map(|(at, ..)| *at).min()?;
        Some(self.not_before.map_or(due, |not_before| due.max(not_before)))
    }

    /// Reports flows that have been open for long.
    pub(crate) fn handle_timeout(&mut self, now: Instant, at_ms: u64) {
        if self.next_due().is_none_or(|due| due > now) {
            return;
        }
        let mut left = TURN;
        while left > 0 {
            let is_due = |due: &&Due| due.0 <= now;
            let (key, number) = if let Some((_, key, number)) = self.first.front().filter(is_due).copied() {
                self.first.pop_front();
                (key, number)
            } else if let Some((_, key, number)) = self.later.front().filter(is_due).copied() {
                self.later.pop_front();
                (key, number)
            } else {
                break;
            };
            left -= 1;
            self.look_at(now, at_ms, key, number);
        }
        self.not_before = (left > 0).then(|| now + PAUSE);
    }

    fn look_at(&mut self, now: Instant, at_ms: u64, key: FlowKey, number: u64) {
        let Some(open) = self.open.get_mut(&key).filter(|open| open.number == number) else { return };
        if open.usage.is_over() {
            // The word of the worker got lost.
            return self.close(at_ms, &key, FlowEnd::Other);
        }
        open.fold();
        let counters = open.counters();
        let packets = counters.forward_packets + counters.reverse_packets;
        if packets != open.reported {
            open.reported = packets;
            let path = path_of(&self.peers, open.subject.peer);
            let record = open.record(&key, at_ms, path, None, counters);
            self.report(record);
        }
        self.later.push_back((now + REPORT_INTERVAL, key, number));
    }

    fn close(&mut self, at_ms: u64, key: &FlowKey, end: FlowEnd) {
        let Some(open) = self.open.remove(key) else { return };
        let peer = open.subject.peer;
        let path = path_of(&self.peers, peer);
        let record = open.record(key, at_ms, path, Some(end), open.counters());
        self.report(record);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.flows = known.flows.saturating_sub(1);
        }
        self.forget_if_done(peer);
        self.tidy();
    }

    /// Nobody has to look at flows that are gone.
    fn tidy(&mut self) {
        if self.open.is_empty() {
            self.first.clear();
            self.later.clear();
        }
    }

    fn forget_if_done(&mut self, peer: PeerId) {
        if self.peers.get(&peer).is_some_and(|peer| peer.is_gone && peer.flows == 0) {
            self.peers.remove(&peer);
        }
    }

    fn report(&mut self, record: FlowRecord) {
        if self.reports.len() >= MOST_REPORTS {
            self.lost += 1;
        } else {
            self.reports.push_back(record);
        }
    }

    fn next_id(&mut self, at_ms: u64) -> uuid::Uuid {
        let mut random = [0; 10];
        self.random.fill_bytes(&mut random);
        uuid::Builder::from_unix_timestamp_millis(at_ms, &random).into_uuid()
    }
}

impl Open {
    fn is_same(&self, subject: &Subject) -> bool {
        self.subject.beyond == subject.beyond && self.subject.far_end == subject.far_end
    }

    fn count_first(&mut self, packets: u64, bytes: u64) {
        self.counted.forward_packets += packets;
        self.counted.forward_bytes += bytes;
    }

    /// A worker that has not heard of the new use goes on counting in the one before.
    fn use_again(&mut self, usage: Arc<FlowUsage>) {
        self.earlier.push(std::mem::replace(&mut self.usage, usage));
        self.fold();
    }

    /// Adds up earlier uses that are over, or too many.
    fn fold(&mut self) {
        while let Some(usage) = self.earlier.first()
            && (usage.is_over() || self.earlier.len() > MOST_USES)
        {
            self.counted = sum(self.counted, usage.counters());
            self.earlier.remove(0);
        }
    }

    fn counters(&self) -> FlowCounters {
        let uses = self.earlier.iter().chain([&self.usage]);
        uses.fold(self.counted, |total, usage| sum(total, usage.counters()))
    }

    fn record(
        &self,
        key: &FlowKey,
        at_ms: u64,
        path: Option<FlowPath>,
        end: Option<FlowEnd>,
        counters: FlowCounters,
    ) -> FlowRecord {
        let Subject { authorization, far_end, resource, beyond, name, .. } = &self.subject;
        let (client, gateway) = match *far_end {
            FarEnd::Client(client) => (Some(client), None),
            FarEnd::Gateway(gateway) => (None, Some(gateway)),
        };
        FlowRecord {
            id: self.id,
            authorization: *authorization,
            client,
            gateway,
            resource: *resource,
            protocol: key.protocol,
            source: key.source,
            source_port: key.source_port,
            destination: beyond.destination,
            destination_port: beyond.destination_port,
            name: name.as_deref().filter(|name| name.len() <= MAX_FLOW_NAME).map(str::to_owned),
            path,
            opened_ms: self.opened_ms,
            at_ms,
            end,
            sent_packets: counters.forward_packets,
            sent_bytes: counters.forward_bytes,
            received_packets: counters.reverse_packets,
            received_bytes: counters.reverse_bytes,
        }
    }
}

fn path_of(peers: &HashMap<PeerId, Peer>, peer: PeerId) -> Option<FlowPath> {
    peers.get(&peer)?.path
}

const fn end_of(cause: EndCause) -> FlowEnd {
    match cause {
        EndCause::Idle => FlowEnd::Idle,
        EndCause::Closed => FlowEnd::Closed,
        EndCause::Evicted => FlowEnd::Evicted,
        EndCause::Revoked => FlowEnd::AuthorizationEnded,
        EndCause::PeerGone => FlowEnd::ConnectionLost,
        EndCause::Replaced => FlowEnd::Replaced,
    }
}

const fn sum(one: FlowCounters, other: FlowCounters) -> FlowCounters {
    FlowCounters {
        forward_packets: one.forward_packets + other.forward_packets,
        forward_bytes: one.forward_bytes + other.forward_bytes,
        reverse_packets: one.reverse_packets + other.reverse_packets,
        reverse_bytes: one.reverse_bytes + other.reverse_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_another_one_took_over_is_forgotten() {
        let mut log = FlowLog::new([7; 32]);
        for restart in 0..10 {
            log.note_path(PeerId(restart), PathKind::Direct);
            log.move_peer(PeerId(restart), PeerId(restart + 1));
        }
        assert_eq!(log.peers.len(), 1);
        log.note_gone(PeerId(10));
        assert!(log.peers.is_empty());
    }

    /// What a flow costs beside the workers: its entry, its place in one queue, and where it is counted.
    #[test]
    fn an_open_flow_is_small() {
        let entry = size_of::<(FlowKey, Open)>() + 1;
        let place = size_of::<Due>();
        assert!(entry <= 288, "{entry} B");
        assert!(place <= 80, "{place} B");
    }
}
