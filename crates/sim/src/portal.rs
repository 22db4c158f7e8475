//! A portal: the rules of the real one about choice, epochs and leases, without its storage.
//!
//! What it says goes out as messages that the world delivers while sessions last. What it has decided survives its
//! death; messages on their way do not, and every session begins with the whole state.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use adit_policy::{AuthorizationId, ClientId, GatewayId, Resource, ResourceId, SiteId};
use adit_protocol::client::{
    self, AuthorizationCreated, AuthorizationFailed, FailureReason, RequestAuthorization, ValidAuthorization,
};
use adit_protocol::gateway::{self, GatewayAuthorization};
use adit_protocol::{
    Candidate, ClientToPortal, EncodedKey, GatewayToPortal, IceCredentials, Interface, PeerIntroduction,
    PortalToClient, PortalToGateway, RelayAccess, SecretKey,
};
use uuid::Uuid;

/// A client may not have heard of an epoch that is younger than this, in milliseconds.
const INTRODUCTION_GRACE: u64 = 10_000;

/// When to ask again while the only gateway restarts, in milliseconds.
const RETURN_PATIENCE: u64 = 100;

/// A message on its way out of the portal.
#[derive(Debug)]
pub(crate) enum Out {
    Client(ClientId, PortalToClient),
    Gateway(GatewayId, PortalToGateway),
}

#[derive(Debug)]
struct Member {
    key: EncodedKey,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    candidates: Vec<Candidate>,
    is_online: bool,
}

#[derive(Debug)]
struct Gateway {
    member: Member,
    site: SiteId,
    is_draining: bool,
    /// It restarts and should be back by then.
    back_by_ms: u64,
}

#[derive(Debug, Clone, Copy)]
struct Epoch {
    number: u64,
    is_open: bool,
    began_ms: u64,
}

#[derive(Debug)]
struct Lease {
    client: ClientId,
    gateway: GatewayId,
    resource: ResourceId,
    expires_at_ms: u64,
}

/// The portal.
#[derive(Debug)]
pub(crate) struct Portal {
    pub(crate) lease_time: Duration,
    resources: BTreeMap<ResourceId, Resource>,
    access: BTreeSet<(ClientId, ResourceId)>,
    clients: BTreeMap<ClientId, Member>,
    gateways: BTreeMap<GatewayId, Gateway>,
    epochs: BTreeMap<(ClientId, GatewayId), Epoch>,
    leases: BTreeMap<AuthorizationId, Lease>,
    last_lease: u128,
}

fn interface(ipv4: Ipv4Addr, ipv6: Ipv6Addr) -> Interface {
    Interface {
        ipv4,
        ipv6,
        ipv4_range: "100.64.0.0/11".parse().expect("network"),
        ipv6_range: "fd00:ad17::/64".parse().expect("network"),
        ipv4_proxy_range: "100.96.0.0/16".parse().expect("network"),
        ipv6_proxy_range: "fd00:ad17:0:1::/108".parse().expect("network"),
        dns_upstreams: vec!["192.0.2.53:53".parse().expect("address")],
        search_domains: Vec::new(),
    }
}

fn member(last: u8) -> Member {
    Member {
        key: EncodedKey([0; 32]),
        ipv4: Ipv4Addr::new(100, 64, 0, last),
        ipv6: Ipv6Addr::new(0xfd00, 0xad17, 0, 0, 0, 0, 0, last.into()),
        candidates: Vec::new(),
        is_online: false,
    }
}

impl Portal {
    pub(crate) fn new(resources: Vec<Resource>, lease_time: Duration) -> Self {
        Self {
            lease_time,
            resources: resources.into_iter().map(|resource| (resource.id, resource)).collect(),
            access: BTreeSet::new(),
            clients: BTreeMap::new(),
            gateways: BTreeMap::new(),
            epochs: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: 0,
        }
    }

    pub(crate) fn add_client(&mut self, id: ClientId, last: u8) {
        self.clients.insert(id, member(last));
    }

