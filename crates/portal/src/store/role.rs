//! Roles: what an actor may do with the portal itself.
//!
//! The order is that of power, but `auditor` is not a small `admin`: whether a role reads, writes or owns is asked by name.
//! There is always an enabled owner: every change that could take the last one away ends with [`Change::keep_an_owner`].

use adit_policy::ActorId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Change, Store, StoreError, sql};

/// What an actor may do with the portal itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Everything.
    Owner,
    /// Everything but owners, roles, and the API tokens of others.
    Admin,
    /// Reads everything, changes nothing.
    Auditor,
    /// Nothing: somebody who uses resources.
    #[default]
    None,
}

impl Role {
    /// The stored name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Auditor => "auditor",
            Self::None => "none",
        }
    }

    /// Whether it sees the portal's content.
    pub(crate) const fn reads(self) -> bool {
        matches!(self, Self::Owner | Self::Admin | Self::Auditor)
    }

    /// Whether it changes the portal's content.
    pub(crate) const fn writes(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }

    /// Whether it changes owners, roles, and the API tokens of others.
    pub(crate) const fn owns(self) -> bool {
        matches!(self, Self::Owner)
    }

    /// Whether it may disable, enable or delete an actor who has the role `other`.
    pub(crate) const fn governs(self, other: Self) -> bool {
        self.owns() || (self.writes() && !other.owns())
    }
}

impl TryFrom<String> for Role {
    type Error = StoreError;

    fn try_from(text: String) -> Result<Self, StoreError> {
        match text.as_str() {
            "owner" => Ok(Self::Owner),
            "admin" => Ok(Self::Admin),
            "auditor" => Ok(Self::Auditor),
            "none" => Ok(Self::None),
            _ => Err(StoreError::Invalid("there is no such role".to_owned())),
        }
    }
}

impl Store {
    /// The enabled owner who was created first.
    pub(crate) async fn first_owner(&self) -> Result<ActorId, StoreError> {
        let id: Option<Uuid> = sql::query_scalar(
            "SELECT id FROM actor WHERE account_id = $1 AND role = 'owner' AND enabled ORDER BY id LIMIT 1",
        )
        .bind(self.account.as_uuid())
        .fetch_optional(&self.reader)
        .await?;
        id.map(ActorId::from_uuid).ok_or(StoreError::NotFound("owner"))
    }
}

impl Change {
    /// Refuses to leave an account without an enabled owner, after an actor who had the role `before` was changed.
    pub(super) async fn keep_an_owner(&mut self, before: Role) -> Result<(), StoreError> {
        if !before.owns() {
            return Ok(());
        }
        let account = self.account();
        let has_owner: bool = sql::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM actor WHERE account_id = $1 AND role = 'owner' AND enabled)",
        )
        .bind(account.as_uuid())
        .fetch_one(self.sql())
        .await?;
        if has_owner {
            Ok(())
        } else {
            Err(StoreError::Conflict("there is always one enabled owner".to_owned()))
        }
    }
}
