//! Flows that workers may not know yet.
//!
//! The control thread sends the first packet of a flow itself and tells the workers about the
//! flow at the same time. On a short path the answer can be faster than a busy worker; then it
//! comes to the slow path, where it would look like something that a gateway started.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use adit_packet::{FlowTuple, PacketView, Quoted};
use adit_peering::ConnectionId;
use adit_policy::AuthorizationId;

/// Workers are never further behind than this.
const KEEP: Duration = Duration::from_secs(2);
/// More flows than begin in that time; the oldest go first.
const MAX_FLOWS: usize = 1024;

/// What a recent flow rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Basis {
    pub(crate) connection: ConnectionId,
    pub(crate) authorization: AuthorizationId,
}

/// The flows of the last moments, by the tuple of our packets.
#[derive(Debug, Default)]
pub(crate) struct RecentFlows {
    flows: HashMap<FlowTuple, (u64, Basis)>,
    by_age: VecDeque<(Instant, u64, FlowTuple)>,
    last_number: u64,
}

impl RecentFlows {
    pub(crate) fn insert(&mut self, now: Instant, tuple: FlowTuple, basis: Basis) {
        self.forget_old(now);
        self.last_number += 1;
        self.flows.insert(tuple, (self.last_number, basis));
        self.by_age.push_back((now, self.last_number, tuple));
    }

    /// What the flow rests on that `packet`, from a gateway, answers to.
    pub(crate) fn answered_by(&mut self, now: Instant, packet: &[u8], view: &PacketView) -> Option<Basis> {
        self.forget_old(now);
        let ours = match Quoted::parse(packet, view) {
            Ok(quoted) => quoted.flow()?,
            Err(_) => view.flow()?.reversed(),
        };
        self.flows.get(&ours).map(|(_, basis)| *basis)
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((at, number, tuple)) = self.by_age.front().copied()
            && (now.saturating_duration_since(at) >= KEEP || self.by_age.len() >= MAX_FLOWS)
        {
            self.by_age.pop_front();
            if self.flows.get(&tuple).is_some_and(|(newest, _)| *newest == number) {
                self.flows.remove(&tuple);
            }
        }
    }
}
