//! How many packets without a flow somebody may hand to the control thread.
//!
//! A scan of a network makes a new flow with every packet. The control thread looks at each, so one peer that scans
//! would keep it from everybody else's first packets. What is beyond the allowance is dropped in the worker, where it
//! costs little.

/// Tokens that come back with time.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    /// Thousandths of a token, so that whole milliseconds give back exactly what they should.
    left: u64,
    at: u64,
    per_second: u64,
    burst: u64,
}

impl Allowance {
    /// For one peer: more than a person's device needs when everything starts at once.
    pub(crate) const fn of_peer() -> Self {
        Self::new(1_000, 512)
    }

    /// For all that comes from the TUN device.
    pub(crate) const fn of_device() -> Self {
        Self::new(8_000, 1_024)
    }

    const fn new(per_second: u64, burst: u64) -> Self {
        Self { left: burst * 1_000, at: 0, per_second, burst }
    }

    /// Takes one token, if there is one; `now` is in milliseconds.
    pub(crate) fn take(&mut self, now: u64) -> bool {
        let gained = now.saturating_sub(self.at).saturating_mul(self.per_second);
        self.left = self.left.saturating_add(gained).min(self.burst * 1_000);
        self.at = now;
        let is_left = self.left >= 1_000;
        if is_left {
            self.left -= 1_000;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_rate() {
        let mut allowance = Allowance::new(1_000, 512);
        assert_eq!((0..2_000).filter(|_| allowance.take(5)).count(), 512);
        let during_a_second = (6..1_006).flat_map(|now| [now; 3]).filter(|now| allowance.take(*now)).count();
        assert_eq!(during_a_second, 1_000);
        assert_eq!((0..2_000).filter(|_| allowance.take(3_600_000)).count(), 512);
    }
}
