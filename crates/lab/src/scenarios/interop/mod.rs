//! Our machines against other implementations of the same protocols, on clean links.
//!
//! Each side is the real thing of its kind: Debian's `wireguard-go` and `coturn` over there, our machines in small
//! programs over here. Nothing of the portal takes part, so credentials and keys are made by the scenarios.

mod flood;
pub(super) mod ground;
mod turn;
mod turn_client;
mod turn_errors;
mod turn_servers;
mod web_rtc;
mod wireguard;
mod wireguard_bench;
mod wireguard_go;
mod wireguard_keys;
mod wireguard_peer;
mod xdp;

use std::thread;

use anyhow::{Result, anyhow};

pub(super) use turn::turn;
pub(super) use turn_errors::turn_errors;
pub(super) use web_rtc::{aiortc, chromium};
pub(super) use wireguard::wireguard;
pub(super) use xdp::xdp;

/// Calls `f` for all items at once; results in their order.
fn side_by_side<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> Result<R> + Sync) -> Vec<Result<R>> {
    thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(|| f(item))).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.map(|result| result.unwrap_or_else(|_| Err(anyhow!("a thread panicked")))).collect()
    })
}
