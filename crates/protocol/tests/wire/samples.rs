//! One message of each kind, with every field in use.

use std::net::Ipv6Addr;

use adit_policy::{
    AuthorizationId, ClientId, Filter, GatewayId, PortRange, RelayId, Resource, ResourceAddress, ResourceId,
    Site, SiteId,
};
use adit_protocol::client::{self, Disconnect, DisconnectReason, Empty, FailureReason, RelaysChanged};
use adit_protocol::peer::{DomainState, GoodbyeReason, PeerMessage};
use adit_protocol::{
    Candidate, CandidateKind, CandidateUpdate, ClientToPortal, EncodedKey, GatewayToPortal, Hello,
    IceCredentials, Interface, PeerIntroduction, PortalToClient, PortalToGateway, PortalToRelay, RelayAccess,
    RelayTls, RelayToPortal, SecretKey, flow, gateway, relay,
};
use uuid::Uuid;

pub(crate) const CLIENT_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 0, 0, 0, 0, 2);
pub(crate) const GATEWAY_ADDRESS: Ipv6Addr = Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 0, 0, 0, 0, 1);

/// Texts of secrets that the samples hold and no log may show.
pub(crate) const SECRETS: [&str; 4] =
    ["local-ice-password-of-22", "turn-password", "relay-secret", "CAgICAgI"];

const fn uuid(n: u128) -> Uuid {
    Uuid::from_u128(0x0193_5000_0000_7000_8000_0000_0000_0000 + n)
}

fn resource() -> Resource {
    Resource {
        id: ResourceId::from_uuid(uuid(1)),
        name: "wiki".to_owned(),
        address: ResourceAddress::Dns { pattern: "*.wiki.corp".to_owned() },
        site: site(),
        filters: vec![
            Filter::Tcp { ports: PortRange::new(80, 443).unwrap() },
            Filter::Udp { ports: PortRange::ALL },
            Filter::Icmp,
        ],
    }
}

fn site() -> Site {
    Site { id: SiteId::from_uuid(uuid(2)), name: "office".to_owned() }
}

const fn client_id() -> ClientId {
    ClientId::from_uuid(uuid(3))
}

const fn gateway_id() -> GatewayId {
    GatewayId::from_uuid(uuid(4))
}

const fn authorization_id() -> AuthorizationId {
    AuthorizationId::from_uuid(uuid(5))
}

const fn relay_id() -> RelayId {
    RelayId::from_uuid(uuid(6))
}

fn hello() -> Hello {
    Hello {
        revision: 1,
        device_id: uuid(7),
        name: "laptop".to_owned(),
        public_key: EncodedKey([9; 32]),
        version: "0.1.0".to_owned(),
        capabilities: vec!["example".to_owned()],
    }
}

fn candidates() -> Vec<Candidate> {
    vec![
        Candidate { kind: CandidateKind::Host, address: "192.0.2.1:51820".parse().unwrap(), base: None },
        Candidate {
            kind: CandidateKind::ServerReflexive,
            address: "203.0.113.1:40000".parse().unwrap(),
            base: Some("192.0.2.1:51820".parse().unwrap()),
        },
        Candidate {
            kind: CandidateKind::Relayed,
            address: "[2001:db8::7]:50000".parse().unwrap(),
            base: Some("203.0.113.1:40000".parse().unwrap()),
        },
    ]
}

fn update() -> CandidateUpdate {
    CandidateUpdate { added: candidates(), removed: candidates()[..1].to_vec() }
}

fn interface() -> Interface {
    Interface {
        ipv4: "100.64.0.2".parse().unwrap(),
        ipv6: CLIENT_ADDRESS,
        ipv4_range: "100.64.0.0/11".parse().unwrap(),
        ipv6_range: "fd12:3456:789a::/107".parse().unwrap(),
        ipv4_proxy_range: "100.96.0.0/11".parse().unwrap(),
        ipv6_proxy_range: "fd12:3456:789a::20:0/107".parse().unwrap(),
        dns_upstreams: vec!["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:53".parse().unwrap()],
        search_domains: vec!["corp".to_owned()],
    }
}

fn introduction<Id>(id: Id) -> PeerIntroduction<Id> {
    PeerIntroduction {
        id,
        name: "peer".to_owned(),
        public_key: EncodedKey([10; 32]),
        ipv4: "100.64.0.1".parse().unwrap(),
        ipv6: GATEWAY_ADDRESS,
        preshared_key: SecretKey([8; 32]),
        epoch: 3,
        local_ice: IceCredentials {
            ufrag: "locl".to_owned(),
            password: "local-ice-password-of-22".to_owned(),
        },
        remote_ice: IceCredentials {
            ufrag: "rmte".to_owned(),
            password: "remote-ice-password-of-22".to_owned(),
        },
        candidates: candidates(),
    }
}

fn relay_tls() -> RelayTls {
    RelayTls {
        port: 443,
        server_name: "relay.example.com".to_owned(),
        certificate_sha256: Some("0123456789abcdef".repeat(4)),
    }
}

