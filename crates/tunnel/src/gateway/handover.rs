//! A planned restart: what a gateway leaves to its successor on the same host.
//!
//! A gateway that is about to be replaced says goodbye with a time within which it will be back. The
//! clients keep their authorizations and flows for that long, and the successor starts with what the
//! predecessor knew: the same key, the same leases, the same names at the same addresses, the same
//! translation of every flow. It opens the same connections (same epoch, same ICE credentials)
//! before it has heard from the portal, so clients return even while the portal is away. The portal's first
//! word then decides as always: leases that it does not list end.
//!
//! Sessions are not handed over: each client makes a new handshake, and no session key is ever
//! written down.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_dataplane::{Flow, FlowKey, Origin};
use adit_packet::FlowTuple;
use adit_policy::{AuthorizationId, ClientId, Resource, ResourceId};
use adit_protocol::gateway::{Draining, GatewayAuthorization};
use adit_protocol::peer::GoodbyeReason;
use adit_protocol::{Candidate, CandidateKind, GatewayToPortal, PeerIntroduction, RelayAccess};
use serde::{Deserialize, Serialize};

use super::Gateway;
use super::clients::Client;
use super::held::Announcement;
use crate::clock::PortalClock;
use crate::flow_log::{FarEnd, Subject};
use crate::link::peer_of;

/// Flows of all clients together that are handed over; the rest begins anew.
const MOST_FLOWS: usize = 262_144;

/// What a gateway leaves to its successor; as secret as the keys in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// What the portal's clock showed when it was made.
    portal_time_ms: u64,
    interface: adit_protocol::Interface,
    /// So that clients that need a relay return even while the portal is away.
    relays: Vec<RelayAccess>,
    clients: Vec<HandedClient>,
}

