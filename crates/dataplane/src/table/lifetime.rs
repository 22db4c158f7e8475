//! How long a flow lives without packets.
//!
//! TCP is followed just far enough to tell an open connection from one that is opening or
//! over. Sequence numbers are not checked: packets are authentic where they come from peers,
//! and the ends check the rest.

use std::time::Duration;

use adit_packet::{TcpFlags, protocol};

/// An open TCP connection (RFC 5382, REQ-5 asks for 2 h 4 min or more of a NAT in the open
/// Internet; here a flow that ends costs one miss).
const ESTABLISHED: Duration = Duration::from_secs(2 * 60 * 60);
/// A TCP connection that is opening, or closed from one side (RFC 5382, REQ-5).
const TRANSITORY: Duration = Duration::from_secs(4 * 60);
/// A TCP connection that was reset or closed from both sides: time for the last packets.
const CLOSED: Duration = Duration::from_secs(10);
/// UDP, ICMP echo and everything else (RFC 4787, REQ-5).
const DATAGRAMS: Duration = Duration::from_secs(2 * 60);

/// Bits per direction, forward then reverse.
const DATA: [u8; 2] = [1, 2];
const FIN: [u8; 2] = [4, 8];
const RESET: u8 = 16;

/// What was seen of a TCP connection; stays zero for other protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Connection(u8);

impl Connection {
    /// Nothing seen yet.
    #[cfg(test)]
    pub(crate) const NEW: Self = Self(0);

    /// All that was seen, in five bits.
    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    /// What [`bits`](Self::bits) gave.
    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Notes the flags of one packet.
    pub(crate) fn note(&mut self, flags: TcpFlags, reply: bool) {
        let direction = usize::from(reply);
        if flags.opens_connection() {
            // The ports are used again after the connection before was over.
            if self.is_over() {
                self.0 = 0;
            }
            return;
        }
        self.0 |= DATA[direction];
        if flags.contains(TcpFlags::FIN) {
            self.0 |= FIN[direction];
        }
        if flags.contains(TcpFlags::RST) {
            self.0 |= RESET;
        }
    }

    /// Reset, or closed from both sides.
    pub(crate) const fn is_over(self) -> bool {
        self.0 & RESET != 0 || self.0 & (FIN[0] | FIN[1]) == FIN[0] | FIN[1]
    }

    /// Reset, or closed from at least one side.
    pub(crate) const fn is_closing(self) -> bool {
        self.0 & (FIN[0] | FIN[1] | RESET) != 0
    }

    const fn is_established(self) -> bool {
        self.0 & (DATA[0] | DATA[1]) == DATA[0] | DATA[1]
    }

    /// How long the flow lives after its last packet.
    pub(crate) const fn lifetime(self, protocol: u8) -> Duration {
        if protocol != protocol::TCP {
            DATAGRAMS
        } else if self.is_over() {
            CLOSED
        } else if self.is_closing() || !self.is_established() {
            TRANSITORY
        } else {
            ESTABLISHED
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: TcpFlags = TcpFlags::SYN;
    const SYN_ACK: TcpFlags = TcpFlags(0x12);
    const ACK: TcpFlags = TcpFlags::ACK;
    const FIN_ACK: TcpFlags = TcpFlags(0x11);
    const RST: TcpFlags = TcpFlags::RST;

    fn after(packets: &[(TcpFlags, bool)]) -> Duration {
        let mut connection = Connection::NEW;
        for (flags, reply) in packets {
            connection.note(*flags, *reply);
        }
        connection.lifetime(protocol::TCP)
    }

    #[test]
    fn tcp_lives_by_its_state() {
        let open = [(SYN, false), (SYN_ACK, true), (ACK, false)];
        assert_eq!(after(&open[..1]), TRANSITORY);
        assert_eq!(after(&open[..2]), TRANSITORY);
        assert_eq!(after(&open), ESTABLISHED);
        assert_eq!(after(&open[1..]), ESTABLISHED, "the first packet takes the slow path");
        let with = |more: &[(TcpFlags, bool)]| after(&[&open, more].concat());
        assert_eq!(with(&[(FIN_ACK, true)]), TRANSITORY);
        assert_eq!(with(&[(FIN_ACK, true), (FIN_ACK, false), (ACK, true)]), CLOSED);
        assert_eq!(with(&[(RST, true)]), CLOSED);
        assert_eq!(with(&[(RST, true), (SYN, false)]), TRANSITORY, "a new connection");
        assert_eq!(with(&[(SYN, false)]), ESTABLISHED, "a stray SYN changes nothing");
        assert_eq!(Connection::NEW.lifetime(protocol::UDP), DATAGRAMS);
    }
}
