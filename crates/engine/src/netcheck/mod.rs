//! What the network lets through: to each relay over UDP, TCP and TLS, and to the portal.
//!
//! Nothing here changes anything, and nothing needs credentials: relays answer STUN Binding requests (RFC 8489, 6) of
//! anybody. All sockets stay out of the tunnel, so that the answers are the network's own.
//!
//! What is found besides who answers: the address that relays see, whether that differs from relay to relay (RFC 4787,
//! 4.1: mappings that depend on the other end make direct connections rare), how large a packet gets to a relay whole,
//! whether routers on the way say so, and how far this clock is from the portal's.
//!
//! Deliberately absent: how a NAT filters (RFC 5780 needs a server with two addresses), and speed.

mod portal;
mod tcp;
mod udp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_policy::RelayId;
use adit_protocol::{RelayAccess, RelayTls};
use anyhow::Context as _;

use crate::PortalConfig;
use crate::dial::MarkedDial;
use crate::streams::tls_refusal;
use udp::Probed;

/// How long one connection may take, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// Relays that are looked at; the portal names a few.
const MOST_RELAYS: usize = 16;

/// Where a relay is: what the portal says of it less the secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayPlace {
    /// Names it.
    pub id: RelayId,
    /// Its listeners, one for each address family it has.
    pub addresses: Vec<SocketAddr>,
    /// Port of its TCP listeners, if it has them.
    pub tcp_port: Option<u16>,
    /// Its TLS listeners, if it has them.
    pub tls: Option<RelayTls>,
}

impl From<&RelayAccess> for RelayPlace {
    fn from(access: &RelayAccess) -> Self {
        Self {
            id: access.id,
            addresses: access.ipv4.into_iter().chain(access.ipv6).collect(),
            tcp_port: access.tcp_port,
            tls: access.tls.clone(),
        }
    }
}

/// How an attempt went: how long it took, or why it failed.
pub type Attempt = Result<Duration, AttemptFailure>;

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct AttemptFailure {
    /// For programs.
    pub kind: FailureKind,
    /// For people.
    pub detail: String,
}

/// What sort of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// Somebody said no.
    Refused,
    /// Nobody said anything in time.
    NoAnswer,
    /// There is no way there.
    Unreachable,
    /// Whoever answered could not prove who it is.
    Certificate,
    /// Anything else.
    Other,
}

/// What was found. See [`check`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkReport {
    /// Whether the portal answers over HTTPS.
    pub portal: Attempt,
    /// How far this host's clock is ahead of the portal's, in milliseconds and to the second, if it answered.
    pub clock_ahead_ms: Option<i64>,
    /// Every address of every relay.
    pub relays: Vec<RelayReport>,
    /// IPv4 seen from relays; nothing if no relay was asked over it.
    pub ipv4: Option<FamilyReport>,
    /// IPv6 seen from relays; nothing if no relay was asked over it.
    pub ipv6: Option<FamilyReport>,
}

/// How one address of a relay is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayReport {
    /// The relay.
    pub relay: RelayId,
    /// Its address, with the port for UDP.
    pub address: SocketAddr,
    /// Over UDP.
    pub udp: Attempt,
    /// Over TCP, if it listens there.
    pub tcp: Option<Attempt>,
    /// Over TLS, if it listens there.
    pub tls: Option<Attempt>,
}

/// How one address family looks from outside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FamilyReport {
    /// The address that a relay saw.
    pub public: Option<SocketAddr>,
    /// Whether it depends on who looks, as far as that could be seen.
    pub mapping: Option<Mapping>,
    /// The largest packet that got to a relay whole.
    pub path_mtu: Option<PathMtu>,
}

/// How addresses are translated on the way (RFC 4787, 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapping {
    /// Not at all.
    None,
    /// Every relay sees the same.
    Independent,
    /// Relays see different addresses or ports.
    Dependent,
}

/// How large packets may be on the way to a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathMtu {
    /// The largest packet that was answered, in bytes with its IP header; of a few usual sizes.
    pub bytes: u16,
    /// Whether larger ones vanished although nothing told this host.
    pub is_silent: bool,
}

/// Looks at everything, within about ten seconds.
///
/// `mark` keeps the sockets out of the tunnel. Needs a runtime.
///
/// # Errors
///
/// When the CA is none, or the thread for UDP failed. What the network refuses is in the report.
pub async fn check(
    config: &PortalConfig,
    relays: &[RelayPlace],
    mark: Option<u32>,
) -> anyhow::Result<NetworkReport> {
    let dial = MarkedDial { mark };
    let trusted = config.trusted()?;
    let mut places: Vec<(&RelayPlace, SocketAddr)> = relays
        .iter()
        .take(MOST_RELAYS)
        .flat_map(|relay| relay.addresses.iter().map(move |address| (relay, *address)))
        .collect();
    places.sort_by_key(|(_, address)| address.is_ipv6());
    let (v4, v6): (Vec<_>, Vec<_>) =
        places.iter().map(|(_, address)| *address).partition(SocketAddr::is_ipv4);
    let udp = tokio::task::spawn_blocking(move || (udp::probe(&v4, mark), udp::probe(&v6, mark)));
    let streams = futures_util::future::join_all(
        places.iter().map(|(relay, at)| tcp::probe(dial, &trusted, relay, *at)),
    );
    let (portal, streams, udp) = tokio::join!(portal::probe(dial, &trusted, config), streams, udp);
    let (v4, v6) = udp.context("the thread for UDP failed")?;
    let (portal, clock_ahead_ms) = portal;
    let answers = v4.attempts.iter().chain(&v6.attempts).cloned();
    let relays = places
        .iter()
        .zip(answers)
        .zip(streams)
        .map(|(((relay, address), udp), (tcp, tls))| RelayReport {
            relay: relay.id,
            address: *address,
            udp,
            tcp,
            tls,
        })
        .collect();
    Ok(NetworkReport { portal, clock_ahead_ms, relays, ipv4: family(v4), ipv6: family(v6) })
}

fn family(probed: Probed) -> Option<FamilyReport> {
    (!probed.attempts.is_empty()).then_some(probed.family)
}

/// Gives an attempt its time, and a failure its kind.
async fn timed(attempt: impl Future<Output = anyhow::Result<()>>) -> Attempt {
    let began = tokio::time::Instant::now();
    match tokio::time::timeout(CONNECT_LIMIT, attempt).await {
        Ok(Ok(())) => Ok(began.elapsed()),
        Ok(Err(error)) => Err(failure(&error)),
        Err(_) => Err(no_answer(CONNECT_LIMIT)),
    }
}

fn no_answer(limit: Duration) -> AttemptFailure {
    let detail = format!("no answer in {} ms", limit.as_millis());
    AttemptFailure { kind: FailureKind::NoAnswer, detail }
}

fn failure(error: &anyhow::Error) -> AttemptFailure {
    if let Some(detail) = tls_refusal(error) {
        return AttemptFailure { kind: FailureKind::Certificate, detail };
    }
    let kind = match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset) => FailureKind::Refused,
        Some(io::ErrorKind::TimedOut) => FailureKind::NoAnswer,
        Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => FailureKind::Unreachable,
        _ => FailureKind::Other,
    };
    AttemptFailure { kind, detail: format!("{error:#}") }
}

/// The configuration of TLS that is trusted towards portal and relays.
type Trusted = Arc<rustls::ClientConfig>;

#[cfg(test)]
mod tests;
