//! Leases with everything that introduces their two ends, and what peers know when they connect.

use adit_policy::{ActorId, AuthorizationId, ClientId, GatewayId, Resource, ResourceId};
use adit_protocol::client::ValidAuthorization;
use sqlx::FromRow;
use uuid::Uuid;

use super::resource::{self, ResourceRow, Visible};
use super::{Connection, Store, StoreError, sql};
use crate::clock;

/// One end of a lease.
#[derive(Debug, Clone)]
pub(crate) struct LeaseEnd {
    /// A client id or a gateway id.
    pub(crate) id: Uuid,
    /// Shown to people.
    pub(crate) name: String,
    /// Its WireGuard key.
    pub(crate) public_key: [u8; 32],
    /// Which tunnel addresses it has.
    pub(crate) address_index: u32,
}

/// Everything that introduces the two ends of an authorization.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    /// The authorization.
    pub(crate) id: AuthorizationId,
    /// Until when.
    pub(crate) expires_ms: i64,
    /// Who.
    pub(crate) client: LeaseEnd,
    /// Through whom.
    pub(crate) gateway: LeaseEnd,
    /// What.
    pub(crate) resource: Resource,
    /// The epoch that carries it.
    pub(crate) connection: Connection,
}

#[derive(FromRow)]
struct LeaseRow {
    id: Uuid,
    expires_ms: i64,
    client_id: Uuid,
    client_name: String,
    client_key: Vec<u8>,
    client_index: i64,
    gateway_id: Uuid,
    gateway_name: String,
    gateway_key: Vec<u8>,
    gateway_index: i64,
    #[sqlx(flatten)]
    resource: ResourceRow,
    #[sqlx(flatten)]
    connection: Connection,
}

impl LeaseRow {
    fn into_lease(self) -> Result<Lease, StoreError> {
        let end = |id, name, key: Vec<u8>, index| {
            let damaged = || StoreError::Invalid(format!("device {id} is damaged"));
            Ok::<_, StoreError>(LeaseEnd {
                id,
                name,
                public_key: key.try_into().map_err(|_| damaged())?,
                address_index: u32::try_from(index).map_err(|_| damaged())?,
            })
        };
        Ok(Lease {
            id: AuthorizationId::from_uuid(self.id),
            expires_ms: self.expires_ms,
            client: end(self.client_id, self.client_name, self.client_key, self.client_index)?,
            gateway: end(self.gateway_id, self.gateway_name, self.gateway_key, self.gateway_index)?,
            resource: self.resource.into_resource()?,
            connection: self.connection,
        })
    }
}

/// The columns of [`LeaseRow`]; live leases on open connections only.
macro_rules! select_lease {
    ($leases:literal, $condition:literal) => {
        concat!(
            "SELECT a.id, a.expires_ms,
                    c.id AS client_id, c.name AS client_name, c.public_key AS client_key,
                    c.address_index AS client_index,
                    g.id AS gateway_id, g.name AS gateway_name, g.public_key AS gateway_key,
                    g.address_index AS gateway_index,
                    r.id AS resource_id, r.name AS resource_name, r.address, r.filters,
                    s.id AS site_id, s.name AS site_name,
                    k.epoch, k.client_ufrag, k.client_password, k.gateway_ufrag, k.gateway_password
             FROM ",
            $leases,
            "
             JOIN device c ON c.id = a.client_id
             JOIN device g ON g.id = a.gateway_id
             JOIN resource r ON r.id = a.resource_id
             JOIN site s ON s.id = r.site_id
             JOIN connection k ON k.client_id = a.client_id AND k.gateway_id = a.gateway_id AND k.is_open
             WHERE a.expires_ms > $1 AND ",
            $condition
        )
    };
}

/// The state of the store at one moment, and the last event that it includes.
#[derive(Debug)]
pub(crate) struct ClientSnapshot {
    /// Events up to here are included.
    pub(crate) seq: i64,
    /// What the actor may ask for.
    pub(crate) visible: Visible,
    /// What the client holds already.
    pub(crate) authorizations: Vec<ValidAuthorization>,
}

/// The state of the store at one moment, and the last event that it includes.
#[derive(Debug)]
pub(crate) struct GatewaySnapshot {
    /// Events up to here are included.
    pub(crate) seq: i64,
    /// Every live lease.
    pub(crate) leases: Vec<Lease>,
}

impl Store {
    /// What a client must know when it connects.
    pub(crate) async fn client_snapshot(
        &self,
        client: ClientId,
        actor: ActorId,
        now_ms: i64,
    ) -> Result<ClientSnapshot, StoreError> {
        let mut tx = self.reader.begin().await?;
        let seq = self.last_event(&mut tx).await?;
        let visible = resource::visible(&mut tx, actor, client, now_ms).await?;
        let rows: Vec<(Uuid, Uuid, Uuid, i64)> = sql::query_as(
            "SELECT id, resource_id, gateway_id, expires_ms FROM lease
             WHERE client_id = $1 AND expires_ms > $2 ORDER BY id",
        )
        .bind(client.as_uuid())
        .bind(now_ms)
        .fetch_all(&mut tx)
        .await?;
        let authorizations = rows
            .into_iter()
            .map(|(id, resource, gateway, expires_ms)| ValidAuthorization {
                id: AuthorizationId::from_uuid(id),
                resource: ResourceId::from_uuid(resource),
                gateway: GatewayId::from_uuid(gateway),
                expires_at_ms: clock::wire_ms(expires_ms),
            })
            .collect();
        Ok(ClientSnapshot { seq, visible, authorizations })
    }

    /// What a gateway must know when it connects.
    pub(crate) async fn gateway_snapshot(
        &self,
        gateway: GatewayId,
        now_ms: i64,
    ) -> Result<GatewaySnapshot, StoreError> {
        let mut tx = self.reader.begin().await?;
        let seq = self.last_event(&mut tx).await?;
        let rows: Vec<LeaseRow> = sql::query_as(select_lease!("lease a", "a.gateway_id = $2 ORDER BY a.id"))
            .bind(now_ms)
            .bind(gateway.as_uuid())
            .fetch_all(&mut tx)
            .await?;
        let leases = rows.into_iter().map(LeaseRow::into_lease).collect::<Result<_, _>>()?;
        Ok(GatewaySnapshot { seq, leases })
    }

    /// Those of these leases that are live.
    pub(crate) async fn leases(
        &self,
        ids: &[AuthorizationId],
        now_ms: i64,
    ) -> Result<Vec<Lease>, StoreError> {
        const SELECT: sql::Statement = sql::listed!(
            asked ("$2" id: uuid),
            select_lease!("asked CROSS JOIN lease a", "a.id = asked.id")
        );
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = ids.iter().map(|id| id.as_uuid()).collect();
        let rows: Vec<LeaseRow> =
            sql::query_as(SELECT).bind(now_ms).bind(ids).fetch_all(&self.reader).await?;
        rows.into_iter().map(LeaseRow::into_lease).collect()
    }
}
