//! Notices an interface that does not send what the program gives it.
//!
//! A driver accepts a frame from the program without saying whether it can send it. Without a queue for it, or with
//! a `veth` whose other end does not take such frames, all are lost, and no socket is told. The kernel counts them,
//! though. Losing a few under load is what networks do; losing every second one for two looks in a row is not.

/// Fewer forwarded packets than this between two looks say nothing.
const FEWEST: u64 = 16;
/// So many bad looks in a row are enough.
const LOOKS: u32 = 2;

/// Compares what was forwarded with what interfaces dropped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watch {
    forwarded: u64,
    dropped: u64,
    bad_looks: u32,
}

impl Watch {
    /// Begins with the counts of this moment.
    pub(crate) fn new(forwarded: u64, dropped: u64) -> Self {
        Self { forwarded, dropped, bad_looks: 0 }
    }

    /// Looks at the counts; true when forwarding by the program loses the traffic.
    pub(crate) fn look(&mut self, forwarded: u64, dropped: u64) -> bool {
        let sent = forwarded.saturating_sub(std::mem::replace(&mut self.forwarded, forwarded));
        let lost = dropped.saturating_sub(std::mem::replace(&mut self.dropped, dropped));
        if sent < FEWEST {
            // Idle: neither better nor worse.
            return false;
        }
        self.bad_looks = if lost * 2 >= sent { self.bad_looks + 1 } else { 0 };
        self.bad_looks >= LOOKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bad_looks_in_a_row_are_a_failure() {
        let mut watch = Watch::new(1_000, 7);
        assert!(!watch.look(1_100, 107), "once");
        assert!(!watch.look(1_110, 117), "too few to tell");
        assert!(watch.look(1_200, 207), "twice");
    }

    #[test]
    fn drops_of_others_and_of_a_busy_moment_are_not() {
        let mut watch = Watch::new(0, 0);
        assert!(!watch.look(100, 60));
        assert!(!watch.look(200, 100), "four of ten");
        assert!(!watch.look(300, 160));
        assert!(!watch.look(300, 5_000), "nothing of ours was sent");
    }
}
