//! What is measured: a list of cases, each a test in a setting.

/// A kind of measurement that is made on one implementation after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Test {
    /// `iperf3` over TCP.
    Tcp {
        /// Parallel connections.
        streams: u8,
        /// From the resource to the client.
        reverse: bool,
    },
    /// The highest rate of 64-byte datagrams of which at most one in a hundred is lost.
    UdpSearch,
    /// 64-byte datagrams at a rate that everybody can carry.
    UdpSteady,
    /// Round trips while nothing else happens.
    PingIdle,
    /// Round trips beside one TCP connection.
    PingLoaded,
    /// Two datagrams each in many new flows.
    NewFlows,
    /// Nothing at all; how often do the programs wake up?
    Idle,
}

/// What the wire and the machines are like. Each setting has a world of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// A wire with segmentation and receive offload: super-packets cross it whole.
    Fast,
    /// The same; the client has one processor, gateway and resource the other.
    Pinned,
    /// Frames on the wire, put together again by the receiver in software.
    Gro,
    /// Frames on the wire, and nobody puts them together.
    Seg,
    /// The fast wire, and a second client that can reach the gateway through our relay alone.
    Relayed,
}

impl Setting {
    pub(super) const ALL: [Self; 5] = [Self::Fast, Self::Pinned, Self::Gro, Self::Seg, Self::Relayed];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Pinned => "fast, pinned",
            Self::Gro => "gro",
            Self::Seg => "seg",
            Self::Relayed => "fast, relayed",
        }
    }
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// Our system and all peers.
    Everybody,
    /// Our system alone.
    Ours,
    /// Our system by address and by name.
    ByName,
    /// Our system directly and over the relay.
    Relayed,
}

/// One line of the list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// Name on the command line.
    pub name: &'static str,
    /// What it measures, in a few words.
    pub description: &'static str,
    pub(super) setting: Setting,
    pub(super) test: Test,
    pub(super) field: Field,
}

impl Case {
    const fn new(name: &'static str, description: &'static str, setting: Setting, test: Test) -> Self {
        Self { name, description, setting, test, field: Field::Everybody }
    }

    const fn among(mut self, field: Field) -> Self {
        self.field = field;
        self
    }
}

const fn tcp(streams: u8, reverse: bool) -> Test {
    Test::Tcp { streams, reverse }
}

/// Every case, in the order in which they run.
pub const ALL: &[Case] = &[
    Case::new("tcp1", "one TCP connection", Setting::Fast, tcp(1, false)),
    Case::new("tcp1_reverse", "one TCP connection, downwards", Setting::Fast, tcp(1, true)),
    Case::new("tcp10", "ten TCP connections", Setting::Fast, tcp(10, false)),
    Case::new("tcp10_reverse", "ten TCP connections, downwards", Setting::Fast, tcp(10, true)),
    Case::new("udp64_pps", "most 64-byte datagrams a second at 1 % loss", Setting::Fast, Test::UdpSearch),
    Case::new(
        "udp64_us_per_packet",
        "processor time of a 64-byte datagram at 30,000 a second; reordering",
        Setting::Fast,
        Test::UdpSteady,
    ),
    Case::new("ping_loaded", "round trips beside one TCP connection", Setting::Fast, Test::PingLoaded),
    Case::new("ping_idle", "round trips on a quiet connection", Setting::Fast, Test::PingIdle),
    Case::new("new_flow", "the first datagram of a flow, and the second", Setting::Fast, Test::NewFlows)
        .among(Field::Ours),
    Case::new("idle", "wake-ups of the client on a quiet connection", Setting::Fast, Test::Idle),
    Case::new("dns_resource", "a resource by name, with port filters", Setting::Fast, tcp(1, false))
        .among(Field::ByName),
    Case::new("tcp1_pinned", "one TCP connection, one processor a side", Setting::Pinned, tcp(1, false)),
    Case::new("tcp1_gro", "one TCP connection, offload at the receiver only", Setting::Gro, tcp(1, false)),
    Case::new("tcp1_seg", "one TCP connection, no offload", Setting::Seg, tcp(1, false)),
    Case::new("relayed", "one TCP connection through our relay", Setting::Relayed, tcp(1, false))
        .among(Field::Relayed),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_setting_is_used() {
        let mut names: Vec<&str> = ALL.iter().map(|case| case.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for setting in Setting::ALL {
            assert!(ALL.iter().any(|case| case.setting == setting), "{setting:?}");
        }
    }
}
