//! From settings to running shards.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_turn::server::{Config, Limits, Server, Siblings};
use anyhow::Context as _;
use rustls::ServerConfig;

use crate::fast_path::FastPath;
use crate::identity;
use crate::settings::{Mode, Place, Settings};
use crate::shard::{Failures, Parts, Shards};
use crate::sockets::{LentPorts, Listeners};
use crate::steering::Keys;
use crate::streams::{self, Admission};

/// Under what credentials are made.
#[derive(Clone)]
pub(crate) struct Secrets {
    pub(crate) current: String,
    /// The one before; still accepted.
    pub(crate) previous: Option<String>,
}

/// Opens everything and starts the shards.
///
/// # Errors
///
/// When a port is taken, an address is not ours, or the operating system refuses.
pub(crate) fn shards(
    settings: &Settings,
    secrets: &Secrets,
    unix_now: Duration,
    certificate: Option<&Arc<ServerConfig>>,
    fast_path: &FastPath,
) -> anyhow::Result<(Shards, Failures)> {
    let place = &settings.place;
    let ports = place.ports_by_shard();
    let listeners =
        Listeners::open(place, ports.len(), steering_keys()?).context("cannot listen for clients")?;
    let stream_listeners =
        streams::open_listeners(place, ports.len()).context("cannot listen for clients")?;
    announce(place);
    let admission = Admission::new(place.stream_limits);
    let own_addresses = own_addresses(place);
    let siblings = Siblings::default();
    let mut parts = Vec::with_capacity(ports.len());
    for (index, ((ports, listeners), stream_listeners)) in
        ports.into_iter().zip(listeners).zip(stream_listeners).enumerate()
    {
        let lent = LentPorts::new(place, &ports);
        let config = Config {
            public_v4: place.public_v4(),
            public_v6: place.public_v6(),
            own_addresses: own_addresses.clone(),
            listener_port: place.port,
            ports,
            realm: "adit".to_owned(),
            secret: secrets.current.clone().into_bytes(),
            previous_secret: secrets.previous.clone().map(String::into_bytes),
            allowed_peers: settings.allowed_peers.clone(),
            announce_routes: fast_path.is_on(),
            dont_fragment: true,
            limits: share(place.limits, place.shards),
        };
        let mut server = Server::new(Instant::now(), unix_now, config, identity::random()?);
        server.join(siblings.clone());
        if matches!(settings.mode, Mode::Alone { .. }) {
            // Users of a portal run our client; anybody else's may be older than RFC 8656.
            server.accept_old_channel_numbers();
        }
        let (admission, certificate) = (admission.clone(), certificate.cloned());
        let fast_path = fast_path.of_shard(index);
        parts.push(Parts { server, listeners, lent, stream_listeners, admission, certificate, fast_path });
    }
    Shards::start(parts)
}

/// What clients cannot guess.
fn steering_keys() -> anyhow::Result<Keys> {
    let bytes: [u8; 12] = identity::random()?;
    let mut keys =
        bytes.chunks_exact(4).map(|bytes| bytes.iter().fold(0, |key, byte| key << 8 | u32::from(*byte)));
    Ok(std::array::from_fn(|_| keys.next().unwrap_or(1)))
}

/// A shard's share of the bounds. Those of allocations hold for all shards together, which know of each other's. Those of memory and of
/// replies to strangers are divided: clients, and forged ones too, spread evenly over the shards.
fn share(limits: Limits, shards: usize) -> Limits {
    let replies = limits.unauthenticated_replies.div_ceil(shards as u32);
    Limits { grants: limits.grants.div_ceil(shards), unauthenticated_replies: replies, ..limits }
}

/// The addresses of this machine, which peers must not name.
fn own_addresses(place: &Place) -> Vec<IpAddr> {
    let binds = [place.v4, place.v6].into_iter().flatten().map(|address| address.bind);
    let interfaces = nix::ifaddrs::getifaddrs();
    if let Err(error) = &interfaces {
        tracing::warn!(%error, "this machine's addresses are unknown, so peers are refused only its public and bound ones");
    }
    let interfaces = interfaces.into_iter().flatten().filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or(address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    binds.chain(interfaces).filter(|ip| !ip.is_unspecified()).collect()
}

fn announce(place: &Place) {
    for address in [place.v4, place.v6].into_iter().flatten() {
        tracing::info!(
            public = %SocketAddr::new(address.public, place.port),
            bound = %SocketAddr::new(address.bind, place.port),
            tcp_port = place.tcp_port,
            tls_port = place.tls.as_ref().map(|tls| tls.port),
            first_port = place.ports.start(),
            last_port = place.ports.end(),
            shards = place.shards,
            "listening"
        );
    }
}
