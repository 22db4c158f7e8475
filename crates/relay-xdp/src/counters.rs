//! What the program counted, on all processors together.

/// Directions of forwarded data, in the order in which the program counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From a client to its peer.
    ToPeer,
    /// From a peer to a client.
    ToClient,
    /// From one client of this relay to another one.
    WithinRelay,
}

impl Direction {
    /// Every direction, in the order of [`Counters::forwarded`].
    pub const ALL: [Self; 3] = [Self::ToPeer, Self::ToClient, Self::WithinRelay];

    /// A short name, fit as a metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToPeer => "to_peer",
            Self::ToClient => "to_client",
            Self::WithinRelay => "within_relay",
        }
    }
}

/// Why a frame for the relay was left to its sockets. Nothing is lost by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassReason {
    /// STUN, or anything else at the listener that is not ChannelData.
    Control,
    /// An IPv4 header with options, or IPv6 extension headers.
    IpOptions,
    /// Part of a packet.
    Fragment,
    /// Lengths that contradict each other.
    BadLength,
    /// An IPv4 header with a wrong checksum; the kernel drops it.
    BadChecksum,
    /// The sender leaves the UDP checksum to the interface, or the frame is a super-packet.
    UnfinishedChecksum,
    /// No UDP checksum where IPv6 wants one.
    NoChecksum,
    /// A hop limit (TTL) of one or less.
    HopLimit,
    /// No channel is bound, or it did not fit into the table.
    NoRoute,
    /// The relayed port was taken back since.
    StaleRoute,
    /// The relay has not been heard of for some seconds.
    NoLease,
    /// The kernel knows no route or no neighbour.
    NoNextHop,
    /// The way leads over another interface than the one the frame came from.
    OtherInterface,
    /// The frame is for another station on the wire.
    OtherStation,
    /// It would not fit the way.
    TooLong,
    /// The driver left no room in front of the frame.
    NoHeadroom,
    /// Sent up once in a while, so that the kernel confirms its neighbour.
    Confirmation,
}

impl PassReason {
    /// Every reason, in the order of [`Counters::passed`].
    pub const ALL: [Self; 17] = [
        Self::Control,
        Self::IpOptions,
        Self::Fragment,
        Self::BadLength,
        Self::BadChecksum,
        Self::UnfinishedChecksum,
        Self::NoChecksum,
        Self::HopLimit,
        Self::NoRoute,
        Self::StaleRoute,
        Self::NoLease,
        Self::NoNextHop,
        Self::OtherInterface,
        Self::OtherStation,
        Self::TooLong,
        Self::NoHeadroom,
        Self::Confirmation,
    ];

    /// A short name, fit as a metric label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::IpOptions => "ip_options",
            Self::Fragment => "fragment",
            Self::BadLength => "bad_length",
            Self::BadChecksum => "bad_checksum",
            Self::UnfinishedChecksum => "unfinished_checksum",
            Self::NoChecksum => "no_checksum",
            Self::HopLimit => "hop_limit",
            Self::NoRoute => "no_route",
            Self::StaleRoute => "stale_route",
            Self::NoLease => "no_lease",
            Self::NoNextHop => "no_next_hop",
            Self::OtherInterface => "other_interface",
            Self::OtherStation => "other_station",
            Self::TooLong => "too_long",
            Self::NoHeadroom => "no_headroom",
            Self::Confirmation => "confirmation",
        }
    }
}

const DIRECTIONS: usize = Direction::ALL.len();
const REASONS: usize = PassReason::ALL.len();

/// Bytes of one processor's counters.
#[cfg(feature = "program")]
pub(crate) const BYTES: usize = 8 * (2 * DIRECTIONS + REASONS);

/// Counts since the program was attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets and bytes of data, indexed as [`Direction::ALL`].
    pub forwarded: [(u64, u64); DIRECTIONS],
    /// Frames left to the sockets, indexed as [`PassReason::ALL`].
    pub passed: [u64; REASONS],
}

impl Counters {
    /// Packets and bytes of data forwarded in a direction.
    pub fn forwarded(&self, direction: Direction) -> (u64, u64) {
        self.forwarded[direction as usize]
    }

    /// Packets forwarded in all directions.
    pub fn packets(&self) -> u64 {
        self.forwarded.iter().map(|(packets, _)| packets).sum()
    }

    /// Frames left to the sockets for a reason.
    pub fn passed(&self, reason: PassReason) -> u64 {
        self.passed[reason as usize]
    }

    /// Adds one processor's counters.
    #[cfg(feature = "program")]
    pub(crate) fn add(&mut self, bytes: &[u8; BYTES]) {
        let mut words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word));
        let mut next = || words.next().unwrap_or(0);
        for (packets, _) in &mut self.forwarded {
            *packets = packets.wrapping_add(next());
        }
        for (_, bytes) in &mut self.forwarded {
            *bytes = bytes.wrapping_add(next());
        }
        for count in &mut self.passed {
            *count = count.wrapping_add(next());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_directions_are_their_own_index() {
        for (index, reason) in PassReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{reason:?}");
        }
        for (index, direction) in Direction::ALL.into_iter().enumerate() {
            assert_eq!(direction as usize, index, "{direction:?}");
        }
    }

    #[cfg(feature = "program")]
    #[test]
    fn processors_add_up() {
        let words: Vec<u8> = (1..=23_u64).flat_map(u64::to_ne_bytes).collect();
        let bytes: [u8; BYTES] = words.try_into().expect("23 words");
        let mut counters = Counters::default();
        counters.add(&bytes);
        counters.add(&bytes);
        assert_eq!(counters.forwarded(Direction::ToPeer), (2, 8));
        assert_eq!(counters.forwarded(Direction::WithinRelay), (6, 12));
        assert_eq!(counters.packets(), 12);
        assert_eq!(counters.passed(PassReason::Control), 14);
        assert_eq!(counters.passed(PassReason::Confirmation), 46);
    }
}
