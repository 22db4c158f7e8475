//! What the portal says to the client.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use adit_peering::Hint;
use adit_policy::{AuthorizationId, GatewayId, Resource, ResourceAddress, ResourceId};
use adit_protocol::client::{Init, PeerCandidates, ValidAuthorization};
use adit_protocol::{CandidateUpdate, ClientToPortal, Interface as Configuration, PortalToClient};
use ipnet::IpNet;

use super::connection::AVOID_FOR;
use super::{Client, ClientEvent, Timer};
use crate::address::proxy_share;
use crate::clock::PortalClock;
use crate::drops::DropReason;
use crate::interface::Interface;

impl Client {
    /// The control session stands; the portal's init follows.
    pub fn handle_portal_connected(&mut self, _now: Instant) {}

    /// The control session is gone: what was granted stays until its lease ends.
    pub fn handle_portal_lost(&mut self, _now: Instant) {
        self.is_portal_online = false;
    }

    /// Takes a message of the portal.
    pub fn handle_portal(&mut self, now: Instant, message: PortalToClient) {
        if self.is_shut_down {
            return;
        }
        match message {
            PortalToClient::Init(init) => self.initialise(now, init),
            PortalToClient::ResourceChanged(resource) => {
                self.change_resource(now, resource);
                self.resources_changed(now);
            }
            PortalToClient::ResourceRemoved(removed) => {
                self.remove_resource(now, removed.id);
                self.resources_changed(now);
            }
            PortalToClient::AuthorizationCreated(created) => self.authorization_created(now, *created),
            PortalToClient::AuthorizationFailed(failed) => self.authorization_failed(now, failed),
            PortalToClient::AuthorizationRevoked(revoked) => {
                self.end_authorization(now, revoked.id, "revoked")
            }
            PortalToClient::PeerCandidates(candidates) => self.peer_candidates(now, &candidates),
            PortalToClient::GatewayGone(gone) => self.gateway_gone(now, gone.gateway),
            PortalToClient::RelaysChanged(change) => self.link.change_relays(now, change),
            PortalToClient::InterfaceChanged(configuration) => {
                self.configure(now, configuration);
                self.publish_interface();
            }
            // The program around keeps the reports.
            PortalToClient::FlowsStored(_) => {}
            PortalToClient::FlowLogChanged(changed) => self.flows.enable(changed.keeps_flows),
            PortalToClient::SignIn(sign_in) => {
                tracing::debug!(is_too_old = sign_in.is_too_old, "the portal told the age of the sign-in");
            }
            PortalToClient::Disconnect(disconnect) => {
                tracing::info!(reason = ?disconnect.reason, "the portal closes the session");
            }
        }
        self.settle(now);
    }

    /// Takes over the complete state; what is not in it is gone.
    fn initialise(&mut self, now: Instant, init: Init) {
        self.clock = PortalClock::new(now, init.portal_time_ms);
        self.is_portal_online = true;
        self.flows.enable(init.keeps_flows);
        self.configure(now, init.interface);
        self.link.set_relays(now, init.relays);
        self.keep_authorizations(now, &init.authorizations);
        let listed: BTreeSet<ResourceId> = init.resources.iter().map(|resource| resource.id).collect();
        let gone: Vec<ResourceId> =
            self.resources.iter().map(|resource| resource.id).filter(|id| !listed.contains(id)).collect();
        for resource in init.resources {
            self.change_resource(now, resource);
        }
        for id in gone {
            self.remove_resource(now, id);
        }
        let candidates = CandidateUpdate { added: self.local_candidates(), removed: Vec::new() };
        self.portal_messages.push_back(ClientToPortal::Candidates(candidates));
        self.resources_changed(now);
        self.resend_requests(now);
    }

    fn keep_authorizations(&mut self, now: Instant, valid: &[ValidAuthorization]) {
        let valid: BTreeMap<AuthorizationId, &ValidAuthorization> =
            valid.iter().map(|authorization| (authorization.id, authorization)).collect();
        let ended = self.accesses.authorizations_where(|id, held| {
            valid
                .get(&id)
                .is_none_or(|listed| (listed.resource, listed.gateway) != (held.resource, held.gateway))
        });
        for id in ended {
            self.end_authorization(now, id, "no longer valid");
        }
        for id in self.accesses.authorizations_where(|_, _| true) {
            if let Some(listed) = valid.get(&id) {
                self.timers.set(Timer::Lease(id), self.clock.instant_of(listed.expires_at_ms));
            }
        }
    }