    pub(crate) fn add_gateway(&mut self, id: GatewayId, last: u8, site: SiteId) {
        self.gateways.insert(id, Gateway { member: member(last), site, is_draining: false, back_by_ms: 0 });
    }

    /// Everybody's session is gone; what was decided stays.
    pub(crate) fn forget_sessions(&mut self) {
        for member in self.clients.values_mut() {
            (member.is_online, member.candidates) = (false, Vec::new());
        }
        for gateway in self.gateways.values_mut() {
            (gateway.member.is_online, gateway.member.candidates) = (false, Vec::new());
            gateway.is_draining = false;
        }
    }

    /// A client says hello and gets everything; a new key ends what the old one had.
    pub(crate) fn client_hello(
        &mut self,
        now_ms: u64,
        id: ClientId,
        key: [u8; 32],
        relays: Vec<RelayAccess>,
    ) -> Vec<Out> {
        self.expire(now_ms);
        let mut out = Vec::new();
        if self.clients[&id].key.0 != key {
            out.extend(self.end_where(|lease| lease.client == id));
            self.close_epochs(|client, _| client == id);
        }
        let member = self.clients.get_mut(&id).expect("known client");
        (member.key, member.is_online, member.candidates) = (EncodedKey(key), true, Vec::new());
        let (ipv4, ipv6) = (member.ipv4, member.ipv6);
        let visible = self.resources.values().filter(|resource| self.access.contains(&(id, resource.id)));
        let valid = |(lease_id, lease): (&AuthorizationId, &Lease)| ValidAuthorization {
            id: *lease_id,
            resource: lease.resource,
            gateway: lease.gateway,
            expires_at_ms: lease.expires_at_ms,
        };
        let init = client::Init {
            portal_time_ms: now_ms,
            client: id,
            actor_name: "Ada".into(),
            interface: interface(ipv4, ipv6),
            resources: visible.cloned().collect(),
            relays,
            authorizations: self.leases.iter().filter(|(_, lease)| lease.client == id).map(valid).collect(),
            session_expires_at_ms: None,
            keeps_flows: true,
        };
        out.push(Out::Client(id, PortalToClient::Init(init)));
        out
    }

    /// A gateway says hello and gets everything; a new key ends what the old one had.
    pub(crate) fn gateway_hello(
        &mut self,
        now_ms: u64,
        id: GatewayId,
        key: [u8; 32],
        relays: Vec<RelayAccess>,
    ) -> Vec<Out> {
        self.expire(now_ms);
        let mut out = Vec::new();
        if self.gateways[&id].member.key.0 != key {
            out.extend(self.end_where(|lease| lease.gateway == id));
            self.close_epochs(|_, gateway| gateway == id);
        }
        let gateway = self.gateways.get_mut(&id).expect("known gateway");
        (gateway.is_draining, gateway.back_by_ms) = (false, 0);
        let member = &mut gateway.member;
        (member.key, member.is_online, member.candidates) = (EncodedKey(key), true, Vec::new());
        let (ipv4, ipv6, site) = (member.ipv4, member.ipv6, gateway.site);
        let leases = self.leases.iter().filter(|(_, lease)| lease.gateway == id);
        let init = gateway::Init {
            portal_time_ms: now_ms,
            keeps_flows: true,
            gateway: id,
            site: adit_policy::Site { id: site, name: "site".into() },
            interface: interface(ipv4, ipv6),
            relays,
            authorizations: leases.map(|(id, lease)| self.for_gateway(*id, lease)).collect(),
        };
        out.push(Out::Gateway(id, PortalToGateway::Init(init)));
        out
    }

    /// A client's session is over: its gateways get a hint.
    pub(crate) fn client_lost(&mut self, id: ClientId) -> Vec<Out> {
        let member = self.clients.get_mut(&id).expect("known client");
        (member.is_online, member.candidates) = (false, Vec::new());
        let gone = PortalToGateway::ClientGone(gateway::ClientGone { client: id });
        let gateways: BTreeSet<GatewayId> =
            self.leases.values().filter(|lease| lease.client == id).map(|lease| lease.gateway).collect();
        gateways.into_iter().map(|gateway| Out::Gateway(gateway, gone.clone())).collect()
    }

