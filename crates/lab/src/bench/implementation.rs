//! Who is measured: our system and the others that carry packets over the same wire.

/// Something that carries packets from the client to the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Implementation {
    /// Our system, its resource reached by address.
    Adit,
    /// Our system, its resource reached by name and behind port filters.
    AditByName,
    /// Our system where only our relay can carry it.
    AditRelayed,
    /// No tunnel: the kernel forwards.
    Raw,
    /// `wireguard-go`.
    WireguardGo,
    /// `gotatun`.
    Gotatun,
    /// `boringtun-cli`.
    Boringtun,
    /// `nebula`.
    Nebula,
    /// The bare packet path without handshake, policy or timers: how far one can go.
    Rod,
    /// The same, without encryption.
    RodWithoutCrypto,
}

impl Implementation {
    /// All but our own system, in the order in which they are shown.
    pub const PEERS: [Self; 7] = [
        Self::Raw,
        Self::WireguardGo,
        Self::Gotatun,
        Self::Boringtun,
        Self::Nebula,
        Self::Rod,
        Self::RodWithoutCrypto,
    ];

    /// The products that we compete with.
    pub const FIELD: [Self; 4] = [Self::WireguardGo, Self::Gotatun, Self::Boringtun, Self::Nebula];

    /// Name on the command line and in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Adit => "adit",
            Self::AditByName => "adit-by-name",
            Self::AditRelayed => "adit-relayed",
            Self::Raw => "raw",
            Self::WireguardGo => "wireguard-go",
            Self::Gotatun => "gotatun",
            Self::Boringtun => "boringtun",
            Self::Nebula => "nebula",
            Self::Rod => "rod",
            Self::RodWithoutCrypto => "rod-no-crypto",
        }
    }

    /// The peer of this name.
    pub fn peer(name: &str) -> Option<Self> {
        Self::PEERS.into_iter().find(|peer| peer.name() == name)
    }

    /// Whether it is our system.
    pub const fn is_ours(self) -> bool {
        matches!(self, Self::Adit | Self::AditByName | Self::AditRelayed)
    }

    /// A small number of its own, for addresses and ports.
    pub(super) const fn number(self) -> u8 {
        10 + self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_found_by_name_and_our_system_is_none() {
        for peer in Implementation::PEERS {
            assert_eq!(Implementation::peer(peer.name()), Some(peer));
            assert!(!peer.is_ours());
        }
        assert_eq!(Implementation::peer("adit"), None);
    }
}
