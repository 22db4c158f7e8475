//! The clients that hold leases, and what becomes of their connections.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_packet::{FlowTuple, protocol};
use adit_peering::{CloseReason, ConnectionId, PathInfo};
use adit_policy::{AuthorizationId, ClientId};
use adit_protocol::gateway::ConnectionClosed;
use adit_protocol::peer::GoodbyeReason;
use adit_protocol::{GatewayToPortal, PeerIntroduction};
use serde::Serialize;

use super::domains::Domains;
use super::held::Held;
use super::leases::Leases;
use super::translations::Translations;
use super::{Gateway, Timer};
use crate::answers::Answers;
use crate::link::peer_of;
use crate::statistics::Statistics;

/// A client with at least one lease.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) connection: ConnectionId,
    /// Who it is, and how the portal introduced it.
    pub(crate) introduction: PeerIntroduction<ClientId>,
    /// The path, once connected.
    pub(crate) path: Option<PathInfo>,
    pub(crate) leases: Leases,
    pub(crate) domains: Domains,
    pub(crate) translations: Translations,
    pub(crate) held: Held,
    pub(crate) answers: Answers,
}

impl Client {
    /// A client without leases whose connection begins.
    pub(crate) fn new(
        now: Instant,
        connection: ConnectionId,
        introduction: PeerIntroduction<ClientId>,
    ) -> Self {
        Self {
            connection,
            introduction,
            path: None,
            leases: Leases::new(),
            domains: Domains::default(),
            translations: Translations::default(),
            held: Held::default(),
            answers: Answers::new(now),
        }
    }

    /// Whether a packet with this source may come from the client.
    pub(crate) fn owns(&self, source: IpAddr) -> bool {
        source == IpAddr::V4(self.introduction.ipv4) || source == IpAddr::V6(self.introduction.ipv6)
    }
}

impl Client {
    /// What the flow `inside` is beyond the gateway, when its destination really is `real`.
    ///
    /// In the other IP family the client speaks under its own address of that family. `None` for protocols that cannot
    /// be translated there.
    pub(crate) fn beyond(&self, inside: FlowTuple, real: IpAddr) -> Option<FlowTuple> {
        let same_family = FlowTuple { destination: real, ..inside };
        let (source, protocol) = match (inside.protocol, real) {
            _ if real.is_ipv4() == inside.source.is_ipv4() => return Some(same_family),
            (protocol::TCP | protocol::UDP, IpAddr::V4(_)) => {
                (self.introduction.ipv4.into(), inside.protocol)
            }
            (protocol::TCP | protocol::UDP, IpAddr::V6(_)) => {
                (self.introduction.ipv6.into(), inside.protocol)
            }
            (protocol::ICMPV6, IpAddr::V4(_)) => (self.introduction.ipv4.into(), protocol::ICMP),
            (protocol::ICMP, IpAddr::V6(_)) => (self.introduction.ipv6.into(), protocol::ICMPV6),
            _ => return None,
        };
        Some(FlowTuple { source, protocol, ..same_family })
    }
}

/// A client, for status output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientStatus {
    /// The client.
    pub client: ClientId,
    /// Its name.
    pub name: String,
    /// Counts the connections with this client.
    pub epoch: u64,
    /// The path; `None` while connecting.
    pub path: Option<crate::PathStatus>,
    /// How many leases it holds.
    pub leases: usize,
    /// How many flows it has.
    pub flows: usize,
}

impl Gateway {
    /// Every client, sorted by id.
    pub fn clients(&self) -> Vec<ClientStatus> {
        let status = |(id, client): (&ClientId, &Client)| ClientStatus {
            client: *id,
            name: client.introduction.name.clone(),
            epoch: client.introduction.epoch,
            path: client.path.map(Into::into),
            leases: client.leases.len(),
            flows: client.translations.len(),
        };
        self.clients.iter().map(status).collect()
    }

    /// How much the machine holds.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            connections: self.clients.len(),
            peers: self.link.peer_count(),
            leases: self.owners.len(),
            waiting: self.clients.values().map(|client| client.held.len()).sum(),
            names: self.clients.values().map(|client| client.domains.len()).sum(),
            flows: self.clients.values().map(|client| client.translations.len()).sum(),
            timers: self.timers.len(),
            ..Statistics::of(self.link.node())
        }
    }

    /// A lease is over: its flows end at once, and with the last lease the connection.
    pub(super) fn end_lease(&mut self, now: Instant, id: AuthorizationId, reason: GoodbyeReason) {
        let Some(owner) = self.owners.get(&id).copied() else { return };
        self.drop_lease(id, reason);
        if self.clients.get(&owner).is_some_and(|client| client.leases.len() == 0) {
            self.close_client(now, owner, reason, None);
        }
    }

    /// Ends a lease and its flows, not the connection.
    pub(super) fn drop_lease(&mut self, id: AuthorizationId, reason: GoodbyeReason) {
        self.timers.clear(Timer::Lease(id));
        let Some(client) = self.owners.remove(&id).and_then(|owner| self.clients.get_mut(&owner)) else {
            return;
        };
        let Some(lease) = client.leases.remove(id) else { return };
        tracing::info!(authorization = %id, resource = %lease.resource.id, reason = reason.name(), "lease ended");
        client.translations.end_grant(lease.grant);
        self.link.revoke(lease.grant);
        if client.leases.of_resource(lease.resource.id).is_empty() {
            client.domains.remove_resource(lease.resource.id);
        }
    }

    /// Says goodbye to a client and forgets it.
    pub(super) fn close_client(
        &mut self,
        now: Instant,
        id: ClientId,
        reason: GoodbyeReason,
        retry_after: Option<Duration>,
    ) {
        if let Some(client) = self.clients.get(&id) {
            tracing::info!(client = %id, reason = reason.name(), "saying goodbye");
            self.link.node_mut().close(now, client.connection, reason, retry_after);
            self.remove_client(id);
        }
    }

    /// The connection failed or the client said goodbye: both mean the same.
    pub(super) fn closed(&mut self, connection: ConnectionId, reason: CloseReason) {
        if let Some(id) = self.by_connection.get(&connection).copied() {
            tracing::info!(client = %id, reason = reason.name(), "connection closed");
            self.remove_client(id);
        }
    }

    /// Forgets a client and tells the portal.
    fn remove_client(&mut self, id: ClientId) {
        if let Some(client) = self.forget_client(id) {
            let closed = ConnectionClosed { client: id, epoch: client.introduction.epoch };
            self.portal_messages.push_back(GatewayToPortal::ConnectionClosed(closed));
        }
    }

    /// Nothing that rested on the connection remains.
    pub(super) fn forget_client(&mut self, id: ClientId) -> Option<Client> {
        let client = self.clients.remove(&id)?;
        self.by_connection.remove(&client.connection);
        self.link.forget_flows(client.connection);
        self.flows.note_gone(peer_of(client.connection));
        for lease in client.leases.ids() {
            self.owners.remove(&lease);
            self.timers.clear(Timer::Lease(lease));
            if let Some(lease) = client.leases.get(lease) {
                self.link.revoke(lease.grant);
            }
        }
        self.timers.clear(Timer::Held(id));
        let asked: Vec<_> =
            self.resolving.iter().filter(|(_, (client, _))| *client == id).map(|(id, _)| *id).collect();
        for question in asked {
            self.resolving.remove(&question);
            self.timers.clear(Timer::Resolve(question));
        }
        Some(client)
    }
}