    /// A gateway's session is over: its clients get a hint.
    pub(crate) fn gateway_lost(&mut self, id: GatewayId) -> Vec<Out> {
        let gateway = self.gateways.get_mut(&id).expect("known gateway");
        (gateway.member.is_online, gateway.member.candidates) = (false, Vec::new());
        gateway.is_draining = false;
        let gone = PortalToClient::GatewayGone(client::GatewayGone { gateway: id });
        let clients: BTreeSet<ClientId> =
            self.leases.values().filter(|lease| lease.gateway == id).map(|lease| lease.client).collect();
        clients.into_iter().map(|client| Out::Client(client, gone.clone())).collect()
    }

    pub(crate) fn take_from_client(
        &mut self,
        now_ms: u64,
        id: ClientId,
        message: ClientToPortal,
    ) -> Vec<Out> {
        self.expire(now_ms);
        match message {
            ClientToPortal::RequestAuthorization(request) => self.authorize(now_ms, id, &request),
            ClientToPortal::Candidates(update) => {
                let member = self.clients.get_mut(&id).expect("known client");
                apply(&mut member.candidates, &update.added, &update.removed);
                self.open_pairs(|client, _| client == id)
                    .map(|(_, gateway)| {
                        let candidates = gateway::PeerCandidates { client: id, update: update.clone() };
                        Out::Gateway(gateway, PortalToGateway::PeerCandidates(candidates))
                    })
                    .collect()
            }
            ClientToPortal::ConnectionClosed(closed) => self.close(id, closed.gateway, closed.epoch),
            ClientToPortal::SignOut(_) => {
                self.close_epochs(|client, _| client == id);
                self.end_where(|lease| lease.client == id)
            }
            ClientToPortal::Hello(_) | ClientToPortal::RequestRelays(_) | ClientToPortal::Flows(_) => {
                Vec::new()
            }
        }
    }

    pub(crate) fn take_from_gateway(
        &mut self,
        now_ms: u64,
        id: GatewayId,
        message: GatewayToPortal,
    ) -> Vec<Out> {
        self.expire(now_ms);
        match message {
            GatewayToPortal::Candidates(update) => {
                let member = &mut self.gateways.get_mut(&id).expect("known gateway").member;
                apply(&mut member.candidates, &update.added, &update.removed);
                self.open_pairs(|_, gateway| gateway == id)
                    .map(|(client, _)| {
                        let candidates = client::PeerCandidates { gateway: id, update: update.clone() };
                        Out::Client(client, PortalToClient::PeerCandidates(candidates))
                    })
                    .collect()
            }
            GatewayToPortal::Draining(draining) => {
                let gateway = self.gateways.get_mut(&id).expect("known gateway");
                gateway.is_draining = true;
                gateway.back_by_ms = draining.retry_after_ms.map_or(0, |after| now_ms + after);
                Vec::new()
            }
            GatewayToPortal::ConnectionClosed(closed) => self.close(closed.client, id, closed.epoch),
            GatewayToPortal::Hello(_) | GatewayToPortal::RequestRelays(_) | GatewayToPortal::Flows(_) => {
                Vec::new()
            }
        }
    }

    /// An administrator lets a client reach a resource.
    pub(crate) fn grant(&mut self, client: ClientId, resource: ResourceId) -> Vec<Out> {
        self.access.insert((client, resource));
        vec![Out::Client(client, PortalToClient::ResourceChanged(self.resources[&resource].clone()))]
    }

    /// An administrator takes it away; gateways hear first.
    pub(crate) fn revoke(&mut self, client: ClientId, resource: ResourceId) -> Vec<Out> {
        self.access.remove(&(client, resource));
        let mut out = self.end_where(|lease| (lease.client, lease.resource) == (client, resource));
        let removed = client::ResourceRemoved { id: resource };
        out.push(Out::Client(client, PortalToClient::ResourceRemoved(removed)));
        out
    }

