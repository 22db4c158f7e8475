//! Sign-ins of devices under way: from the code to the token.
//!
//! A device code is stored when a device asks for it, and waits for somebody who types its user
//! code. An authorization code is stored when somebody has approved, so a stranger without an
//! account leaves no row behind. What a device gets in the end is in `device_session`.
//!
//! Deliberately absent: entries of the audit log for a device that merely asks. It is nobody yet,
//! and a stranger could fill the log; who approves, denies and is given a token is written down.

use adit_policy::{ActorId, TokenId};
use sqlx::FromRow;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::{Change, Store, StoreError, WebSession, sql};
use crate::clock;

/// Device codes that wait at a time.
const MOST_PENDING: i64 = 500;

/// Device codes that wait at a time for one network.
const MOST_FROM_ONE_NETWORK: i64 = 20;

/// How long a device code can be used: ten minutes.
pub(crate) const DEVICE_CODE_MS: i64 = 10 * 60 * 1000;

/// How long an authorization code can be used: one minute.
const AUTHORIZATION_CODE_MS: i64 = 60 * 1000;

/// A code is remembered for this long after its end, so that a second use is noticed.
const REMEMBERED_MS: i64 = 10 * 60 * 1000;

/// How often a device asks at first (RFC 8628, section 3.2), and by how much more slowly when it
/// asks too soon (section 3.5).
pub(crate) const INTERVAL_MS: i64 = 5_000;

/// What the network may take from an interval before the device is blamed.
const JITTER_MS: i64 = 500;

/// A sign-in under way.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct DeviceSignIn {
    /// Names it; part of its code.
    pub(crate) id: Uuid,
    code_hash: Vec<u8>,
    /// What the verifier must hash to (loopback).
    pub(crate) challenge: Option<String>,
    /// Where the code was sent (loopback).
    pub(crate) redirect_uri: Option<String>,
    /// What the device calls itself.
    pub(crate) device_name: String,
    /// Where it asked from.
    pub(crate) address: String,
    created_ms: i64,
    /// When the code ends.
    pub(crate) expires_ms: i64,
    interval_ms: i64,
    polled_ms: Option<i64>,
    decision: String,
    actor_id: Option<Uuid>,
    provider: Option<String>,
    authenticated_ms: Option<i64>,
    token_id: Option<Uuid>,
}

/// A device that asks for a code.
#[derive(Debug)]
pub(crate) struct NewDeviceCode<'a> {
    /// Its id.
    pub(crate) id: Uuid,
    /// The keyed hash of the device code.
    pub(crate) code_hash: [u8; 32],
    /// The keyed hash of the user code.
    pub(crate) user_code_hash: [u8; 32],
    /// What the device calls itself.
    pub(crate) device_name: &'a str,
    /// Where it asks from.
    pub(crate) address: &'a str,
    /// What counts as one place: an address, or an IPv6 network.
    pub(crate) network: &'a str,
}

/// A code for a device whose user has approved in a browser beside it.
#[derive(Debug)]
pub(crate) struct NewAuthorizationCode<'a> {
    /// Its id.
    pub(crate) id: Uuid,
    /// The keyed hash of the code.
    pub(crate) code_hash: [u8; 32],
    /// What the verifier must hash to.
    pub(crate) challenge: &'a str,
    /// Where the code is sent.
    pub(crate) redirect_uri: &'a str,
    /// What the device calls itself.
    pub(crate) device_name: &'a str,
}

/// What a code is worth at this moment.
#[derive(Debug)]
pub(crate) enum CodeState {
    /// There is no such code, or not any more.
    Unknown,
    /// Its time is over.
    Expired,
    /// It was used before; what it gave is revoked.
    UsedAgain,
    /// Nobody has decided.
    Pending,
    /// Nobody has decided, and the device asks too often.
    TooSoon,
    /// Somebody said no.
    Denied,
    /// Somebody said yes.
    Approved(Box<Approval>),
}

/// Who said yes.
#[derive(Debug, Clone)]
pub(crate) struct Approval {
    /// The sign-in.
    pub(crate) sign_in: DeviceSignIn,
    /// Who.
    pub(crate) actor: ActorId,
    /// Who vouched for them.
    pub(super) provider: String,
    /// When they proved who they are.
    pub(super) authenticated_ms: i64,
}

