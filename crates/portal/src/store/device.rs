//! Devices: the clients and gateways that said hello once, with their stable addresses.

use adit_policy::{ActorId, ClientId, GatewayId, SiteId, TokenId};
use adit_protocol::Hello;
use rand::Rng as _;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::condition::Review;
use super::{Change, Event, Page, Revoke, Store, StoreError, sql};

/// Attempts at a free tunnel address before the range counts as exhausted.
const ADDRESS_ATTEMPTS: usize = 64;

/// Whose device says hello.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Device {
    /// A client of an actor.
    Client(ActorId),
    /// A gateway of a site.
    Gateway(SiteId),
}

/// What a device says of itself when it signs in.
#[derive(Debug, Clone)]
pub(crate) struct DeviceHello<'a> {
    /// Whose it is.
    pub(crate) device: Device,
    /// Its hello.
    pub(crate) hello: &'a Hello,
    /// The token that it presented.
    pub(crate) token: TokenId,
    /// Where it connects from.
    pub(crate) address: String,
    /// How many tunnel addresses there are.
    pub(crate) capacity: u32,
}

/// A device as it is stored, for the API.
#[derive(Debug, Clone, Serialize, FromRow, utoipa::ToSchema)]
pub(crate) struct DeviceRow {
    /// Names it: a client id or a gateway id.
    pub(crate) id: Uuid,
    /// `client` or `gateway`.
    pub(crate) kind: String,
    /// Whose client it is.
    pub(crate) actor_id: Option<Uuid>,
    /// Which site's gateway it is.
    pub(crate) site_id: Option<Uuid>,
    /// The token of its last sign-in.
    pub(crate) token_id: Option<Uuid>,
    /// Shown to people.
    pub(crate) name: String,
    /// The program's version.
    pub(crate) version: String,
    /// Which tunnel addresses it has.
    pub(crate) address_index: i64,
    /// Where it last connected from.
    pub(crate) remote_address: String,
    /// Since when an administrator vouches for it (clients).
    pub(crate) verified_ms: Option<i64>,
    /// When it was first seen.
    pub(crate) created_ms: i64,
    /// When it last signed in.
    pub(crate) last_seen_ms: i64,
}

/// A device that has signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SignedIn {
    /// Its client id or gateway id.
    pub(crate) id: Uuid,
    /// Which tunnel addresses it has.
    pub(crate) address_index: u32,
}

impl Store {
    /// Clients of an actor in the order of their first sign-in.
    pub(crate) async fn devices_of(&self, actor: ActorId, page: Page) -> Result<Vec<DeviceRow>, StoreError> {
        Ok(sql::query_as(
            "SELECT * FROM device WHERE account_id = $1 AND actor_id = $2 AND id > $3 ORDER BY id LIMIT $4",
        )
        .bind(self.account.as_uuid())
        .bind(actor.as_uuid())
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.reader)
        .await?)
    }

    /// Devices of a kind in the order of their first sign-in.
    pub(crate) async fn devices(&self, kind: &str, page: Page) -> Result<Vec<DeviceRow>, StoreError> {
        Ok(sql::query_as(
            "SELECT * FROM device WHERE account_id = $1 AND kind = $2 AND id > $3 ORDER BY id LIMIT $4",
        )
        .bind(self.account.as_uuid())
        .bind(kind)
        .bind(page.after())
        .bind(page.limit())
        .fetch_all(&self.reader)
        .await?)
    }

    /// The id that a device will have, when it is known already.
    pub(crate) async fn known_device(
        &self,
        device: Device,
        hello: &Hello,
    ) -> Result<Option<Uuid>, StoreError> {
        let query = match device {
            Device::Client(actor) => sql::query_scalar(
                "SELECT id FROM device WHERE kind = 'client' AND actor_id = $1 AND external_id = $2",
            )
            .bind(actor.as_uuid()),
            Device::Gateway(site) => sql::query_scalar(
                "SELECT id FROM device WHERE kind = 'gateway' AND site_id = $1 AND external_id = $2",
            )
            .bind(site.as_uuid()),
        };
        Ok(query.bind(hello.device_id).fetch_optional(&self.reader).await?)
    }

    /// A client of an actor: the one of this id, or the one that signed in last.
    pub(crate) async fn client_of(
        &self,
        actor: ActorId,
        client: Option<Uuid>,
    ) -> Result<Option<(Uuid, String)>, StoreError> {
        let found = sql::query_as(
            "SELECT id, name FROM device
             WHERE kind = 'client' AND actor_id = $1 AND id = coalesce($2, id)
             ORDER BY last_seen_ms DESC, id LIMIT 1",
        )
        .bind(actor.as_uuid())
        .bind(client)
        .fetch_optional(&self.reader)
        .await?;
        if client.is_some() && found.is_none() {
            return Err(StoreError::NotFound("device of this actor"));
        }
        Ok(found)
    }

    /// Other devices that use a key; there should be none.
    pub(crate) async fn devices_with_key(&self, key: &[u8; 32]) -> Result<Vec<Uuid>, StoreError> {
        Ok(sql::query_scalar("SELECT id FROM device WHERE public_key = $1")
            .bind(key.as_slice())
            .fetch_all(&self.reader)
            .await?)
    }
}