    fn expire(&mut self, now_ms: u64) {
        self.leases.retain(|_, lease| lease.expires_at_ms > now_ms);
    }

    fn open_pairs(
        &self,
        condition: impl Fn(ClientId, GatewayId) -> bool,
    ) -> impl Iterator<Item = (ClientId, GatewayId)> {
        let open = self
            .epochs
            .iter()
            .filter(move |((client, gateway), epoch)| epoch.is_open && condition(*client, *gateway));
        open.map(|(pair, _)| *pair)
    }

    fn close_epochs(&mut self, condition: impl Fn(ClientId, GatewayId) -> bool) {
        for ((client, gateway), epoch) in &mut self.epochs {
            if condition(*client, *gateway) {
                epoch.is_open = false;
            }
        }
    }

    fn close(&mut self, client: ClientId, gateway: GatewayId, closed: u64) -> Vec<Out> {
        let Some(epoch) = self.epochs.get_mut(&(client, gateway)) else { return Vec::new() };
        if epoch.number != closed || !epoch.is_open {
            return Vec::new();
        }
        epoch.is_open = false;
        self.end_where(|lease| (lease.client, lease.gateway) == (client, gateway))
    }

    /// Ends leases and tells both ends.
    fn end_where(&mut self, condition: impl Fn(&Lease) -> bool) -> Vec<Out> {
        let ended: Vec<AuthorizationId> =
            self.leases.iter().filter(|(_, lease)| condition(lease)).map(|(id, _)| *id).collect();
        let mut out = Vec::new();
        for id in ended {
            let Some(Lease { client, gateway, resource, .. }) = self.leases.remove(&id) else { continue };
            let for_gateway = gateway::AuthorizationRevoked { id, client, resource };
            let for_client = client::AuthorizationRevoked { id, resource, gateway };
            out.push(Out::Gateway(gateway, PortalToGateway::AuthorizationRevoked(for_gateway)));
            out.push(Out::Client(client, PortalToClient::AuthorizationRevoked(for_client)));
        }
        out
    }

    fn authorize(&mut self, now_ms: u64, id: ClientId, request: &RequestAuthorization) -> Vec<Out> {
        let fail = |reason, retry_after_ms| {
            let (request_id, resource) = (request.request_id, request.resource);
            let failed = AuthorizationFailed { request_id, resource, reason, retry_after_ms };
            vec![Out::Client(id, PortalToClient::AuthorizationFailed(failed))]
        };
        let Some(site) = self.resources.get(&request.resource).map(|resource| resource.site.id) else {
            return fail(FailureReason::NotFound, None);
        };
        if !self.access.contains(&(id, request.resource)) {
            return fail(FailureReason::Forbidden, None);
        }
        let Some(gateway) = self.choose(now_ms, id, site, request) else {
            let mut of_site = self.gateways.values().filter(|gateway| gateway.site == site);
            return if of_site.any(|gateway| gateway.back_by_ms > now_ms) {
                fail(FailureReason::Unavailable, Some(RETURN_PATIENCE))
            } else {
                fail(FailureReason::Offline, Some(250))
            };
        };
        let mut out = Vec::new();
        if !self.is_open(now_ms, id, gateway, request) {
            out.extend(self.end_where(|lease| (lease.client, lease.gateway) == (id, gateway)));
            let number = self.epochs.get(&(id, gateway)).map_or(1, |epoch| epoch.number + 1);
            self.epochs.insert((id, gateway), Epoch { number, is_open: true, began_ms: now_ms });
        }
        out.extend(self.lease(now_ms, id, gateway, site, request));
        out
    }

