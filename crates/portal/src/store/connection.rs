//! Connections: what one client and one gateway share for one epoch.
//!
//! An epoch begins when the two are introduced and ends when either says that the connection
//! is gone or comes back with another key. Its ICE credentials are stored, so that another
//! authorization of the same epoch, or a gateway that has reconnected, gets the same ones.

use adit_policy::{ClientId, GatewayId};
use adit_protocol::IceCredentials;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Revoke, Store, StoreError, sql};

/// The epoch of a pair and its credentials.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct Connection {
    /// Counts the connections of the pair.
    pub(crate) epoch: i64,
    client_ufrag: String,
    client_password: String,
    gateway_ufrag: String,
    gateway_password: String,
}

impl Connection {
    /// The client's credentials.
    pub(crate) fn client_ice(&self) -> IceCredentials {
        IceCredentials { ufrag: self.client_ufrag.clone(), password: self.client_password.clone() }
    }

    /// The gateway's credentials.
    pub(crate) fn gateway_ice(&self) -> IceCredentials {
        IceCredentials { ufrag: self.gateway_ufrag.clone(), password: self.gateway_password.clone() }
    }

    /// The epoch as it goes over the wire.
    pub(crate) fn wire_epoch(&self) -> u64 {
        u64::try_from(self.epoch).unwrap_or(0)
    }
}

/// Credentials for a new epoch.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionIce {
    /// The client's.
    pub(crate) client: IceCredentials,
    /// The gateway's.
    pub(crate) gateway: IceCredentials,
}

/// A client and a gateway that are introduced anew.
#[derive(Debug, Clone)]
pub(crate) struct NewEpoch {
    /// The client.
    pub(crate) client: ClientId,
    /// The gateway.
    pub(crate) gateway: GatewayId,
    /// For both.
    pub(crate) ice: ConnectionIce,
}

impl Store {
    /// Clients that hold a live authorization through a gateway.
    pub(crate) async fn clients_of(
        &self,
        gateway: GatewayId,
        now_ms: i64,
    ) -> Result<Vec<ClientId>, StoreError> {
        let ids: Vec<Uuid> = sql::query_scalar(
            "SELECT DISTINCT client_id FROM lease WHERE gateway_id = $1 AND expires_ms > $2",
        )
        .bind(gateway.as_uuid())
        .bind(now_ms)
        .fetch_all(&self.reader)
        .await?;
        Ok(ids.into_iter().map(ClientId::from_uuid).collect())
    }

    /// Gateways through which a client holds a live authorization.
    pub(crate) async fn gateways_of(
        &self,
        client: ClientId,
        now_ms: i64,
    ) -> Result<Vec<GatewayId>, StoreError> {
        let ids: Vec<Uuid> = sql::query_scalar(
            "SELECT DISTINCT gateway_id FROM lease WHERE client_id = $1 AND expires_ms > $2",
        )
        .bind(client.as_uuid())
        .bind(now_ms)
        .fetch_all(&self.reader)
        .await?;
        Ok(ids.into_iter().map(GatewayId::from_uuid).collect())
    }
}

impl Change {
    /// Begins new epochs; what rested on the ones before ends.
    pub(crate) async fn begin_epochs(&mut self, new: &[NewEpoch]) -> Result<(), StoreError> {
        // Without the condition, which says nothing, SQLite takes the next words for a join.
        const INSERT: sql::Statement = sql::listed!(
            new ("$1" client: uuid, "$2" gateway: uuid, "$3" client_ufrag: text, "$4" client_password: text,
                 "$5" gateway_ufrag: text, "$6" gateway_password: text),
            "INSERT INTO connection (client_id, gateway_id, epoch, is_open, client_ufrag, client_password,
                                     gateway_ufrag, gateway_password, created_ms)
             SELECT client, gateway, 1, TRUE, client_ufrag, client_password, gateway_ufrag,
                    gateway_password, $7 FROM new WHERE TRUE
             ON CONFLICT (client_id, gateway_id) DO UPDATE SET
                 epoch = connection.epoch + 1, is_open = TRUE,
                 client_ufrag = excluded.client_ufrag, client_password = excluded.client_password,
                 gateway_ufrag = excluded.gateway_ufrag, gateway_password = excluded.gateway_password,
                 created_ms = excluded.created_ms"
        );
        if new.is_empty() {
            return Ok(());
        }
        let pairs: Vec<_> = new.iter().map(|new| (new.client, new.gateway)).collect();
        self.revoke_pairs(&pairs).await?;
        let at = self.at_ms();
        let texts = |of: fn(&ConnectionIce) -> &String| {
            new.iter().map(|new| of(&new.ice).clone()).collect::<Vec<_>>()
        };
        sql::query(INSERT)
            .bind(new.iter().map(|new| new.client.as_uuid()).collect::<Vec<_>>())
            .bind(new.iter().map(|new| new.gateway.as_uuid()).collect::<Vec<_>>())
            .bind(texts(|ice| &ice.client.ufrag))
            .bind(texts(|ice| &ice.client.password))
            .bind(texts(|ice| &ice.gateway.ufrag))
            .bind(texts(|ice| &ice.gateway.password))
            .bind(at)
            .execute(self.sql())
            .await?;
        Ok(())
    }

    /// Ends a connection; `false` when that epoch was over already.
    pub(crate) async fn close_connection(
        &mut self,
        client: ClientId,
        gateway: GatewayId,
        epoch: u64,
    ) -> Result<bool, StoreError> {
        let closed = sql::query(
            "UPDATE connection SET is_open = FALSE
             WHERE client_id = $1 AND gateway_id = $2 AND epoch = $3 AND is_open",
        )
        .bind(client.as_uuid())
        .bind(gateway.as_uuid())
        .bind(i64::try_from(epoch).unwrap_or(-1))
        .execute(self.sql())
        .await?;
        if closed == 0 {
            return Ok(false);
        }
        self.revoke(Revoke::Pair { client, gateway }).await?;
        Ok(true)
    }
}
