//! A toy portal: it says yes unless told otherwise, and keeps the promises of the real one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use adit_policy::{
    AuthorizationId, ClientId, GatewayId, Resource, ResourceAddress, ResourceId, Site, SiteId,
};
use adit_protocol::client::{
    self, AuthorizationCreated, AuthorizationFailed, FailureReason, RequestAuthorization,
};
use adit_protocol::gateway::{self, GatewayAuthorization};
use adit_protocol::{
    Candidate, ClientToPortal, EncodedKey, GatewayToPortal, IceCredentials, Interface, PeerIntroduction,
    PortalToClient, PortalToGateway, RelayAccess, SecretKey,
};
use uuid::Uuid;

pub(crate) fn client_id(index: usize) -> ClientId {
    ClientId::from_uuid(Uuid::from_u128(0x100 + index as u128))
}

pub(crate) fn gateway_id(index: usize) -> GatewayId {
    GatewayId::from_uuid(Uuid::from_u128(0x200 + index as u128))
}

pub(crate) fn resource_id(number: u128) -> ResourceId {
    ResourceId::from_uuid(Uuid::from_u128(0x300 + number))
}

pub(crate) fn site(number: u128) -> Site {
    Site { id: SiteId::from_uuid(Uuid::from_u128(0x400 + number)), name: format!("site {number}") }
}

/// A resource at site 1 without filters.
pub(crate) fn resource(number: u128, address: ResourceAddress) -> Resource {
    Resource {
        id: resource_id(number),
        name: format!("resource {number}"),
        address,
        site: site(1),
        filters: vec![],
    }
}

pub(crate) fn cidr(text: &str) -> ResourceAddress {
    ResourceAddress::Cidr { network: text.parse().expect("network") }
}

pub(crate) fn dns(pattern: &str) -> ResourceAddress {
    ResourceAddress::Dns { pattern: pattern.into() }
}

/// A message on its way out of the portal.
pub(crate) enum Out {
    Client(ClientId, PortalToClient),
    Gateway(GatewayId, PortalToGateway),
}

struct Member {
    key: EncodedKey,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    candidates: Vec<Candidate>,
    site: SiteId,
    is_draining: bool,
}

struct Lease {
    client: ClientId,
    gateway: GatewayId,
    resource: ResourceId,
    expires_at_ms: u64,
}

pub(crate) struct Portal {
    pub(crate) resources: BTreeMap<ResourceId, Resource>,
    pub(crate) lease_time: Duration,
    pub(crate) keeps_flows: bool,
    /// Said to every request, if set.
    pub(crate) refusal: Option<FailureReason>,
    /// Every request that came.
    pub(crate) requests: Vec<RequestAuthorization>,
    /// Every connection that somebody reported closed.
    pub(crate) closed: Vec<(ClientId, GatewayId, u64)>,
    pub(crate) signed_out: Vec<ClientId>,
    clients: BTreeMap<ClientId, Member>,
    gateways: BTreeMap<GatewayId, Member>,
    /// The epoch of each pair, and whether it is still good.
    epochs: BTreeMap<(ClientId, GatewayId), (u64, bool)>,
    leases: BTreeMap<AuthorizationId, Lease>,
    last_lease: u128,
}

impl Portal {
    pub(crate) fn new() -> Self {
        Self {
            resources: BTreeMap::new(),
            lease_time: Duration::from_secs(3600),
            keeps_flows: true,
            refusal: None,
            requests: Vec::new(),
            closed: Vec::new(),
            signed_out: Vec::new(),
            clients: BTreeMap::new(),
            gateways: BTreeMap::new(),
            epochs: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: 0,
        }
    }