/// A client with everything that rests on its leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HandedClient {
    introduction: PeerIntroduction<ClientId>,
    leases: Vec<HandedLease>,
    names: Vec<HandedName>,
    flows: Vec<HandedFlow>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HandedLease {
    id: AuthorizationId,
    resource: Resource,
    expires_at_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct HandedName {
    resource: ResourceId,
    name: String,
    proxies: Vec<IpAddr>,
    addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct HandedFlow {
    lease: AuthorizationId,
    inside: Tuple,
    beyond: Tuple,
}

/// Protocol, source, destination, source port, destination port.
type Tuple = (u8, IpAddr, IpAddr, u16, u16);

const fn tuple_of(flow: FlowTuple) -> Tuple {
    (flow.protocol, flow.source, flow.destination, flow.source_port, flow.destination_port)
}

const fn flow_of((protocol, source, destination, source_port, destination_port): Tuple) -> FlowTuple {
    FlowTuple { protocol, source, destination, source_port, destination_port }
}

impl Handover {
    /// How many clients are handed over.
    pub const fn clients(&self) -> usize {
        self.clients.len()
    }

    /// How many flows are handed over.
    pub fn flows(&self) -> usize {
        self.clients.iter().map(|client| client.flows.len()).sum()
    }
}

impl Gateway {
    /// Stops in favour of a successor, which is to serve within `back_within`, and returns what it needs.
    ///
    /// `None` when there is nothing to hand over: the portal never configured us, or we stopped before.
    pub fn hand_over(&mut self, now: Instant, back_within: Duration) -> Option<Handover> {
        if self.is_shut_down {
            return None;
        }
        let handover = self.handover(now)?;
        self.is_shut_down = true;
        let retry_after_ms = u64::try_from(back_within.as_millis()).ok();
        self.portal_messages.push_back(GatewayToPortal::Draining(Draining { retry_after_ms }));
        let clients: Vec<ClientId> = self.clients.keys().copied().collect();
        for id in clients {
            // The portal hears nothing of it: lease and epoch go on.
            if let Some(client) = self.forget_client(id) {
                let (connection, node) = (client.connection, self.link.node_mut());
                node.close(now, connection, GoodbyeReason::ShuttingDown, Some(back_within));
            }
        }
        self.resolving.clear();
        self.timers.clear_all();
        self.link.set_relays(now, Vec::new());
        self.flows.shut_down();
        self.settle(now);
        Some(handover)
    }

    fn handover(&self, now: Instant) -> Option<Handover> {
        let (interface, _) = self.configuration.as_ref()?;
        let mut room = MOST_FLOWS;
        let clients = self.clients.values().map(|client| handed(client, &mut room)).collect();
        Some(Handover {
            portal_time_ms: self.clock.unix_ms_at(now),
            interface: interface.clone(),
            relays: self.link.relays().cloned().collect(),
            clients,
        })
    }

    /// Begins where a predecessor stopped `away` ago. Call it before anything of the portal is heard.
    pub fn take_over(&mut self, now: Instant, handover: Handover, away: Duration) {
        let away = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
        self.clock = PortalClock::new(now, handover.portal_time_ms.saturating_add(away));
        self.configure(handover.interface);
        self.link.set_relays(now, handover.relays);
        for client in handover.clients {
            self.take_client(now, client);
        }
        self.settle(now);
    }

    fn take_client(&mut self, now: Instant, handed: HandedClient) {
        let HandedClient { introduction, leases, names, flows } = handed;
        let id = introduction.id;
        for HandedLease { id, resource, expires_at_ms } in leases {
            let client = introduction.clone();
            self.authorize(now, GatewayAuthorization { id, client, resource, expires_at_ms });
        }
        let Some(client) = self.clients.get_mut(&id) else { return };
        for HandedName { resource, name, proxies, addresses } in names {
            let announcement = Announcement { message_id: 0, resource, name, proxies };
            client.domains.restore(now, &announcement, addresses);
        }
        let peer = peer_of(client.connection);
        for HandedFlow { lease, inside, beyond } in flows {
            let (inside, beyond) = (flow_of(inside), flow_of(beyond));
            let leased = client.leases.get(lease).map(|lease| (lease.grant, lease.resource.id));
            let Some((grant, resource)) = leased else { continue };
            if client.owns(inside.source) && client.translations.restore(inside, beyond, grant) {
                let key = FlowKey::new(Origin::Peer(peer), inside);
                let flow = Flow::new(key, FlowKey::new(Origin::Local, beyond.reversed()), grant);
                let usage = self.link.install(flow);
                let name = client.domains.name_at(inside.destination);
                let far_end = FarEnd::Client(id);
                let subject = Subject { authorization: lease, far_end, peer, resource, beyond, name };
                self.flows.opened(now, self.clock.unix_ms_at(now), key, &usage, subject, [0, 0]);
            }
        }
    }
}

/// What is handed over of one client; `room` is how many flows there may still be.
fn handed(client: &Client, room: &mut usize) -> HandedClient {
    let mut introduction = client.introduction.clone();
    // The way that worked last is the best guess, and often one that nobody had announced.
    if let Some(path) = client.path {
        let last = Candidate { kind: CandidateKind::ServerReflexive, address: path.remote, base: None };
        introduction.candidates.insert(0, last);
    }
    let leases = client.leases.iter().map(|(id, lease)| HandedLease {
        id,
        resource: lease.resource.clone(),
        expires_at_ms: lease.expires_at_ms,
    });
    let names = client.domains.resolved_names().map(|(resource, name, proxies, addresses)| HandedName {
        resource,
        name: name.to_owned(),
        proxies: proxies.to_vec(),
        addresses: addresses.to_vec(),
    });
    let lease_of = |grant| client.leases.iter().find(|(_, lease)| lease.grant == grant).map(|(id, _)| id);
    let mut known = (None, None);
    let flows = client.translations.iter().filter_map(|(inside, beyond, grant)| {
        // Flows of one lease mostly follow each other.
        if known.0 != Some(grant) {
            known = (Some(grant), lease_of(grant));
        }
        Some(HandedFlow { lease: known.1?, inside: tuple_of(inside), beyond: tuple_of(beyond) })
    });
    let flows: Vec<HandedFlow> = flows.take(*room).collect();
    *room -= flows.len();
    HandedClient { introduction, leases: leases.collect(), names: names.collect(), flows }
}