    /// Stores a lease and introduces its two ends at the same moment.
    fn lease(
        &mut self,
        now_ms: u64,
        id: ClientId,
        gateway: GatewayId,
        site: SiteId,
        request: &RequestAuthorization,
    ) -> [Out; 2] {
        self.last_lease += 1;
        let lease_id = AuthorizationId::from_uuid(Uuid::from_u128(0x5000 + self.last_lease));
        let expires_at_ms = now_ms + u64::try_from(self.lease_time.as_millis()).expect("a short time");
        let lease = Lease { client: id, gateway, resource: request.resource, expires_at_ms };
        let for_gateway = self.for_gateway(lease_id, &lease);
        let for_client = AuthorizationCreated {
            request_id: request.request_id,
            id: lease_id,
            resource: request.resource,
            site,
            expires_at_ms,
            gateway: self.introduce(id, gateway, gateway, &self.gateways[&gateway].member, false),
        };
        self.leases.insert(lease_id, lease);
        [
            Out::Client(id, PortalToClient::AuthorizationCreated(Box::new(for_client))),
            Out::Gateway(gateway, PortalToGateway::AuthorizationCreated(Box::new(for_gateway))),
        ]
    }

    fn is_open(&self, now_ms: u64, id: ClientId, gateway: GatewayId, request: &RequestAuthorization) -> bool {
        let Some(epoch) = self.epochs.get(&(id, gateway)).filter(|epoch| epoch.is_open) else { return false };
        // Like the real one: an epoch that carries nothing any more is over.
        if !self.leases.values().any(|lease| (lease.client, lease.gateway) == (id, gateway)) {
            return false;
        }
        let said = request.connected_gateways.iter().find(|connected| connected.id == gateway);
        said.is_some_and(|said| said.epoch == epoch.number) || epoch.began_ms + INTRODUCTION_GRACE > now_ms
    }

    fn choose(
        &self,
        now_ms: u64,
        id: ClientId,
        site: SiteId,
        request: &RequestAuthorization,
    ) -> Option<GatewayId> {
        let serving = self
            .gateways
            .iter()
            .filter(|(_, gateway)| gateway.site == site && gateway.member.is_online && !gateway.is_draining);
        let load =
            |gateway: &GatewayId| self.leases.values().filter(|lease| lease.gateway == *gateway).count();
        let rank = |gateway: &GatewayId| {
            let avoided = request.avoid_gateways.iter().position(|avoided| avoided == gateway);
            let is_open = self.is_open(now_ms, id, *gateway, request);
            let is_preferred = request.prefer_gateway == Some(*gateway);
            (avoided.map(std::cmp::Reverse), !is_preferred, !is_open, load(gateway), *gateway)
        };
        serving.map(|(gateway, _)| *gateway).min_by_key(rank)
    }

    fn for_gateway(&self, id: AuthorizationId, lease: &Lease) -> GatewayAuthorization {
        let member = &self.clients[&lease.client];
        GatewayAuthorization {
            id,
            client: self.introduce(lease.client, lease.gateway, lease.client, member, true),
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
        let epoch = self.epochs[&(client, gateway)].number;
        let pair = (client.as_uuid().as_u128() << 16 | gateway.as_uuid().as_u128()) & 0xffff_ffff;
        let ice = |end: &str| IceCredentials {
            ufrag: format!("{end}{pair:08x}{epoch:04x}"),
            password: format!("password-of-{end}-{pair:08x}-{epoch:08x}"),
        };
        let (local, remote) = if to_gateway { ("g", "c") } else { ("c", "g") };
        PeerIntroduction {
            id,
            name: "peer".into(),
            public_key: member.key,
            ipv4: member.ipv4,
            ipv6: member.ipv6,
            preshared_key: SecretKey([epoch.to_le_bytes()[0]; 32]),
            epoch,
            local_ice: ice(local),
            remote_ice: ice(remote),
            candidates: member.candidates.clone(),
        }
    }
}

fn apply(candidates: &mut Vec<Candidate>, added: &[Candidate], removed: &[Candidate]) {
    candidates.retain(|candidate| !removed.contains(candidate) && !added.contains(candidate));
    candidates.extend_from_slice(added);
}