impl Change {
    /// Signs a device in: makes it or brings it up to date.
    ///
    /// A new public key means a new process, so nothing survives of what rested on the old
    /// one: authorizations and connections end. Another device that claims the same key loses
    /// it, because two peers of one gateway cannot share one.
    pub(crate) async fn sign_in(&mut self, new: &DeviceHello<'_>) -> Result<SignedIn, StoreError> {
        self.take_key(new).await?;
        let signed_in = match self.known(new).await? {
            Some((id, index, key)) => {
                self.update_device(id, &key, new).await?;
                let address_index = u32::try_from(index)
                    .map_err(|_| StoreError::Invalid(format!("device {id} is damaged")))?;
                SignedIn { id, address_index }
            }
            None => self.insert_device(new).await?,
        };
        self.touch_token(new.token).await?;
        let (kind, action) = match new.device {
            Device::Client(_) => ("client", "client.sign_in"),
            Device::Gateway(_) => ("gateway", "gateway.sign_in"),
        };
        let detail = serde_json::json!({ "name": new.hello.name, "version": new.hello.version });
        self.audit(action, (kind, Some(signed_in.id)), detail).await?;
        Ok(signed_in)
    }

    async fn known(&mut self, new: &DeviceHello<'_>) -> Result<Option<(Uuid, i64, Vec<u8>)>, StoreError> {
        let query = match new.device {
            Device::Client(actor) => sql::query_as(
                "SELECT id, address_index, public_key FROM device
                 WHERE kind = 'client' AND actor_id = $1 AND external_id = $2",
            )
            .bind(actor.as_uuid()),
            Device::Gateway(site) => sql::query_as(
                "SELECT id, address_index, public_key FROM device
                 WHERE kind = 'gateway' AND site_id = $1 AND external_id = $2",
            )
            .bind(site.as_uuid()),
        };
        Ok(query.bind(new.hello.device_id).fetch_optional(self.sql()).await?)
    }

    async fn take_key(&mut self, new: &DeviceHello<'_>) -> Result<(), StoreError> {
        let own = self.known(new).await?.map(|(id, ..)| id);
        let others: Vec<(Uuid, String)> = sql::query_as("SELECT id, kind FROM device WHERE public_key = $1")
            .bind(new.hello.public_key.0.as_slice())
            .fetch_all(self.sql())
            .await?;
        for (id, _) in others.into_iter().filter(|(id, _)| Some(*id) != own) {
            self.end_device_connections(id).await?;
            sql::query("UPDATE device SET public_key = $1 WHERE id = $2")
                .bind([0_u8; 32].as_slice())
                .bind(id)
                .execute(self.sql())
                .await?;
        }
        Ok(())
    }

    async fn update_device(&mut self, id: Uuid, key: &[u8], new: &DeviceHello<'_>) -> Result<(), StoreError> {
        if key != new.hello.public_key.0 {
            self.end_device_connections(id).await?;
        }
        let at = self.at_ms();
        sql::query(
            "UPDATE device SET name = $1, public_key = $2, version = $3, token_id = $4, remote_address = $5,
                               last_seen_ms = $6
             WHERE id = $7",
        )
        .bind(&new.hello.name)
        .bind(new.hello.public_key.0.as_slice())
        .bind(&new.hello.version)
        .bind(new.token.as_uuid())
        .bind(&new.address)
        .bind(at)
        .bind(id)
        .execute(self.sql())
        .await?;
        // Where it connects from, and since when its user has signed in, may be other than before.
        if matches!(new.device, Device::Client(_)) {
            self.review(Review::Client(ClientId::from_uuid(id))).await?;
        }
        Ok(())
    }

