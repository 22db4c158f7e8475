//! What arrived before the grant that covers it.
//!
//! The portal tells client and gateway at the same time, and the client's first packet may
//! win the race. It waits a moment, within tight bounds, because anyone with any lease can
//! make us hold something.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_policy::ResourceId;

/// How long something is held at most.
pub(crate) const HOLD: Duration = Duration::from_millis(100);
/// The most things held for one peer.
const MAX_ITEMS: usize = 32;
/// The most bytes of packets held for one peer.
const MAX_BYTES: usize = 64 * 1024;

/// A name with its proxy addresses, as a client announced it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// The answer carries the same id.
    pub(crate) message_id: u32,
    pub(crate) resource: ResourceId,
    pub(crate) name: String,
    pub(crate) proxies: Vec<IpAddr>,
}

/// Something that no lease covers yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// The first packet of a flow.
    Packet(Vec<u8>),
    /// A name.
    Announcement(Announcement),
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Packet(packet) => packet.len(),
            Self::Announcement(announcement) => announcement.name.len() + announcement.proxies.len() * 16,
        }
    }
}

/// What is held for one peer, in the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Held {
    items: VecDeque<(Instant, Item)>,
    bytes: usize,
}

impl Held {
    /// Holds `item` until then; gives it back when there is no room.
    pub(crate) fn push(&mut self, until: Instant, item: Item) -> Result<(), Item> {
        if self.items.len() >= MAX_ITEMS || self.bytes + item.len() > MAX_BYTES {
            return Err(item);
        }
        self.bytes += item.len();
        self.items.push_back((until, item));
        Ok(())
    }

    /// Takes the oldest item if its time is over.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<Item> {
        if self.next_expiry()? > now {
            return None;
        }
        let (_, item) = self.items.pop_front()?;
        self.bytes -= item.len();
        Some(item)
    }

    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.items.front().map(|(until, _)| *until)
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Takes everything, oldest first, with its deadline.
    pub(crate) fn take_all(&mut self) -> VecDeque<(Instant, Item)> {
        self.bytes = 0;
        std::mem::take(&mut self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_cannot_make_us_hold_more_than_the_bounds() {
        let now = Instant::now();
        let mut held = Held::default();
        for _ in 0..MAX_ITEMS {
            assert!(held.push(now + HOLD, Item::Packet(vec![0; 100])).is_ok());
        }
        assert!(held.push(now + HOLD, Item::Packet(vec![0; 100])).is_err());
        assert_eq!(held.take_all().len(), MAX_ITEMS);
        assert!(held.push(now + HOLD, Item::Packet(vec![0; MAX_BYTES + 1])).is_err());
        assert!(held.push(now + HOLD, Item::Packet(vec![0; MAX_BYTES])).is_ok());
        assert!(held.push(now + HOLD, Item::Packet(vec![0])).is_err());
        assert_eq!(held.pop_expired(now), None);
        assert!(held.pop_expired(now + HOLD).is_some());
        assert!(held.push(now + HOLD, Item::Packet(vec![0; MAX_BYTES])).is_ok());
    }
}
