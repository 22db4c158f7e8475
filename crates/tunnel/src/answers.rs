//! ICMP errors in answer to packets that go no further, never more than a receiver can use.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use adit_packet::{IcmpError, PacketView, icmp_error};

use crate::token_bucket::TokenBucket;

/// Errors at once and per second (RFC 1812, 4.3.2.8 and RFC 4443, 2.4(f) ask for such a limit).
const BURST: u32 = 50;
const INTERVAL: Duration = Duration::from_millis(20);

/// Makes ICMP errors that one receiver gets.
#[derive(Debug)]
pub(crate) struct Answers {
    limit: TokenBucket,
}

impl Answers {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { limit: TokenBucket::new(now, BURST, INTERVAL) }
    }

    /// The error that tells the sender of `packet`, or nothing if standards or the limit demand silence.
    ///
    /// `own` are the addresses that speak, one of each family.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        error: IcmpError,
        own: (Ipv4Addr, Ipv6Addr),
        packet: &[u8],
        view: &PacketView,
    ) -> Option<Vec<u8>> {
        let own = if view.is_ipv4() { own.0.into() } else { own.1.into() };
        let error = icmp_error(error, own, packet, view).ok()?;
        self.limit.take(now).then_some(error)
    }
}
