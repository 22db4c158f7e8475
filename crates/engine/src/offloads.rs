//! Which of the kernel's offloads to use.
//!
//! Everything that a kernel lacks is done without, and noticed without being told. A switch is for kernels and drivers
//! that promise what they do not keep, and for tests of doing without.

use std::str::FromStr;

use adit_platform::tun::Offload;

/// An offload that can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffloadKind {
    /// Super-packets from and to the tunnel interface, of any protocol.
    Tun,
    /// Super-packets of UDP from and to the tunnel interface.
    TunUdp,
    /// Several datagrams in one call to send.
    UdpSend,
    /// Several datagrams in one received.
    UdpReceive,
}

/// Not the name of an offload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no offload `{0}`; there are tun, tun-udp, udp-send and udp-receive")]
pub struct UnknownOffload(String);

impl FromStr for OffloadKind {
    type Err = UnknownOffload;

    fn from_str(name: &str) -> Result<Self, UnknownOffload> {
        match name {
            "tun" => Ok(Self::Tun),
            "tun-udp" => Ok(Self::TunUdp),
            "udp-send" => Ok(Self::UdpSend),
            "udp-receive" => Ok(Self::UdpReceive),
            other => Err(UnknownOffload(other.to_owned())),
        }
    }
}

/// The offloads to use where there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    pub(crate) tun: Offload,
    pub(crate) udp_send: bool,
    pub(crate) udp_receive: bool,
}

impl Default for Offloads {
    fn default() -> Self {
        Self { tun: Offload::TcpAndUdp, udp_send: true, udp_receive: true }
    }
}

impl Offloads {
    /// All but these.
    #[must_use]
    pub fn without(kinds: &[OffloadKind]) -> Self {
        let has = |kind| !kinds.contains(&kind);
        let tun = match (has(OffloadKind::Tun), has(OffloadKind::TunUdp)) {
            (true, true) => Offload::TcpAndUdp,
            (true, false) => Offload::Tcp,
            (false, _) => Offload::None,
        };
        Self { tun, udp_send: has(OffloadKind::UdpSend), udp_receive: has(OffloadKind::UdpReceive) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_left_out() {
        assert_eq!(Offloads::without(&[]), Offloads::default());
        let kinds = ["tun-udp", "udp-send"].map(|name| name.parse().unwrap());
        let offloads = Offloads { tun: Offload::Tcp, udp_send: false, udp_receive: true };
        assert_eq!(Offloads::without(&kinds), offloads);
        assert_eq!(Offloads::without(&[OffloadKind::Tun, OffloadKind::TunUdp]).tun, Offload::None);
        assert!("gso".parse::<OffloadKind>().unwrap_err().to_string().contains("udp-receive"));
    }
}
