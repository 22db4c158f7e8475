//! A portal on a free port, and scripted peers.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

use adit_policy::{ClientId, GatewayId, ResourceId, SiteId};
use adit_portal::bootstrap::{self, bootstrap};
use adit_portal::serve::{self, Running, Security};
use adit_protocol::client::{AuthorizationCreated, RequestAuthorization};
use adit_protocol::frame::{self, Decoded};
use adit_protocol::gateway::GatewayAuthorization;
use adit_protocol::relay::RelayHello;
use adit_protocol::{
    ClientToPortal, EncodedKey, GatewayToPortal, Hello, Message, PortalToClient, PortalToGateway,
    PortalToRelay, REVISION, RelayTls, RelayToPortal, client, gateway,
};
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self, http};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use uuid::Uuid;

use crate::backend::Backend;

/// Longer than anything should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Long enough for a message that should not come to have come.
const SILENCE: Duration = Duration::from_millis(150);

/// A portal that serves.
pub(crate) struct World {
    pub(crate) directory: TempDir,
    pub(crate) backend: Backend,
    pub(crate) address: SocketAddr,
    /// Where clients connect, if not to the same node as everybody else.
    pub(crate) clients_at: Option<SocketAddr>,
    pub(crate) admin: String,
    pub(crate) relay_token: String,
    /// Where the owner chooses password and authenticator.
    pub(crate) welcome: String,
    http: reqwest::Client,
    running: Option<Running>,
    /// Another node of the same installation, as long as the world lasts.
    pub(crate) second: Option<Running>,
}

/// A site with a resource that everyone may reach, an actor, and tokens.
pub(crate) struct Office {
    pub(crate) site: SiteId,
    pub(crate) resource: ResourceId,
    pub(crate) policy: String,
    pub(crate) group: String,
    pub(crate) actor: String,
    pub(crate) client_token: String,
    pub(crate) gateway_token: String,
}

