//! Which flow the later fragments of a packet belong to.
//!
//! Only the first fragment has ports. It notes its flow here, under the fields by which the
//! receiver will group the fragments (RFC 791 section 3.2, RFC 8200 section 4.5), and later
//! fragments follow. Fragments that overtake the first one are dropped: nothing is queued.

use std::collections::VecDeque;
use std::net::IpAddr;

use adit_packet::{Fragment, PacketView};

use crate::Origin;
use crate::hasher::{SeededMap, SeededState};
use crate::table::Handle;

/// Packets that can be under way in fragments at once.
const CAPACITY: usize = 512;
/// How long after the first fragment the others may come, in milliseconds.
const LIFETIME: u64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    origin: Origin,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    identification: u32,
}

impl Key {
    const fn new(origin: Origin, view: &PacketView, fragment: &Fragment) -> Self {
        Self {
            origin,
            source: view.source(),
            destination: view.destination(),
            protocol: view.protocol(),
            identification: fragment.identification,
        }
    }
}

/// First fragments seen lately. Bounded; the oldest gives way.
#[derive(Debug)]
pub(crate) struct Fragments {
    flows: SeededMap<Key, (Handle, u64)>,
    order: VecDeque<Key>,
}

impl Fragments {
    pub(crate) fn new(state: SeededState) -> Self {
        Self { flows: SeededMap::with_hasher(state), order: VecDeque::new() }
    }

    /// Notes the flow of a first fragment, which has passed.
    pub(crate) fn note(&mut self, now: u64, origin: Origin, view: &PacketView, handle: Handle) {
        let Some(fragment) = view.fragment() else { return };
        let key = Key::new(origin, view, &fragment);
        if self.flows.insert(key, (handle, now + LIFETIME)).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.flows.remove(&oldest);
        }
    }

    /// The flow of a later fragment.
    pub(crate) fn find(&self, now: u64, origin: Origin, view: &PacketView) -> Option<Handle> {
        let key = Key::new(origin, view, &view.fragment()?);
        let (handle, until) = self.flows.get(&key)?;
        (now < *until).then_some(*handle)
    }
}