    async fn insert_device(&mut self, new: &DeviceHello<'_>) -> Result<SignedIn, StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        let (kind, actor, site) = match new.device {
            Device::Client(actor) => ("client", Some(actor.as_uuid()), None),
            Device::Gateway(site) => ("gateway", None, Some(site.as_uuid())),
        };
        for _ in 0..ADDRESS_ATTEMPTS {
            let id = Uuid::now_v7();
            let address_index = rand::rng().random_range(1..new.capacity - 1);
            let inserted = sql::query(
                "INSERT INTO device (id, account_id, kind, external_id, actor_id, site_id, token_id, name,
                                     public_key, version, address_index, remote_address, created_ms,
                                     last_seen_ms)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
                 ON CONFLICT (account_id, address_index) DO NOTHING",
            )
            .bind(id)
            .bind(account.as_uuid())
            .bind(kind)
            .bind(new.hello.device_id)
            .bind(actor)
            .bind(site)
            .bind(new.token.as_uuid())
            .bind(&new.hello.name)
            .bind(new.hello.public_key.0.as_slice())
            .bind(&new.hello.version)
            .bind(i64::from(address_index))
            .bind(&new.address)
            .bind(at)
            .bind(at)
            .execute(self.sql())
            .await?;
            if inserted == 1 {
                return Ok(SignedIn { id, address_index });
            }
        }
        Err(StoreError::Conflict("no free tunnel address was found".to_owned()))
    }

    async fn end_device_connections(&mut self, id: Uuid) -> Result<(), StoreError> {
        self.revoke(Revoke::Client(ClientId::from_uuid(id))).await?;
        self.revoke(Revoke::Gateway(GatewayId::from_uuid(id))).await?;
        sql::query("UPDATE connection SET is_open = FALSE WHERE client_id = $1 OR gateway_id = $1")
            .bind(id)
            .execute(self.sql())
            .await?;
        Ok(())
    }

    /// Signs a client out: its authorizations end and, when `token` is given, the token too.
    pub(crate) async fn sign_out(
        &mut self,
        client: ClientId,
        token: Option<TokenId>,
    ) -> Result<(), StoreError> {
        self.end_device_connections(client.as_uuid()).await?;
        if let Some(token) = token {
            self.revoke_token(token).await?;
        }
        self.audit("client.sign_out", ("client", Some(client.as_uuid())), serde_json::json!({})).await
    }

    /// Notes that an administrator vouches for a client, or does so no longer; then what rests on it ends.
    pub(crate) async fn set_device_verified(
        &mut self,
        id: ClientId,
        is_verified: bool,
    ) -> Result<(), StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        let was_verified = self.is_verified(id).await?;
        let actor: Option<Uuid> = sql::query_scalar(
            "UPDATE device SET verified_ms = CASE WHEN $1 THEN coalesce(verified_ms, $2) END
             WHERE account_id = $3 AND kind = 'client' AND id = $4 RETURNING actor_id",
        )
        .bind(is_verified)
        .bind(at)
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(self.sql())
        .await?;
        let actor = ActorId::from_uuid(actor.ok_or(StoreError::NotFound("device"))?);
        self.review(Review::Client(id)).await?;
        self.tell_visibility(vec![actor])?;
        let action = if is_verified { "device.verify" } else { "device.unverify" };
        let state = |is_verified: bool| serde_json::json!({ "verified": is_verified });
        self.audit_change(action, ("client", id.as_uuid()), state(was_verified), state(is_verified)).await
    }

    async fn is_verified(&mut self, id: ClientId) -> Result<bool, StoreError> {
        let found: Option<bool> =
            sql::query_scalar("SELECT verified_ms IS NOT NULL FROM device WHERE id = $1")
                .bind(id.as_uuid())
                .fetch_optional(self.sql())
                .await?;
        Ok(found.unwrap_or(false))
    }

    /// Deletes a device; it comes back as another one if its token is still good.
    pub(crate) async fn delete_device(&mut self, kind: &'static str, id: Uuid) -> Result<(), StoreError> {
        self.revoke(Revoke::Client(ClientId::from_uuid(id))).await?;
        self.revoke(Revoke::Gateway(GatewayId::from_uuid(id))).await?;
        let account = self.account();
        let name: Option<String> = sql::query_scalar(
            "DELETE FROM device WHERE account_id = $1 AND kind = $2 AND id = $3 RETURNING name",
        )
        .bind(account.as_uuid())
        .bind(kind)
        .bind(id)
        .fetch_optional(self.sql())
        .await?;
        let name = name.ok_or(StoreError::NotFound("device"))?;
        self.tell(&Event::DeviceDeleted { id })?;
        let before = serde_json::json!({ "name": name });
        self.audit_change("device.delete", (kind, id), before, serde_json::Value::Null).await
    }
}