impl DeviceSignIn {
    fn approval(self) -> Option<Approval> {
        Some(Approval {
            actor: ActorId::from_uuid(self.actor_id?),
            provider: self.provider.clone()?,
            authenticated_ms: self.authenticated_ms?,
            sign_in: self,
        })
    }
}

impl Store {
    /// The device that waits for somebody who types this user code.
    pub(crate) async fn pending_device(
        &self,
        user_code_hash: &[u8; 32],
        now_ms: i64,
    ) -> Result<Option<DeviceSignIn>, StoreError> {
        Ok(sql::query_as(
            "SELECT * FROM device_sign_in
             WHERE account_id = $1 AND user_code_hash = $2 AND decision = 'pending' AND expires_ms > $3",
        )
        .bind(self.account.as_uuid())
        .bind(user_code_hash.as_slice())
        .bind(now_ms)
        .fetch_optional(&self.reader)
        .await?)
    }
}

impl Change {
    /// Forgets codes that nobody can use any more.
    async fn forget_codes(&mut self) -> Result<(), StoreError> {
        let at = self.at_ms();
        sql::query("DELETE FROM device_sign_in WHERE expires_ms <= $1")
            .bind(at - REMEMBERED_MS)
            .execute(self.sql())
            .await?;
        Ok(())
    }

