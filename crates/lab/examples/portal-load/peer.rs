//! One session of a scripted device.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::{EncodedKey, Hello, Message, REVISION, frame};
use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error};
use uuid::Uuid;

/// Longer than anything should take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Enough for the messages of a device; the usual buffers would be most of the generator's memory.
const BUFFER: usize = 4 * 1024;

/// What is read of a message: the rest would cost more to read than the portal's work to write.
#[derive(Debug, Deserialize)]
pub(crate) struct Heard {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) payload: Payload,
}

/// Fields that messages have in common.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Payload {
    #[serde(default)]
    pub(crate) id: Option<Uuid>,
    #[serde(default)]
    pub(crate) request_id: Option<u64>,
    #[serde(default)]
    pub(crate) authorizations: Vec<Named>,
}

/// Something with an id.
#[derive(Debug, Deserialize)]
pub(crate) struct Named {
    pub(crate) id: Uuid,
}

/// Where devices connect to, and how.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
}

pub(crate) struct Peer {
    socket: WebSocketStream<TlsStream<TcpStream>>,
}

/// The address that the n-th device connects from: each is used by few, as the portal wants it.
fn source(number: u32) -> Ipv4Addr {
    let host = number / 64;
    Ipv4Addr::new(
        127,
        1 + u8::try_from(host / 62_500).unwrap_or(200),
        (host / 250 % 250) as u8,
        1 + (host % 250) as u8,
    )
}

impl Peer {
    /// Connects as the n-th device and waits for nothing.
    pub(crate) async fn connect(place: &Place, endpoint: &str, token: &str, number: u32) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(source(number).into(), 0))?;
        let stream = socket.connect(place.address).await.context("connecting")?;
        stream.set_nodelay(true)?;
        let name = rustls_pki_types::ServerName::from(place.address.ip());
        let connector = TlsConnector::from(Arc::clone(&place.tls));
        let stream = connector.connect(name, stream).await.context("TLS handshake")?;
        let mut request = format!("wss://{}/v1/{endpoint}", place.address).into_client_request()?;
        request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse()?);
        let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(0);
        let (socket, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config))
            .await
            .context("WebSocket handshake")?;
        Ok(Self { socket })
    }

    /// Connects, says hello, and waits for the complete state.
    pub(crate) async fn join<M: Message>(
        place: &Place,
        endpoint: &str,
        token: &str,
        number: u32,
        hello: impl FnOnce(Hello) -> M,
    ) -> Result<(Self, Payload)> {
        let joining = async {
            let mut peer = Self::connect(place, endpoint, token, number).await?;
            peer.say(&hello(hello_of(endpoint, number))).await?;
            let init = peer.hear().await?;
            if init.kind != "init" {
                bail!("no init but {init:?}");
            }
            Ok((peer, init.payload))
        };
        tokio::time::timeout(PATIENCE, joining).await.context("joining takes too long")?
    }

    pub(crate) async fn say<M: Message>(&mut self, message: &M) -> Result<()> {
        let text = frame::encode(message, None)?;
        Ok(self.socket.send(tungstenite::Message::text(text)).await?)
    }

    /// The next message; pings are answered on the way.
    pub(crate) async fn hear(&mut self) -> Result<Heard> {
        loop {
            match self.socket.next().await {
                Some(Ok(tungstenite::Message::Text(text))) => return Ok(serde_json::from_str(&text)?),
                Some(Ok(tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_))) => {}
                Some(Ok(other)) => bail!("unexpected {other:?}"),
                Some(Err(error)) => return Err(Error::into(error)),
                None => bail!("the portal has closed"),
            }
        }
    }

    /// The next message of a kind.
    pub(crate) async fn hear_of(&mut self, kind: &str) -> Result<Payload> {
        loop {
            let heard = self.hear().await?;
            if heard.kind == kind {
                return Ok(heard.payload);
            }
        }
    }
}

fn hello_of(endpoint: &str, number: u32) -> Hello {
    let mut key = [endpoint.as_bytes()[0]; 32];
    key[..4].copy_from_slice(&number.to_be_bytes());
    Hello {
        revision: REVISION,
        device_id: Uuid::from_u128(u128::from(number) + 1),
        name: format!("{endpoint}-{number}"),
        public_key: EncodedKey(key),
        version: "1.0.0".to_owned(),
        capabilities: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn no_address_carries_more_devices_than_a_portal_takes_at_once() {
        let mut users: BTreeMap<Ipv4Addr, u32> = BTreeMap::new();
        for number in 0..100_000 {
            let address = source(number);
            assert!(address.is_loopback());
            *users.entry(address).or_default() += 1;
        }
        assert_eq!(users.values().max(), Some(&64));
    }
}