    pub(crate) fn interface(ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> Interface {
        Interface {
            ipv4,
            ipv6,
            ipv4_range: "100.64.0.0/11".parse().expect("network"),
            ipv6_range: "fd00:ad17::/64".parse().expect("network"),
            ipv4_proxy_range: "100.96.0.0/16".parse().expect("network"),
            ipv6_proxy_range: "fd00:ad17:0:1::/108".parse().expect("network"),
            dns_upstreams: vec![crate::packets::socket("192.0.2.53:53")],
            search_domains: vec!["corp".into()],
        }
    }

    fn member(key: [u8; 32], last: u8, site: SiteId) -> Member {
        let ipv4 = Ipv4Addr::new(100, 64, 0, last);
        let ipv6 = Ipv6Addr::new(0xfd00, 0xad17, 0, 0, 0, 0, 0, last.into());
        Member { key: EncodedKey(key), ipv4, ipv6, candidates: Vec::new(), site, is_draining: false }
    }

    pub(crate) fn add_client(&mut self, id: ClientId, key: [u8; 32], index: usize) {
        self.clients.insert(id, Self::member(key, 10 + index as u8, site(0).id));
    }

    pub(crate) fn add_gateway(&mut self, id: GatewayId, key: [u8; 32], index: usize, site: SiteId) {
        self.gateways.insert(id, Self::member(key, 100 + index as u8, site));
        for (_, good) in
            self.epochs.iter_mut().filter(|((_, gateway), _)| *gateway == id).map(|(_, epoch)| epoch)
        {
            *good = false;
        }
        self.leases.retain(|_, lease| lease.gateway != id);
    }

    pub(crate) fn init_client(&self, now_ms: u64, id: ClientId, relays: Vec<RelayAccess>) -> PortalToClient {
        let member = &self.clients[&id];
        let valid = |(id, lease): (&AuthorizationId, &Lease)| client::ValidAuthorization {
            id: *id,
            resource: lease.resource,
            gateway: lease.gateway,
            expires_at_ms: lease.expires_at_ms,
        };
        PortalToClient::Init(client::Init {
            portal_time_ms: now_ms,
            client: id,
            actor_name: "Ada".into(),
            interface: Self::interface(member.ipv4, member.ipv6),
            resources: self.resources.values().cloned().collect(),
            relays,
            authorizations: self.leases.iter().filter(|(_, lease)| lease.client == id).map(valid).collect(),
            session_expires_at_ms: None,
            keeps_flows: self.keeps_flows,
        })
    }

    pub(crate) fn init_gateway(
        &self,
        now_ms: u64,
        id: GatewayId,
        relays: Vec<RelayAccess>,
    ) -> PortalToGateway {
        let member = &self.gateways[&id];
        PortalToGateway::Init(gateway::Init {
            portal_time_ms: now_ms,
            keeps_flows: self.keeps_flows,
            gateway: id,
            site: Site { id: member.site, name: "site".into() },
            interface: Self::interface(member.ipv4, member.ipv6),
            relays,
            authorizations: self
                .leases
                .iter()
                .filter(|(_, lease)| lease.gateway == id)
                .map(|(id, lease)| self.gateway_authorization(*id, lease))
                .collect(),
        })
    }

    pub(crate) fn take_from_client(
        &mut self,
        now_ms: u64,
        id: ClientId,
        message: ClientToPortal,
    ) -> Vec<Out> {
        match message {
            ClientToPortal::RequestAuthorization(request) => self.authorize(now_ms, id, request),
            ClientToPortal::Candidates(update) => {
                let member = self.clients.get_mut(&id).expect("known client");
                apply(&mut member.candidates, &update.added, &update.removed);
                let peers = self.epochs.iter().filter(|((client, _), (_, good))| *client == id && *good);
                peers
                    .map(|((_, gateway), _)| {
                        let update = update.clone();
                        let candidates = gateway::PeerCandidates { client: id, update };
                        Out::Gateway(*gateway, PortalToGateway::PeerCandidates(candidates))
                    })
                    .collect()
            }
            ClientToPortal::ConnectionClosed(closed) => {
                self.close(id, closed.gateway, closed.epoch);
                Vec::new()
            }
            ClientToPortal::SignOut(_) => {
                self.signed_out.push(id);
                Vec::new()
            }
            ClientToPortal::Hello(_) | ClientToPortal::RequestRelays(_) | ClientToPortal::Flows(_) => {
                Vec::new()
            }
        }
    }

    pub(crate) fn take_from_gateway(&mut self, id: GatewayId, message: GatewayToPortal) -> Vec<Out> {
        match message {
            GatewayToPortal::Candidates(update) => {
                let member = self.gateways.get_mut(&id).expect("known gateway");
                apply(&mut member.candidates, &update.added, &update.removed);
                let peers = self.epochs.iter().filter(|((_, gateway), (_, good))| *gateway == id && *good);
                peers
                    .map(|((client, _), _)| {
                        let update = update.clone();
                        let candidates = client::PeerCandidates { gateway: id, update };
                        Out::Client(*client, PortalToClient::PeerCandidates(candidates))
                    })
                    .collect()
            }
            GatewayToPortal::Draining(_) => {
                self.gateways.get_mut(&id).expect("known gateway").is_draining = true;
                Vec::new()
            }
            GatewayToPortal::ConnectionClosed(closed) => {
                self.close(closed.client, id, closed.epoch);
                Vec::new()
            }
            GatewayToPortal::Hello(_) | GatewayToPortal::RequestRelays(_) | GatewayToPortal::Flows(_) => {
                Vec::new()
            }
        }
    }

    fn close(&mut self, client: ClientId, gateway: GatewayId, closed: u64) {
        self.closed.push((client, gateway, closed));
        if let Some((epoch, good)) = self.epochs.get_mut(&(client, gateway))
            && *epoch == closed
        {
            *good = false;
            self.leases.retain(|_, lease| (lease.client, lease.gateway) != (client, gateway));
        }
    }

    fn authorize(&mut self, now_ms: u64, id: ClientId, request: RequestAuthorization) -> Vec<Out> {
        self.requests.push(request.clone());
        let gateway =
            self.resources.get(&request.resource).map(|resource| self.choose(resource.site.id, &request));
        let failure = match (self.refusal, gateway) {
            (Some(reason), _) => Some(reason),
            (None, None) => Some(FailureReason::NotFound),
            (None, Some(None)) => Some(FailureReason::Offline),
            (None, Some(Some(_))) => None,
        };
        let (None, Some(Some(gateway))) = (failure, gateway) else {
            let failed = AuthorizationFailed {
                request_id: request.request_id,
                resource: request.resource,
                reason: failure.unwrap_or(FailureReason::Unavailable),
                retry_after_ms: None,
            };
            return vec![Out::Client(id, PortalToClient::AuthorizationFailed(failed))];
        };
        let (epoch, good) = self.epochs.entry((id, gateway)).or_insert((0, false));
        if !*good {
            *epoch += 1;
            *good = true;
        }
        self.last_lease += 1;
        let lease_id = AuthorizationId::from_uuid(Uuid::from_u128(0x500 + self.last_lease));
        let expires_at_ms = now_ms + self.lease_time.as_millis() as u64;
        let lease = Lease { client: id, gateway, resource: request.resource, expires_at_ms };
        let for_gateway = self.gateway_authorization(lease_id, &lease);
        let for_client = AuthorizationCreated {
            request_id: request.request_id,
            id: lease_id,
            resource: request.resource,
            site: self.gateways[&gateway].site,
            expires_at_ms,
            gateway: self.introduce(id, gateway, gateway, &self.gateways[&gateway], false),
        };
        self.leases.insert(lease_id, lease);
        vec![
            Out::Client(id, PortalToClient::AuthorizationCreated(Box::new(for_client))),
            Out::Gateway(gateway, PortalToGateway::AuthorizationCreated(Box::new(for_gateway))),
        ]
    }

    /// One already connected, else the first that is not to be avoided, else any.
    fn choose(&self, site: SiteId, request: &RequestAuthorization) -> Option<GatewayId> {
        let serving = || {
            self.gateways
                .iter()
                .filter(|(_, member)| member.site == site && !member.is_draining)
                .map(|(id, _)| *id)
        };
        if let Some(preferred) = request.prefer_gateway
            && serving().any(|id| id == preferred)
            && !request.avoid_gateways.contains(&preferred)
        {
            return Some(preferred);
        }
        let connected: BTreeSet<GatewayId> =
            request.connected_gateways.iter().map(|gateway| gateway.id).collect();
        let avoided = |id: &GatewayId| request.avoid_gateways.contains(id);
        serving()
            .find(|id| connected.contains(id) && !avoided(id))
            .or_else(|| serving().find(|id| !avoided(id)))
            .or_else(|| serving().next())
    }

    fn gateway_authorization(&self, id: AuthorizationId, lease: &Lease) -> GatewayAuthorization {
        GatewayAuthorization {
            id,
            client: self.introduce(
                lease.client,
                lease.gateway,
                lease.client,
                &self.clients[&lease.client],
                true,
            ),
            resource: self.resources[&lease.resource].clone(),
            expires_at_ms: lease.expires_at_ms,
        }
    }

    fn introduce<Id>(
        &self,
        client: ClientId,
        gateway: GatewayId,
        id: Id,
        member: &Member,
        to_gateway: bool,
    ) -> PeerIntroduction<Id> {
        let (epoch, _) = self.epochs[&(client, gateway)];
        let tag = (client.as_uuid().as_u128() << 64 | gateway.as_uuid().as_u128() << 32) as u64 ^ epoch;
        let ice = |end: &str| IceCredentials {
            ufrag: format!(
                "{end}{:08x}{epoch:04x}",
                client.as_uuid().as_u128() << 16 | gateway.as_uuid().as_u128()
            ),
            password: format!("password-of-{end}-{tag:024x}"),
        };
        let (local, remote) = if to_gateway { ("g", "c") } else { ("c", "g") };
        PeerIntroduction {
            id,
            name: "peer".into(),
            public_key: member.key,
            ipv4: member.ipv4,
            ipv6: member.ipv6,
            preshared_key: SecretKey([epoch as u8; 32]),
            epoch,
            local_ice: ice(local),
            remote_ice: ice(remote),
            candidates: member.candidates.clone(),
        }
    }

    /// Takes all leases on a resource back; tells both ends.
    pub(crate) fn revoke(&mut self, resource: ResourceId) -> Vec<Out> {
        let ended: Vec<AuthorizationId> =
            self.leases.iter().filter(|(_, lease)| lease.resource == resource).map(|(id, _)| *id).collect();
        let mut out = Vec::new();
        for id in ended {
            let Some(Lease { client, gateway, resource, .. }) = self.leases.remove(&id) else { continue };
            let for_client = client::AuthorizationRevoked { id, resource, gateway };
            let for_gateway = gateway::AuthorizationRevoked { id, client, resource };
            out.push(Out::Client(client, PortalToClient::AuthorizationRevoked(for_client)));
            out.push(Out::Gateway(gateway, PortalToGateway::AuthorizationRevoked(for_gateway)));
        }
        out
    }

    /// Takes a resource out of everyone's sight, leases and all.
    pub(crate) fn remove_resource(&mut self, id: ResourceId) -> Vec<Out> {
        self.resources.remove(&id);
        let removed = |client: &ClientId| {
            Out::Client(*client, PortalToClient::ResourceRemoved(client::ResourceRemoved { id }))
        };
        self.clients.keys().map(removed).collect()
    }

    /// Changes or adds a resource; tells everybody.
    pub(crate) fn change_resource(&mut self, resource: Resource) -> Vec<Out> {
        self.resources.insert(resource.id, resource.clone());
        let clients =
            self.clients.keys().map(|id| Out::Client(*id, PortalToClient::ResourceChanged(resource.clone())));
        let gateways = self
            .gateways
            .keys()
            .map(|id| Out::Gateway(*id, PortalToGateway::ResourceChanged(resource.clone())));
        clients.chain(gateways).collect()
    }

    /// Whether a gateway said that it stops.
    pub(crate) fn is_draining(&self, id: GatewayId) -> bool {
        self.gateways[&id].is_draining
    }

    /// Forgets leases that are over, as its own timer would.
    pub(crate) fn expire(&mut self, now_ms: u64) {
        self.leases.retain(|_, lease| lease.expires_at_ms > now_ms);
    }
}

fn apply(candidates: &mut Vec<Candidate>, added: &[Candidate], removed: &[Candidate]) {
    candidates.retain(|candidate| !removed.contains(candidate) && !added.contains(candidate));
    candidates.extend_from_slice(added);
}