    /// Stores a device code. `false` when too many wait already.
    pub(crate) async fn begin_device_code(&mut self, new: &NewDeviceCode<'_>) -> Result<bool, StoreError> {
        self.forget_codes().await?;
        let (account, at) = (self.account(), self.at_ms());
        let (all, here): (i64, i64) = sql::query_as(
            "SELECT count(*), count(CASE WHEN network = $2 THEN 1 END) FROM device_sign_in
             WHERE account_id = $1 AND kind = 'device' AND decision = 'pending' AND expires_ms > $3",
        )
        .bind(account.as_uuid())
        .bind(new.network)
        .bind(at)
        .fetch_one(self.sql())
        .await?;
        if all >= MOST_PENDING || here >= MOST_FROM_ONE_NETWORK {
            return Ok(false);
        }
        sql::query(
            "INSERT INTO device_sign_in (id, account_id, kind, code_hash, user_code_hash, device_name, address,
                                         network, created_ms, expires_ms, interval_ms, decision)
             VALUES ($1, $2, 'device', $3, $4, $5, $6, $7, $8, $9, $10, 'pending')",
        )
        .bind(new.id)
        .bind(account.as_uuid())
        .bind(new.code_hash.as_slice())
        .bind(new.user_code_hash.as_slice())
        .bind(new.device_name)
        .bind(new.address)
        .bind(new.network)
        .bind(at)
        .bind(at + DEVICE_CODE_MS)
        .bind(INTERVAL_MS)
        .execute(self.sql())
        .await?;
        Ok(true)
    }

    /// Stores a code that somebody who is signed in has approved.
    pub(crate) async fn approve_authorization_code(
        &mut self,
        new: &NewAuthorizationCode<'_>,
        session: &WebSession,
    ) -> Result<(), StoreError> {
        self.forget_codes().await?;
        let (account, at) = (self.account(), self.at_ms());
        let address = self.by().address.clone();
        sql::query(
            "INSERT INTO device_sign_in (id, account_id, kind, code_hash, challenge, redirect_uri, device_name,
                                         address, network, created_ms, expires_ms, interval_ms, decision,
                                         actor_id, provider, authenticated_ms)
             VALUES ($1, $2, 'loopback', $3, $4, $5, $6, $7, '', $8, $9, 0, 'approved', $10, $11, $12)",
        )
        .bind(new.id)
        .bind(account.as_uuid())
        .bind(new.code_hash.as_slice())
        .bind(new.challenge)
        .bind(new.redirect_uri)
        .bind(new.device_name)
        .bind(address)
        .bind(at)
        .bind(at + AUTHORIZATION_CODE_MS)
        .bind(session.actor_id)
        .bind(&session.provider)
        .bind(session.authenticated_ms)
        .execute(self.sql())
        .await?;
        let detail = serde_json::json!({ "device": new.device_name, "kind": "loopback" });
        self.audit("device_sign_in.approve", ("actor", Some(session.actor_id)), detail).await
    }

    /// Decides on a device that waits, once. `false` when it waits no longer.
    pub(crate) async fn decide_device_code(
        &mut self,
        id: Uuid,
        session: &WebSession,
        is_approved: bool,
    ) -> Result<bool, StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        let decided: Option<(String, String)> = sql::query_as(
            "UPDATE device_sign_in SET decision = $1, actor_id = $2, provider = $3, authenticated_ms = $4
             WHERE account_id = $5 AND id = $6 AND kind = 'device' AND decision = 'pending' AND expires_ms > $7
             RETURNING device_name, address",
        )
        .bind(if is_approved { "approved" } else { "denied" })
        .bind(session.actor_id)
        .bind(&session.provider)
        .bind(session.authenticated_ms)
        .bind(account.as_uuid())
        .bind(id)
        .bind(at)
        .fetch_optional(self.sql())
        .await?;
        let Some((device, from)) = decided else { return Ok(false) };
        let action = if is_approved { "device_sign_in.approve" } else { "device_sign_in.deny" };
        let detail = serde_json::json!({ "device": device, "from": from, "kind": "device" });
        self.audit(action, ("actor", Some(session.actor_id)), detail).await?;
        Ok(true)
    }

    /// What a code is worth. A code that comes a second time was stolen, or its first answer was:
    /// the token that it gave is revoked (RFC 6749, section 4.1.2).
    pub(crate) async fn take_code(
        &mut self,
        id: Uuid,
        kind: &str,
        code_hash: &[u8; 32],
    ) -> Result<CodeState, StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        let found: Option<DeviceSignIn> =
            sql::query_as("SELECT * FROM device_sign_in WHERE account_id = $1 AND id = $2 AND kind = $3")
                .bind(account.as_uuid())
                .bind(id)
                .bind(kind)
                .fetch_optional(self.sql())
                .await?;
        let ours = found.filter(|found| bool::from(found.code_hash.as_slice().ct_eq(code_hash)));
        let Some(found) = ours else { return Ok(CodeState::Unknown) };
        if found.decision == "used" {
            if let Some(token) = found.token_id {
                self.revoke_token(TokenId::from_uuid(token)).await?;
            }
            return Ok(CodeState::UsedAgain);
        }
        if found.expires_ms <= at || clock::is_ahead(found.created_ms, at) {
            return Ok(CodeState::Expired);
        }
        match found.decision.as_str() {
            "approved" => Ok(found
                .approval()
                .map_or(CodeState::Unknown, |approval| CodeState::Approved(Box::new(approval)))),
            "denied" => Ok(CodeState::Denied),
            _ => self.poll(&found).await,
        }
    }

    /// Notes that a device has asked.
    async fn poll(&mut self, found: &DeviceSignIn) -> Result<CodeState, StoreError> {
        let at = self.at_ms();
        let interval = 0..found.interval_ms - JITTER_MS;
        let is_too_soon = found.polled_ms.is_some_and(|polled_ms| interval.contains(&(at - polled_ms)));
        let interval_ms = found.interval_ms + if is_too_soon { INTERVAL_MS } else { 0 };
        sql::query("UPDATE device_sign_in SET polled_ms = $1, interval_ms = $2 WHERE id = $3")
            .bind(at)
            .bind(interval_ms)
            .bind(found.id)
            .execute(self.sql())
            .await?;
        Ok(if is_too_soon { CodeState::TooSoon } else { CodeState::Pending })
    }

    /// Uses a code up: for the token that it gave, or for none, because what came with it was wrong or there is no room.
    pub(crate) async fn spend_code(&mut self, id: Uuid, token: Option<TokenId>) -> Result<(), StoreError> {
        sql::query("UPDATE device_sign_in SET decision = 'used', token_id = $1 WHERE id = $2")
            .bind(token.map(|id| id.as_uuid()))
            .bind(id)
            .execute(self.sql())
            .await?;
        Ok(())
    }
}
