//! From the engine's look at the network to what front ends show.

use adit_client_ipc as ipc;
use adit_engine::PortalConfig;
use adit_engine::netcheck::{self, RelayPlace};
use adit_platform::network::Bypass;

/// Looks at the network, outside of the tunnel.
///
/// # Errors
///
/// See [`netcheck::check`].
pub(super) async fn check(
    portal: PortalConfig,
    relays: Vec<RelayPlace>,
) -> anyhow::Result<ipc::NetcheckReport> {
    let found = netcheck::check(&portal, &relays, Some(Bypass::default().fwmark)).await?;
    Ok(ipc::NetcheckReport {
        portal_url: portal.url.to_string(),
        portal: attempt(found.portal),
        clock_ahead_ms: found.clock_ahead_ms,
        relays: found.relays.into_iter().map(relay).collect(),
        ipv4: found.ipv4.map(family),
        ipv6: found.ipv6.map(family),
    })
}

fn relay(report: netcheck::RelayReport) -> ipc::RelayReport {
    ipc::RelayReport {
        relay: report.relay.as_uuid(),
        address: report.address,
        udp: attempt(report.udp),
        tcp: report.tcp.map(attempt),
        tls: report.tls.map(attempt),
    }
}

fn attempt(attempt: netcheck::Attempt) -> ipc::Attempt {
    match attempt {
        Ok(took) => ipc::Attempt::WorkedInMs(took.as_secs_f64() * 1000.0),
        Err(failure) => ipc::Attempt::Failed(ipc::Failure {
            kind: match failure.kind {
                netcheck::FailureKind::Refused => ipc::FailureKind::Refused,
                netcheck::FailureKind::NoAnswer => ipc::FailureKind::NoAnswer,
                netcheck::FailureKind::Unreachable => ipc::FailureKind::Unreachable,
                netcheck::FailureKind::Certificate => ipc::FailureKind::Certificate,
                netcheck::FailureKind::Other => ipc::FailureKind::Other,
            },
            detail: failure.detail,
        }),
    }
}

fn family(report: netcheck::FamilyReport) -> ipc::FamilyReport {
    ipc::FamilyReport {
        public: report.public,
        mapping: report.mapping.map(|mapping| match mapping {
            netcheck::Mapping::None => ipc::Mapping::None,
            netcheck::Mapping::Independent => ipc::Mapping::Independent,
            netcheck::Mapping::Dependent => ipc::Mapping::Dependent,
        }),
        path_mtu: report.path_mtu.map(|mtu| ipc::PathMtu { bytes: mtu.bytes, is_silent: mtu.is_silent }),
    }
}