    /// A resource is new, or changed: what rested on its old form is decided again.
    fn change_resource(&mut self, now: Instant, resource: Resource) {
        let id = resource.id;
        let (address, site, filters) = (resource.address.clone(), resource.site.id, resource.filters.clone());
        let Some(old) = self.resources.insert(resource) else { return };
        let moved = old.address != address || old.site.id != site;
        let held = self.accesses.authorizations_where(|_, held| held.resource == id);
        for authorization in held {
            if moved {
                self.end_authorization(now, authorization, "resource moved");
            } else if old.filters != filters {
                let grant = self.link.next_grant();
                if let Some(old) = self.accesses.rename_grant(authorization, grant) {
                    self.link.revoke(old);
                }
            }
        }
        if (moved || old.filters != filters)
            && let Some(access) = self.accesses.get_mut(id)
        {
            access.refusal = None;
        }
    }

    fn remove_resource(&mut self, now: Instant, id: ResourceId) {
        if self.resources.remove(id).is_none() {
            return;
        }
        for authorization in self.accesses.authorizations_where(|_, held| held.resource == id) {
            self.end_authorization(now, authorization, "resource removed");
        }
        // What still waits is routed once more, and finds another resource or nothing.
        self.flush(now, id);
        self.accesses.remove(id);
        self.timers.clear(Timer::Request(id));
        self.timers.clear(Timer::Queue(id));
    }

    /// The list of resources is complete again: brings everything else in line with it.
    fn resources_changed(&mut self, now: Instant) {
        let patterns = self.resources.iter().filter_map(|resource| match &resource.address {
            ResourceAddress::Dns { pattern } => Some((resource.id, pattern.as_str())),
            _ => None,
        });
        self.names.set_resources(patterns);
        self.leave_lost_sites(now);
        self.publish_interface();
        self.events.push_back(ClientEvent::ResourcesChanged);
    }

    fn peer_candidates(&mut self, now: Instant, candidates: &PeerCandidates) {
        let Some(gateway) = self.gateways.get(candidates.gateway) else {
            return self.link.drops.count(DropReason::StaleMessage);
        };
        let (connection, node) = (gateway.connection, self.link.node_mut());
        node.add_remote_candidates(now, connection, &candidates.update.added);
        node.remove_remote_candidates(now, connection, &candidates.update.removed);
    }

    /// The portal lost a gateway: a hint for a connection that works, and the end of one that is still being
    /// made, since what is left to try is most likely nobody's any more and another gateway may serve.
    fn gateway_gone(&mut self, now: Instant, id: GatewayId) {
        let Some(gateway) = self.gateways.get(id) else { return };
        if gateway.path.is_none() && !gateway.is_held {
            self.gateways.avoid(now, id, now + AVOID_FOR);
            return self.leave_gateway(now, id, None);
        }
        self.link.node_mut().hint(now, gateway.connection, Hint::ControlSessionLost);
    }

    fn configure(&mut self, now: Instant, mut configuration: Configuration) {
        let proxies = (configuration.ipv4_proxy_range, configuration.ipv6_proxy_range);
        (configuration.ipv4_proxy_range, configuration.ipv6_proxy_range) = proxy_share(proxies, self.profile);
        let addresses = |configuration: &Configuration| (configuration.ipv4, configuration.ipv6);
        let moved =
            self.configuration.as_ref().is_some_and(|old| addresses(old) != addresses(&configuration));
        if moved {
            // Gateways accept the addresses that they were introduced to, and no others.
            for id in self.gateways.ids() {
                self.leave_gateway(now, id, None);
            }
        }
        self.names.configure(now, &configuration);
        self.configuration = Some(configuration);
    }

    /// Tells the program how the interface is to look, if that is news.
    pub(super) fn publish_interface(&mut self) {
        let Some(configuration) = &self.configuration else { return };
        let proxy: [IpNet; 2] =
            [configuration.ipv4_proxy_range.trunc().into(), configuration.ipv6_proxy_range.trunc().into()];
        let (ipv4, ipv6) = self.names.resolver();
        let networks: Vec<IpNet> = proxy.iter().copied().chain(self.resources.networks()).collect();
        let mut routes = IpNet::aggregate(&networks);
        routes.sort_unstable();
        let interface = Interface {
            ipv4: configuration.ipv4,
            ipv6: configuration.ipv6,
            mtu: self.link.interface_mtu(),
            proxy_ranges: proxy.to_vec(),
            routes,
            default_route: self.resources.has_internet(),
            dns_servers: vec![IpAddr::V4(ipv4), IpAddr::V6(ipv6)],
            search_domains: configuration.search_domains.clone(),
        };
        if self.published.as_ref() != Some(&interface) {
            self.published = Some(interface.clone());
            self.events.push_back(ClientEvent::InterfaceChanged(interface));
        }
    }
}
