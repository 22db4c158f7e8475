//! What is measured of relays.

use super::contestant::Contestant;

/// Datagrams of a train, and bytes of payload of each: what a tunnel that sends with segmentation offload delivers.
pub(super) const TRAIN: usize = 16;
pub(super) const TRAIN_SIZE: usize = 1_200;

/// Bytes of a datagram that travels alone, such as voice.
pub(super) const SINGLE_SIZE: usize = 160;

/// A kind of measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// Processor time for trains at a rate that everybody can carry, over so many flows.
    Bursts(u16),
    /// The highest rate of trains of which at most one datagram in a hundred is lost.
    BurstRate,
    /// Processor time for single datagrams at a rate that everybody can carry.
    Singles,
    /// The same, with the kernel's work on the relay's machine counted too.
    SinglesWithKernel,
    /// One-way times of trains at half the rate that Debian's coturn carries.
    Latency,
    /// Allocations, each with a channel, as fast as the relay answers.
    Allocations,
    /// Memory of ten thousand of them.
    Memory,
    /// A million requests of strangers.
    Flood,
    /// What comes back for the bytes of a stranger.
    Amplification,
}

/// One line of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Name on the command line.
    pub name: &'static str,
    /// What it measures, in a few words.
    pub description: &'static str,
    pub(super) test: Test,
}

const fn case(name: &'static str, description: &'static str, test: Test) -> Case {
    Case { name, description, test }
}

/// Every case, in the order in which they run.
pub const ALL: &[Case] = &[
    case("bursts_1", "processor time of trains, one flow", Test::Bursts(1)),
    case("bursts_10", "processor time of trains, ten flows", Test::Bursts(10)),
    case("bursts_1000", "processor time of trains, a thousand flows", Test::Bursts(1_000)),
    case("bursts_pps", "most datagrams a second in trains at 1 % loss", Test::BurstRate),
    case("single", "processor time of single datagrams of 160 bytes", Test::Singles),
    case("xdp", "the same with the kernel's work, for XDP", Test::SinglesWithKernel),
    case("latency", "added one-way time at half of coturn's rate", Test::Latency),
    case("allocations", "allocations with a channel, a second", Test::Allocations),
    case("memory", "memory of an allocation", Test::Memory),
    case("flood", "growth of memory by a million strangers", Test::Flood),
    case("amplification", "bytes that come back for a stranger's byte", Test::Amplification),
];

impl Test {
    /// Whether one look, at the very end, says all: later rounds would find what the first has left. (coturn keeps a
    /// million strangers, in five gigabytes.)
    pub(super) const fn is_made_once(self) -> bool {
        matches!(self, Self::Memory | Self::Flood | Self::Amplification)
    }

    /// Whether this contestant takes part.
    pub(super) fn is_for(self, contestant: Contestant) -> bool {
        use Contestant::{Adit, AditXdp, Coturn, CoturnGso, Direct, Rod};
        match self {
            Self::Bursts(_) | Self::BurstRate | Self::Singles => {
                matches!(contestant, Adit | Coturn | CoturnGso | Rod)
            }
            Self::SinglesWithKernel => matches!(contestant, Adit | AditXdp | Coturn),
            Self::Latency => matches!(contestant, Adit | Coturn | Rod | Direct),
            Self::Allocations => matches!(contestant, Adit | Coturn | CoturnGso),
            Self::Memory | Self::Flood | Self::Amplification => matches!(contestant, Adit | Coturn),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ALL.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }

    #[test]
    fn every_case_has_our_relay_and_debians_coturn() {
        for case in ALL {
            assert!(
                case.test.is_for(Contestant::Adit) && case.test.is_for(Contestant::Coturn),
                "{}",
                case.name
            );
        }
    }
}
