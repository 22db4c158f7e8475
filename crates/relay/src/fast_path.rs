//! Routes of the machine on their way into the kernel ([`adit_relay_xdp`]), and the decision whether there is such a way at all.
//!
//! Shards tell it of routes that come and go; the control thread renews the program's lease and publishes what it counted. Everything also
//! works without it, so after the start nothing here fails: a route that the kernel does not take is served by the sockets, and counted.

pub(crate) mod choice;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adit_relay_xdp::{Counters, Direction, Engine, InsertError, Mode, PassReason};
use adit_turn::Family;
use adit_turn::server::{RelayPort, Route};
use anyhow::Context as _;
use metrics::{counter, gauge};

use crate::settings::Place;

/// How often the program's lease is renewed.
pub(crate) const RENEWAL: Duration = Duration::from_secs(1);

/// Bits of a route's name that say which shard's it is; the machine's own number has the others.
const SHARD_SHIFT: u32 = 48;

/// The way into the kernel, if there is one; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FastPath {
    on: Option<On>,
    shard: u64,
}

#[derive(Clone, Debug)]
struct On {
    engine: Engine,
    mode: Mode,
    refused: Arc<Refused>,
}

/// Routes that the kernel did not take.
#[derive(Debug, Default)]
struct Refused {
    full: AtomicU64,
    unroutable: AtomicU64,
    failed: AtomicU64,
}

impl FastPath {
    /// Attaches the program as the settings say.
    ///
    /// # Errors
    ///
    /// When a certain mode was asked for and cannot be had. `auto` and `off` never fail.
    pub(crate) fn start(place: &Place) -> anyhow::Result<Self> {
        let Some((mode, is_certain)) = choice::wanted(place.xdp.mode) else { return Ok(Self::default()) };
        let attached = choice::choose(place, mode, is_certain)
            .and_then(|config| Ok((Engine::attach(&config)?, config.interfaces)));
        match attached {
            Ok((engine, interfaces)) => {
                tracing::info!(%mode, interfaces = interfaces.join(","), "XDP is on");
                Ok(Self { on: Some(On { engine, mode, refused: Arc::default() }), shard: 0 })
            }
            Err(error) if is_certain => Err(error).with_context(|| format!("--xdp {mode}")),
            Err(error) => {
                tracing::info!(reason = format!("{error:#}"), "XDP is off");
                Ok(Self::default())
            }
        }
    }

    /// Whether the machine should tell of routes.
    pub(crate) fn is_on(&self) -> bool {
        self.on.is_some()
    }

    /// The same for one shard, whose machine numbers its routes by itself.
    pub(crate) fn of_shard(&self, number: usize) -> Self {
        Self { on: self.on.clone(), shard: number as u64 }
    }

    /// A route has come up.
    pub(crate) fn add(&self, route: &Route) {
        let Some(on) = &self.on else { return };
        let refused = match on.engine.insert(&self.named(route)) {
            Ok(()) | Err(InsertError::Detached) => return,
            Err(InsertError::Full) => &on.refused.full,
            Err(InsertError::Unroutable(_)) => &on.refused.unroutable,
            Err(InsertError::Kernel(reason)) => {
                tracing::debug!(reason, "the kernel does not take a route");
                &on.refused.failed
            }
        };
        refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A route is over.
    pub(crate) fn remove(&self, route: &Route) {
        if let Some(on) = &self.on {
            on.engine.remove(&self.named(route));
        }
    }

    /// A port is taken back: its routes end at once, whatever became of them.
    pub(crate) fn release(&self, port: RelayPort) {
        if let Some(on) = &self.on {
            on.engine.release_port(port.family == Family::V6, port.number);
        }
    }

    /// Lets the program go on for some seconds. To be called every [`RENEWAL`], and only while all shards live: one that stands still ends
    /// no route.
    pub(crate) fn renew(&mut self) {
        if self.on.as_ref().is_some_and(|on| !on.engine.renew_lease()) {
            tracing::warn!("XDP is off: the interface loses what the program sends");
            self.on = None;
        }
    }

    /// Publishes what the program counted.
    pub(crate) fn publish(&self) {
        let is_on = |mode: Mode| f64::from(u8::from(self.on.as_ref().is_some_and(|on| on.mode == mode)));
        for mode in [Mode::Driver, Mode::Generic] {
            gauge!("adit_relay_xdp_attached", "mode" => mode.to_string()).set(is_on(mode));
        }
        let Some(on) = &self.on else { return };
        gauge!("adit_relay_xdp_routes").set(f64::from(on.engine.routes()));
        let counters = on.engine.counters();
        publish_forwarded(&counters);
        for reason in PassReason::ALL {
            counter!("adit_relay_xdp_passed_total", "reason" => reason.name())
                .absolute(counters.passed(reason));
        }
        let Refused { full, unroutable, failed } = &*on.refused;
        for (reason, count) in [("full", full), ("unroutable", unroutable), ("kernel", failed)] {
            counter!("adit_relay_xdp_refused_routes_total", "reason" => reason)
                .absolute(count.load(Ordering::Relaxed));
        }
    }

    fn named(&self, route: &Route) -> adit_relay_xdp::Route {
        adit_relay_xdp::Route {
            name: self.shard << SHARD_SHIFT | route.generation & ((1 << SHARD_SHIFT) - 1),
            client: route.client,
            channel: route.channel,
            port: route.port.number,
            peer: route.peer,
            is_within_relay: route.is_within_relay,
        }
    }
}

/// As data of the relay on one more path. What goes from client to client within the relay counts in both directions, as it does when the
/// relay carries it.
fn publish_forwarded(counters: &Counters) {
    let (within, within_bytes) = counters.forwarded(Direction::WithinRelay);
    counter!("adit_relay_xdp_within_relay_packets_total").absolute(within);
    for (name, direction) in [("to_peer", Direction::ToPeer), ("to_client", Direction::ToClient)] {
        let (packets, bytes) = counters.forwarded(direction);
        counter!("adit_relay_forwarded_packets_total", "direction" => name, "path" => "xdp")
            .absolute(packets + within);
        counter!("adit_relay_forwarded_bytes_total", "direction" => name, "path" => "xdp")
            .absolute(bytes + within_bytes);
    }
}
