//! What the portal says to the gateway.

use std::collections::BTreeSet;
use std::time::Instant;

use adit_peering::Hint;
use adit_policy::{AuthorizationId, ClientId, Resource};
use adit_protocol::gateway::{GatewayAuthorization, Init, PeerCandidates};
use adit_protocol::peer::GoodbyeReason;
use adit_protocol::{
    CandidateUpdate, GatewayToPortal, Interface as Configuration, PeerIntroduction, PortalToGateway,
};
use ipnet::IpNet;

use super::clients::Client;
use super::leases::Lease;
use super::{Gateway, GatewayEvent, Timer};
use crate::address::TunnelRanges;
use crate::clock::PortalClock;
use crate::drops::DropReason;
use crate::interface::Interface;

/// Candidates of one client that are remembered for a successor; the portal's order puts the best first.
const MOST_CANDIDATES: usize = 64;

impl Gateway {
    /// The control session stands; the portal's init follows.
    pub fn handle_portal_connected(&mut self, _now: Instant) {}

    /// The control session is gone: leases stay until they end.
    pub fn handle_portal_lost(&mut self, _now: Instant) {
        self.is_portal_online = false;
    }

    /// Takes a message of the portal.
    pub fn handle_portal(&mut self, now: Instant, message: PortalToGateway) {
        if self.is_shut_down {
            return;
        }
        match message {
            PortalToGateway::Init(init) => self.initialise(now, init),
            PortalToGateway::AuthorizationCreated(created) => self.authorize(now, *created),
            PortalToGateway::AuthorizationRevoked(revoked) => {
                self.end_lease(now, revoked.id, GoodbyeReason::Revoked);
            }
            PortalToGateway::ResourceChanged(resource) => self.change_resource(now, &resource),
            PortalToGateway::PeerCandidates(candidates) => self.peer_candidates(now, &candidates),
            PortalToGateway::ClientGone(gone) => {
                if let Some(client) = self.clients.get(&gone.client) {
                    self.link.node_mut().hint(now, client.connection, Hint::ControlSessionLost);
                }
            }
            PortalToGateway::RelaysChanged(change) => self.link.change_relays(now, change),
            PortalToGateway::InterfaceChanged(configuration) => self.configure(configuration),
            // Whoever sends the reports keeps them until then.
            PortalToGateway::FlowsStored(_) => {}
            PortalToGateway::FlowLogChanged(changed) => self.flows.enable(changed.keeps_flows),
            PortalToGateway::Disconnect(disconnect) => {
                tracing::info!(reason = ?disconnect.reason, "the portal closes the session");
            }
        }
        self.settle(now);
    }

    /// Takes over the complete state; leases that are not in it are gone.
    fn initialise(&mut self, now: Instant, init: Init) {
        self.clock = PortalClock::new(now, init.portal_time_ms);
        self.is_portal_online = true;
        self.flows.enable(init.keeps_flows);
        self.configure(init.interface);
        self.link.set_relays(now, init.relays);
        let listed: BTreeSet<AuthorizationId> = init.authorizations.iter().map(|lease| lease.id).collect();
        // First what is there, so that no client is sent away that only changes its leases.
        for authorization in init.authorizations {
            self.authorize(now, authorization);
        }
        let gone: Vec<AuthorizationId> =
            self.owners.keys().filter(|id| !listed.contains(id)).copied().collect();
        for id in gone {
            self.end_lease(now, id, GoodbyeReason::Revoked);
        }
        let candidates = CandidateUpdate { added: self.local_candidates(), removed: Vec::new() };
        self.portal_messages.push_back(GatewayToPortal::Candidates(candidates));
    }

    /// Adds a lease, and connects to the client if that has not happened.
    pub(super) fn authorize(&mut self, now: Instant, authorization: GatewayAuthorization) {
        let GatewayAuthorization { id, client: introduced, resource, expires_at_ms } = authorization;
        let expires = self.clock.instant_of(expires_at_ms);
        let client_id = introduced.id;
        let is_anothers = self.owners.get(&id).is_some_and(|owner| *owner != client_id);
        if expires <= now || is_anothers || !self.use_client(now, introduced) {
            return self.link.drops.count(DropReason::StaleMessage);
        }
        let Some(client) = self.clients.get_mut(&client_id) else { return };
        let is_renewal = client.leases.get(id).is_some_and(|lease| lease.resource == resource);
        if !is_renewal {
            let (grant, of_resource) = (self.link.next_grant(), resource.id);
            let lease = Lease { resource, grant, expires_at_ms };
            if let Some(replaced) = client.leases.insert(id, lease) {
                client.translations.end_grant(replaced);
                self.link.revoke(replaced);
            }
            // The newest lease on a resource carries all flows to it, so that none ends with an older one.
            for other in client.leases.of_resource(of_resource) {
                if let Some(older) =
                    client.leases.get(other).map(|lease| lease.grant).filter(|old| *old != grant)
                {
                    client.translations.move_grant(older, grant);
                    self.link.move_grant(older, grant);
                }
            }
        }
        client.leases.set_end(id, expires_at_ms);
        self.owners.insert(id, client_id);
        self.timers.set(Timer::Lease(id), expires);
        self.release(now, client_id);
    }

