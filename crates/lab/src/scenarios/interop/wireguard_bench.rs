//! The bench for WireGuard: two machines with keys, our peer on one of them and `wireguard-go` on the other.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::ground::{Ground, Machine};
use super::wireguard_go::{Peer, WireguardGo};
use super::wireguard_keys::{self, KeyPair};
use super::wireguard_peer::{Setup, WireguardPeer};
use crate::scenario::Context;
use crate::system::StateDir;

/// Ports on which both sides listen outside.
pub(super) const OUR_PORT: u16 = 51_820;
pub(super) const THEIR_PORT: u16 = 51_821;

/// Addresses inside: ours end in 1, theirs in 2.
pub(super) const OUR_V4: &str = "10.77.0.1";
pub(super) const THEIR_V4: &str = "10.77.0.2";
pub(super) const OUR_V6: &str = "fd77::1";
pub(super) const THEIR_V6: &str = "fd77::2";

/// Two machines and everybody's keys.
pub(super) struct Bench {
    pub(super) state: StateDir,
    pub(super) our_keys: KeyPair,
    their_keys: KeyPair,
    pub(super) preshared_key: PathBuf,
    ground: Ground<2>,
}

/// Both sides, running.
pub(super) struct Pair {
    pub(super) ours: WireguardPeer,
    pub(super) theirs: WireguardGo,
}

/// Who knows where the other is, and the preshared key of each.
pub(super) struct Acquaintance<'a> {
    pub(super) our_endpoint: Option<SocketAddr>,
    pub(super) their_endpoint: Option<SocketAddr>,
    pub(super) our_preshared_key: Option<&'a Path>,
    pub(super) their_preshared_key: Option<&'a Path>,
}

impl Bench {
    pub(super) fn raise(context: &Context) -> Result<Self> {
        let state = StateDir::create()?;
        Ok(Self {
            our_keys: KeyPair::generate(&state, "ours")?,
            their_keys: KeyPair::generate(&state, "theirs")?,
            preshared_key: wireguard_keys::preshared_key(&state, "both")?,
            ground: Ground::raise(["ours", "theirs"], context.log_dir())?,
            state,
        })
    }

    pub(super) const fn ours(&self) -> &Machine {
        &self.ground.machines[0]
    }

    pub(super) const fn theirs(&self) -> &Machine {
        &self.ground.machines[1]
    }

    pub(super) fn start_theirs(&self, acquaintance: &Acquaintance<'_>) -> Result<WireguardGo> {
        let peer = Peer {
            public_key: &self.our_keys.public,
            preshared_key: acquaintance.their_preshared_key,
            allowed: &format!("{OUR_V4}/32,{OUR_V6}/128"),
            endpoint: acquaintance.our_endpoint,
        };
        let addresses = [format!("{THEIR_V4}/24"), format!("{THEIR_V6}/64")];
        WireguardGo::start(&self.theirs().host, &self.their_keys.private, THEIR_PORT, &addresses, &peer)
    }

    pub(super) fn start(&self, acquaintance: &Acquaintance<'_>, context: &Context) -> Result<Pair> {
        let theirs = self.start_theirs(acquaintance)?;
        Ok(Pair { ours: self.start_ours(acquaintance, context)?, theirs })
    }

    /// We speak the family of the endpoint known to either side.
    pub(super) fn start_ours(
        &self,
        acquaintance: &Acquaintance<'_>,
        context: &Context,
    ) -> Result<WireguardPeer> {
        let known = acquaintance.their_endpoint.or(acquaintance.our_endpoint);
        let is_v4 = known.is_some_and(|endpoint| endpoint.is_ipv4());
        let setup = Setup {
            private_key: &self.our_keys.private,
            peer: &self.their_keys.public,
            preshared_key: acquaintance.our_preshared_key,
            listen: if is_v4 { ([0; 4], OUR_PORT).into() } else { ([0_u16; 8], OUR_PORT).into() },
            endpoint: acquaintance.their_endpoint,
            addresses: &[format!("{OUR_V4}/24"), format!("{OUR_V6}/64")],
        };
        WireguardPeer::start(&self.ours().host, &context.programs, &setup)
    }
}

impl Pair {
    /// Ends both; nothing was refused on the way, and there were that many handshakes.
    pub(super) fn stop(self, handshakes: u64) -> Result<()> {
        let totals = self.ours.stop()?;
        ensure!(totals.drops.is_empty() && totals.malformed == 0, "{totals:?}");
        ensure!(totals.handshakes == handshakes, "not {handshakes} handshakes: {totals:?}");
        ensure!(totals.received > 0, "{totals:?}");
        self.theirs.stop().map(drop)
    }
}
