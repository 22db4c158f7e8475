//! TCP and TLS to a relay, where it listens for them.

use std::net::SocketAddr;

use adit_control_client::connect_first;
use anyhow::Context as _;
use tokio_rustls::TlsConnector;

use super::{Attempt, RelayPlace, Trusted, timed};
use crate::dial::MarkedDial;
use crate::streams::relay_tls_config;

/// Connects in every way that the relay offers at this address, and hangs up.
pub(super) async fn probe(
    dial: MarkedDial,
    trusted: &Trusted,
    relay: &RelayPlace,
    address: SocketAddr,
) -> (Option<Attempt>, Option<Attempt>) {
    let at = |port| SocketAddr::new(address.ip(), port);
    let tcp = async {
        let place = at(relay.tcp_port?);
        Some(timed(async { Ok(connect_first(&dial, vec![place]).await.map(drop)?) }).await)
    };
    let tls = async {
        let tls = relay.tls.as_ref()?;
        let attempt = async {
            let stream = connect_first(&dial, vec![at(tls.port)]).await.context("TCP")?;
            let (config, name) = relay_tls_config(trusted, tls).context("TLS")?;
            TlsConnector::from(config).connect(name, stream).await.context("TLS").map(drop)
        };
        Some(timed(attempt).await)
    };
    tokio::join!(tcp, tls)
}
