//! What waits to be drained by the caller.

use std::collections::VecDeque;

use crate::{Event, Forwarding, Transmit};

/// Datagrams beyond this many are dropped; a caller that drains never gets near it.
const MAX_TRANSMITS: usize = 65_536;

/// Queues of outputs. Events and forwarding need no limit of their own: each input makes
/// at most a few per connection, and callers drain after each input.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    pub(crate) transmits: VecDeque<Transmit>,
    pub(crate) events: VecDeque<Event>,
    pub(crate) forwarding: VecDeque<Forwarding>,
}

impl Outputs {
    /// Queues a datagram; false if there are too many.
    pub(crate) fn transmit(&mut self, transmit: Transmit) -> bool {
        let room = self.transmits.len() < MAX_TRANSMITS;
        if room {
            self.transmits.push_back(transmit);
        }
        room
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(crate) fn forwarding(&mut self, forwarding: Forwarding) {
        self.forwarding.push_back(forwarding);
    }
}