    /// Finds the client's connection open, or opens it; false for an outdated introduction.
    fn use_client(&mut self, now: Instant, introduced: PeerIntroduction<ClientId>) -> bool {
        let Some(own_address) = self.configuration.as_ref().map(|(configuration, _)| configuration.ipv6)
        else {
            return false;
        };
        if let Some(open) = self.clients.get(&introduced.id) {
            let (epoch, connection) = (open.introduction.epoch, open.connection);
            if introduced.epoch < epoch {
                return false;
            }
            if introduced.epoch == epoch {
                self.link.node_mut().add_remote_candidates(now, connection, &introduced.candidates);
                return true;
            }
            // The client dropped the older connection, and with it what was granted through it.
            self.link.node_mut().forget(now, connection);
            self.forget_client(introduced.id);
        }
        match self.link.open(now, own_address, &introduced) {
            Ok(connection) => {
                let id = introduced.id;
                self.by_connection.insert(connection, id);
                self.clients.insert(id, Client::new(now, connection, introduced));
                true
            }
            Err(error) => {
                tracing::warn!(client = %introduced.id, %error, "cannot open a connection");
                false
            }
        }
    }

    /// A resource changed: flows that rest on its old form are judged again.
    fn change_resource(&mut self, now: Instant, resource: &Resource) {
        let ids: Vec<ClientId> = self.clients.keys().copied().collect();
        for client_id in ids {
            let Some(client) = self.clients.get_mut(&client_id) else { continue };
            let leases = client.leases.of_resource(resource.id);
            for id in &leases {
                let expires_at_ms = client.leases.get(*id).map_or(0, |lease| lease.expires_at_ms);
                let lease =
                    Lease { resource: resource.clone(), grant: self.link.next_grant(), expires_at_ms };
                if let Some(replaced) = client.leases.insert(*id, lease) {
                    client.translations.end_grant(replaced);
                    self.link.revoke(replaced);
                }
            }
            if !leases.is_empty() {
                self.release(now, client_id);
            }
        }
    }

    fn peer_candidates(&mut self, now: Instant, candidates: &PeerCandidates) {
        let Some(client) = self.clients.get_mut(&candidates.client) else {
            return self.link.drops.count(DropReason::StaleMessage);
        };
        let known = &mut client.introduction.candidates;
        known.retain(|candidate| !candidates.update.removed.contains(candidate));
        known.extend(candidates.update.added.iter().copied());
        known.truncate(MOST_CANDIDATES);
        let (connection, node) = (client.connection, self.link.node_mut());
        node.add_remote_candidates(now, connection, &candidates.update.added);
        node.remove_remote_candidates(now, connection, &candidates.update.removed);
    }

    /// Tells the program how the interface is to look, if that is news.
    pub(super) fn configure(&mut self, configuration: Configuration) {
        if self.configuration.as_ref().is_some_and(|(present, _)| *present == configuration) {
            return;
        }
        let ranges = TunnelRanges::new(&configuration);
        self.configuration = Some((configuration, ranges));
        self.publish_interface();
    }

    /// Tells the program how the interface is to look.
    pub(super) fn publish_interface(&mut self) {
        let Some((configuration, ranges)) = &self.configuration else { return };
        let mut routes = IpNet::aggregate(&ranges.tunnel().to_vec());
        routes.sort_unstable();
        self.events.push_back(GatewayEvent::InterfaceChanged(Interface {
            ipv4: configuration.ipv4,
            ipv6: configuration.ipv6,
            mtu: self.link.interface_mtu(),
            proxy_ranges: Vec::new(),
            routes,
            default_route: false,
            dns_servers: Vec::new(),
            search_domains: Vec::new(),
        }));
    }
}