fn relay_access() -> RelayAccess {
    RelayAccess {
        id: relay_id(),
        ipv4: Some("203.0.113.9:3478".parse().unwrap()),
        ipv6: Some("[2001:db8::9]:3478".parse().unwrap()),
        tcp_port: Some(3478),
        tls: Some(relay_tls()),
        username: "1795000000:salt".to_owned(),
        password: "turn-password".to_owned(),
        expires_at_ms: 1_795_000_000_000,
    }
}

fn relays_changed() -> RelaysChanged {
    RelaysChanged { removed: vec![relay_id()], added: vec![relay_access()] }
}

fn gateway_authorization() -> gateway::GatewayAuthorization {
    gateway::GatewayAuthorization {
        id: authorization_id(),
        client: introduction(client_id()),
        resource: resource(),
        expires_at_ms: 1_795_028_800_000,
    }
}

/// What a gateway says of a flow.
fn flow_of_a_client() -> flow::FlowRecord {
    flow::FlowRecord {
        id: uuid(10),
        authorization: authorization_id(),
        client: Some(client_id()),
        gateway: None,
        resource: resource().id,
        protocol: 6,
        source: "100.64.0.2".parse().unwrap(),
        source_port: 40_000,
        destination: "10.0.0.5".parse().unwrap(),
        destination_port: 443,
        name: Some("a.wiki.corp".to_owned()),
        path: Some(flow::FlowPath::Direct),
        opened_ms: 1_795_000_000_000,
        at_ms: 1_795_000_060_000,
        end: Some(flow::FlowEnd::Closed),
        sent_packets: 12,
        sent_bytes: 1_200,
        received_packets: 20,
        received_bytes: 24_000,
    }
}

/// What the client says of it.
fn own_flow() -> flow::FlowRecord {
    let destination = "100.96.0.7".parse().unwrap();
    flow::FlowRecord { client: None, gateway: Some(gateway_id()), destination, ..flow_of_a_client() }
}

fn flows(record: flow::FlowRecord) -> flow::Flows {
    let numbered = |number, report| flow::NumberedFlow { number, report };
    let flows = vec![
        numbered(17, flow::FlowReport::Restarted),
        numbered(18, flow::FlowReport::Flow(Box::new(record))),
    ];
    flow::Flows { spool: uuid(9), flows }
}

pub(crate) fn client_to_portal() -> Vec<ClientToPortal> {
    vec![
        ClientToPortal::Hello(hello()),
        ClientToPortal::RequestAuthorization(client::RequestAuthorization {
            request_id: 11,
            resource: resource().id,
            connected_gateways: vec![client::ConnectedGateway { id: gateway_id(), epoch: 3 }],
            avoid_gateways: vec![gateway_id()],
            prefer_gateway: None,
        }),
        ClientToPortal::Candidates(update()),
        ClientToPortal::RequestRelays(Empty {}),
        ClientToPortal::ConnectionClosed(client::ConnectionClosed { gateway: gateway_id(), epoch: 3 }),
        ClientToPortal::Flows(flows(own_flow())),
        ClientToPortal::SignOut(Empty {}),
    ]
}

pub(crate) fn portal_to_client() -> Vec<PortalToClient> {
    let authorization = client::ValidAuthorization {
        id: authorization_id(),
        resource: resource().id,
        gateway: gateway_id(),
        expires_at_ms: 1_795_028_800_000,
    };
    vec![
        PortalToClient::Init(client::Init {
            portal_time_ms: 1_795_000_000_000,
            client: client_id(),
            actor_name: "ana".to_owned(),
            interface: interface(),
            resources: vec![resource()],
            relays: vec![relay_access()],
            authorizations: vec![authorization],
            session_expires_at_ms: Some(1_797_000_000_000),
            keeps_flows: true,
        }),
        PortalToClient::ResourceChanged(resource()),
        PortalToClient::ResourceRemoved(client::ResourceRemoved { id: resource().id }),
        PortalToClient::AuthorizationCreated(Box::new(client::AuthorizationCreated {
            request_id: 11,
            id: authorization_id(),
            resource: resource().id,
            site: site().id,
            expires_at_ms: 1_795_028_800_000,
            gateway: introduction(gateway_id()),
        })),
        PortalToClient::AuthorizationFailed(client::AuthorizationFailed {
            request_id: 11,
            resource: resource().id,
            reason: FailureReason::Offline,
            retry_after_ms: Some(250),
        }),
        PortalToClient::AuthorizationRevoked(client::AuthorizationRevoked {
            id: authorization_id(),
            resource: resource().id,
            gateway: gateway_id(),
        }),
        PortalToClient::PeerCandidates(client::PeerCandidates { gateway: gateway_id(), update: update() }),
        PortalToClient::GatewayGone(client::GatewayGone { gateway: gateway_id() }),
        PortalToClient::RelaysChanged(relays_changed()),
        PortalToClient::InterfaceChanged(interface()),
        PortalToClient::SignIn(client::SignIn {
            authenticated_at_ms: Some(1_795_000_000_000),
            expires_at_ms: Some(1_797_592_000_000),
            is_too_old: true,
        }),
        PortalToClient::FlowsStored(flow::FlowsStored { spool: uuid(9), number: 18 }),
        PortalToClient::FlowLogChanged(flow::FlowLogChanged { keeps_flows: false }),
        PortalToClient::Disconnect(Disconnect { reason: DisconnectReason::RevokedToken }),
    ]
}

