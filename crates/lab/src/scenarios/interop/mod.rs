//! Our machines against other implementations of the same protocols, on clean links.
//!
//! Each side is the real thing of its kind: Debian's `wireguard-go` and `coturn` over there, our machines in small
//! programs over here. Nothing of the portal takes part, so credentials and keys are made by the scenarios.

mod coturn;
mod flood;
mod ground;
mod turn;
mod turn_client;
mod wireguard;
mod wireguard_go;
mod wireguard_keys;
mod wireguard_peer;

pub(super) use turn::turn;
pub(super) use wireguard::wireguard;