pub(crate) fn options(directory: &TempDir, backend: &Backend) -> serve::Options {
    serve::Options {
        data_dir: directory.path().join("data"),
        database: backend.database(),
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        security: Security::Plain,
        health: None,
        keep_audit: None,
        behind_proxy: Vec::new(),
        api_rate: serve::API_RATE,
        take_over: false,
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let backend = Backend::new();
        let made = bootstrap(&bootstrap::Options {
            data_dir: directory.path().join("data"),
            database: backend.database(),
            url: "https://localhost".parse().unwrap(),
            extra_names: Vec::new(),
            certificate: None,
            dns_upstreams: Vec::new(),
            search_domains: Vec::new(),
            ranges: bootstrap::Ranges::default(),
            rotate_admin_token: false,
        })
        .await
        .unwrap();
        let running = serve::start(&options(&directory, &backend), None).await.unwrap();
        Self {
            address: running.addresses()[0],
            clients_at: None,
            directory,
            backend,
            admin: made.admin_token,
            relay_token: made.relay_token.unwrap(),
            welcome: made.welcome_url.unwrap().strip_prefix("https://localhost").unwrap().to_owned(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            running: Some(running),
            second: None,
        }
    }

    /// Stops and starts the portal.
    pub(crate) async fn restart(&mut self) {
        self.running.take().unwrap().stop().await;
        let running = serve::start(&options(&self.directory, &self.backend), None).await.unwrap();
        self.address = running.addresses()[0];
        self.running = Some(running);
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(second) = self.second.take() {
            second.stop().await;
        }
        self.running.take().unwrap().stop().await;
    }

    /// One API request as `token`: status and body; of an export in lines the first one.
    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (u16, Value) {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let mut request = self.http.request(method, url).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
        (status, values.next().map_or(Value::Null, Result::unwrap))
    }

    /// One API request of the administrator: status and body.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        self.call_as(&self.admin, method, path, body).await
    }

    /// The text of an answer, of the administrator's request.
    pub(crate) async fn text(&self, path: &str) -> String {
        let url = format!("http://{}/api/v1/{path}", self.address);
        let response = self.http.get(url).bearer_auth(&self.admin).send().await.unwrap();
        response.error_for_status().unwrap().text().await.unwrap()
    }

    /// One API request that must succeed.
    pub(crate) async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!(status < 300, "{path}: {status} {answer}");
        answer
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.admin(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Value {
        self.admin(Method::PATCH, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) {
        self.admin(Method::DELETE, path, None).await;
    }

    /// Gives the office's policy conditions.
    pub(crate) async fn conditions(&self, policy: &str, conditions: Value) {
        self.patch(&format!("policies/{policy}"), json!({ "conditions": conditions })).await;
    }

    /// An administrator vouches for a client, or does so no longer.
    pub(crate) async fn verify(&self, client: ClientId, verified: bool) {
        self.patch(&format!("devices/{client}"), json!({ "verified": verified })).await;
    }

    pub(crate) async fn resource(&self, site: SiteId, name: &str, address: Value) -> ResourceId {
        let body = json!({ "name": name, "address": address, "site": site });
        id(&self.post("resources", body).await).parse().unwrap()
    }

    pub(crate) async fn client_token(&self, actor: &str) -> String {
        let made = self.post("tokens", json!({ "kind": "client", "actor": actor })).await;
        made["token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn gateway_token(&self, site: SiteId) -> String {
        let made = self.post("tokens", json!({ "kind": "gateway", "site": site })).await;
        made["token"].as_str().unwrap().to_owned()
    }

    /// The id of a live token, from its text.
    pub(crate) fn token_id(text: &str) -> Uuid {
        Uuid::parse_str(text.split('_').nth(2).unwrap()).unwrap()
    }

    pub(crate) async fn office(&self) -> Office {
        let site: SiteId = id(&self.post("sites", json!({ "name": "office" })).await).parse().unwrap();
        let address = json!({ "type": "dns", "pattern": "wiki.corp" });
        let resource = self.resource(site, "wiki", address).await;
        let group = id(&self.post("groups", json!({ "name": "staff" })).await);
        let actor = id(&self.post("actors", json!({ "kind": "user", "name": "ana" })).await);
        self.admin(Method::PUT, &format!("groups/{group}/members/{actor}"), None).await;
        let policy = id(&self.post("policies", json!({ "group": group, "resource": resource })).await);
        let client_token = self.client_token(&actor).await;
        let gateway_token = self.gateway_token(site).await;
        Office { site, resource, policy, group, actor, client_token, gateway_token }
    }

    pub(crate) async fn client(&self, token: &str, device: u128, key: u8) -> Client {
        let address = self.clients_at.unwrap_or(self.address);
        let mut peer = Peer::connect(address, "client", token).await.unwrap();
        peer.send(&ClientToPortal::Hello(hello(device, key))).await;
        Client::new(peer).await
    }

    /// A client that connects from one of the addresses of the loopback interface.
    pub(crate) async fn client_from(&self, source: &str, token: &str, device: u128, key: u8) -> Client {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(source.parse().unwrap(), 0)).unwrap();
        let stream = socket.connect(self.address).await.unwrap();
        let request = upgrade_request(self.address, "client", token);
        let stream = MaybeTlsStream::Plain(stream);
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let mut peer = ClientPeer { socket, says: PhantomData };
        peer.send(&ClientToPortal::Hello(hello(device, key))).await;
        Client::new(peer).await
    }

    pub(crate) async fn gateway(&self, token: &str, device: u128, key: u8) -> Gateway {
        self.gateway_of_version(token, device, key, "1.0.0").await
    }

    pub(crate) async fn gateway_of_version(
        &self,
        token: &str,
        device: u128,
        key: u8,
        version: &str,
    ) -> Gateway {
        let mut peer = Peer::connect(self.address, "gateway", token).await.unwrap();
        let hello = Hello { version: version.to_owned(), ..hello(device, key) };
        peer.send(&GatewayToPortal::Hello(hello)).await;
        Gateway::new(peer).await
    }

    pub(crate) async fn relay(&self, device: u128, secret: &str) -> RelayPeer {
        let mut peer = Peer::connect(self.address, "relay", &self.relay_token).await.unwrap();
        peer.send(&RelayToPortal::Hello(RelayHello {
            revision: REVISION,
            device_id: Uuid::from_u128(device),
            name: format!("relay-{device}"),
            version: "1.0.0".to_owned(),
            ipv4: Some("192.0.2.7".parse().unwrap()),
            ipv6: Some("2001:db8::7".parse().unwrap()),
            port: 3478,
            tcp_port: Some(3478),
            tls: Some(RelayTls {
                port: 443,
                server_name: "relay.example".to_owned(),
                certificate_sha256: None,
            }),
            secret: secret.to_owned(),
        }))
        .await;
        assert!(matches!(peer.next().await, PortalToRelay::Init(_)));
        peer
    }
}

pub(crate) fn id(made: &Value) -> String {
    made["id"].as_str().unwrap_or_else(|| panic!("no id in {made}")).to_owned()
}

fn upgrade_request(address: SocketAddr, endpoint: &str, token: &str) -> http::Request<()> {
    let mut request = format!("ws://{address}/v1/{endpoint}").into_client_request().unwrap();
    if !token.is_empty() {
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert(http::header::AUTHORIZATION, value);
    }
    request
}

pub(crate) fn hello(device: u128, key: u8) -> Hello {
    Hello {
        revision: REVISION,
        device_id: Uuid::from_u128(device),
        name: format!("device-{device}"),
        public_key: EncodedKey([key; 32]),
        version: "1.0.0".to_owned(),
        capabilities: Vec::new(),
    }
}

/// A scripted peer: says `I`, hears `O`.
pub(crate) struct Peer<I, O> {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    says: PhantomData<(I, O)>,
}

pub(crate) type ClientPeer = Peer<ClientToPortal, PortalToClient>;
pub(crate) type GatewayPeer = Peer<GatewayToPortal, PortalToGateway>;
pub(crate) type RelayPeer = Peer<RelayToPortal, PortalToRelay>;

impl<I: Message, O: Message + std::fmt::Debug> Peer<I, O> {
    /// Opens the socket; an HTTP error comes back as status and problem code.
    pub(crate) async fn connect(
        address: SocketAddr,
        endpoint: &str,
        token: &str,
    ) -> Result<Self, (u16, String)> {
        match connect_async(upgrade_request(address, endpoint, token)).await {
            Ok((socket, _)) => Ok(Self { socket, says: PhantomData }),
            Err(tungstenite::Error::Http(response)) => {
                let body: Value =
                    serde_json::from_slice(response.body().as_deref().unwrap_or_default()).unwrap();
                Err((response.status().as_u16(), body["code"].as_str().unwrap().to_owned()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn send(&mut self, message: &I) {
        self.send_text(&frame::encode(message, None).unwrap()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.socket.send(tungstenite::Message::text(text)).await.unwrap();
    }

    /// The next message; `None` when the portal has closed.
    pub(crate) async fn try_next(&mut self) -> Option<O> {
        loop {
            let frame =
                tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("the portal is silent");
            match frame {
                Some(Ok(tungstenite::Message::Text(text))) => match frame::decode(&text).unwrap() {
                    Decoded::Message { message, .. } => return Some(message),
                    Decoded::Unknown { kind } => panic!("unknown kind {kind}"),
                },
                Some(Ok(tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_))) => {}
                Some(Ok(tungstenite::Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(other)) => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn next(&mut self) -> O {
        self.try_next().await.expect("the portal has closed")
    }

    /// Nothing comes for a while.
    pub(crate) async fn silent(&mut self) {
        if let Ok(message) = tokio::time::timeout(SILENCE, self.try_next()).await {
            panic!("unexpected {message:?}");
        }
    }
}

/// A client that has its init.
pub(crate) struct Client {
    pub(crate) peer: ClientPeer,
    pub(crate) init: client::Init,
    pub(crate) sign_in: client::SignIn,
}

impl Client {
    pub(crate) async fn new(mut peer: ClientPeer) -> Self {
        let init = match peer.next().await {
            PortalToClient::Init(init) => init,
            other => panic!("no init but {other:?}"),
        };
        match peer.next().await {
            PortalToClient::SignIn(sign_in) => Self { peer, init, sign_in },
            other => panic!("no sign-in but {other:?}"),
        }
    }

    pub(crate) fn id(&self) -> ClientId {
        self.init.client
    }

    pub(crate) async fn request(&mut self, request_id: u64, resource: ResourceId) {
        self.request_with(RequestAuthorization {
            request_id,
            resource,
            connected_gateways: Vec::new(),
            avoid_gateways: Vec::new(),
            prefer_gateway: None,
        })
        .await;
    }

    pub(crate) async fn request_with(&mut self, request: RequestAuthorization) {
        self.peer.send(&ClientToPortal::RequestAuthorization(request)).await;
    }

    pub(crate) async fn granted(&mut self) -> AuthorizationCreated {
        match self.peer.next().await {
            PortalToClient::AuthorizationCreated(created) => *created,
            other => panic!("not granted but {other:?}"),
        }
    }

    pub(crate) async fn denied(&mut self) -> client::AuthorizationFailed {
        match self.peer.next().await {
            PortalToClient::AuthorizationFailed(failed) => failed,
            other => panic!("not denied but {other:?}"),
        }
    }

    pub(crate) async fn revoked(&mut self) -> client::AuthorizationRevoked {
        match self.peer.next().await {
            PortalToClient::AuthorizationRevoked(revoked) => revoked,
            other => panic!("not revoked but {other:?}"),
        }
    }
}

/// A gateway that has its init.
pub(crate) struct Gateway {
    pub(crate) peer: GatewayPeer,
    pub(crate) init: gateway::Init,
}

impl Gateway {
    pub(crate) async fn new(mut peer: GatewayPeer) -> Self {
        match peer.next().await {
            PortalToGateway::Init(init) => Self { peer, init },
            other => panic!("no init but {other:?}"),
        }
    }

    pub(crate) fn id(&self) -> GatewayId {
        self.init.gateway
    }

    pub(crate) async fn told(&mut self) -> GatewayAuthorization {
        match self.peer.next().await {
            PortalToGateway::AuthorizationCreated(created) => *created,
            other => panic!("not told but {other:?}"),
        }
    }

    pub(crate) async fn revoked(&mut self) -> gateway::AuthorizationRevoked {
        match self.peer.next().await {
            PortalToGateway::AuthorizationRevoked(revoked) => revoked,
            other => panic!("not revoked but {other:?}"),
        }
    }
}