pub(crate) fn gateway_to_portal() -> Vec<GatewayToPortal> {
    vec![
        GatewayToPortal::Hello(hello()),
        GatewayToPortal::Candidates(update()),
        GatewayToPortal::RequestRelays(Empty {}),
        GatewayToPortal::Draining(adit_protocol::gateway::Draining { retry_after_ms: Some(10_000) }),
        GatewayToPortal::ConnectionClosed(gateway::ConnectionClosed { client: client_id(), epoch: 3 }),
        GatewayToPortal::Flows(flows(flow_of_a_client())),
    ]
}

pub(crate) fn portal_to_gateway() -> Vec<PortalToGateway> {
    vec![
        PortalToGateway::Init(gateway::Init {
            portal_time_ms: 1_795_000_000_000,
            gateway: gateway_id(),
            site: site(),
            interface: interface(),
            relays: vec![relay_access()],
            authorizations: vec![gateway_authorization()],
            keeps_flows: true,
        }),
        PortalToGateway::AuthorizationCreated(Box::new(gateway_authorization())),
        PortalToGateway::AuthorizationRevoked(gateway::AuthorizationRevoked {
            id: authorization_id(),
            client: client_id(),
            resource: resource().id,
        }),
        PortalToGateway::ResourceChanged(resource()),
        PortalToGateway::PeerCandidates(gateway::PeerCandidates { client: client_id(), update: update() }),
        PortalToGateway::ClientGone(gateway::ClientGone { client: client_id() }),
        PortalToGateway::RelaysChanged(relays_changed()),
        PortalToGateway::InterfaceChanged(interface()),
        PortalToGateway::FlowsStored(flow::FlowsStored { spool: uuid(9), number: 18 }),
        PortalToGateway::FlowLogChanged(flow::FlowLogChanged { keeps_flows: false }),
        PortalToGateway::Disconnect(Disconnect { reason: DisconnectReason::Restart }),
    ]
}

pub(crate) fn relay_to_portal() -> Vec<RelayToPortal> {
    vec![
        RelayToPortal::Hello(relay::RelayHello {
            revision: 1,
            device_id: uuid(8),
            name: "relay".to_owned(),
            version: "0.1.0".to_owned(),
            ipv4: Some("203.0.113.9".parse().unwrap()),
            ipv6: Some("2001:db8::9".parse().unwrap()),
            port: 3478,
            tcp_port: Some(3478),
            tls: Some(relay_tls()),
            secret: "relay-secret".to_owned(),
        }),
        RelayToPortal::SecretRotated(relay::SecretRotated { secret: "relay-secret".to_owned() }),
        RelayToPortal::Draining(Empty {}),
    ]
}

pub(crate) fn portal_to_relay() -> Vec<PortalToRelay> {
    vec![
        PortalToRelay::Init(relay::RelayInit { portal_time_ms: 1_795_000_000_000, relay: relay_id() }),
        PortalToRelay::Disconnect(Disconnect { reason: DisconnectReason::Superseded }),
    ]
}

pub(crate) fn peer() -> Vec<(&'static str, PeerMessage)> {
    let without_base = |candidates: Vec<Candidate>| -> Vec<Candidate> {
        candidates.into_iter().map(|candidate| Candidate { base: None, ..candidate }).collect()
    };
    let addresses = ["100.96.0.4", "100.96.0.5", "fd12:3456:789a::20:4"];
    vec![
        (
            "goodbye",
            PeerMessage::Goodbye { reason: GoodbyeReason::ShuttingDown, retry_after_ms: Some(5_000) },
        ),
        ("reset_ticket", PeerMessage::ResetTicket { token: [0xa5; 16] }),
        ("candidates", PeerMessage::Candidates { added: without_base(candidates()), removed: Vec::new() }),
        (
            "assigned_addresses",
            PeerMessage::AssignedAddresses {
                resource: resource().id,
                name: "a.wiki.corp".to_owned(),
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            },
        ),
        (
            "domain_status",
            PeerMessage::DomainStatus {
                resource: resource().id,
                name: "a.wiki.corp".to_owned(),
                state: DomainState::ResolverFailed,
            },
        ),
        ("draining", PeerMessage::Draining { deadline_ms: 30_000 }),
        ("size_probe", PeerMessage::SizeProbe { size: 1_440 }),
        ("size_confirmed", PeerMessage::SizeConfirmed { size: 1_440 }),
    ]
}
