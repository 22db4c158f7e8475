//! Whom the subjects of a provider are here, and the groups that a provider decides on.
//!
//! A subject becomes a user when it signs in first, or turns out to be one whom SCIM made. It never becomes a user whom
//! somebody made by hand, whatever its name or address: otherwise whoever chooses a name at the provider would choose
//! whom to be here.

use std::collections::BTreeSet;

use adit_policy::{ActorId, GroupId};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::{Actor, ActorKind, AuthProvider, Change, Event, Revoke, Role, StoreError, sql};

/// What the groups of providers have as `managed_by`.
const OIDC: &str = "oidc";

/// Names that are tried for a new user or group before giving up.
const MOST_NAMES: u32 = 100;

/// Somebody whom a provider has authenticated.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// Who it is for the provider, for ever.
    pub(crate) subject: String,
    /// What to call them, if they are new.
    pub(crate) name: String,
    /// Their address, if the provider says that it is theirs.
    pub(crate) verified_email: Option<String>,
    /// The groups that the provider says they are in; absent when it is not asked.
    pub(crate) groups: Option<BTreeSet<String>>,
}

impl Change {
    /// Finds or makes the actor of somebody who signs in, and puts them into exactly the groups that the provider says.
    ///
    /// `None`: nobody knows them here and the provider may not make users, or they are disabled.
    pub(crate) async fn sign_in_identity(
        &mut self,
        provider: Uuid,
        identity: &Identity,
    ) -> Result<Option<Actor>, StoreError> {
        let provider = self.expect_auth_provider(provider).await?;
        if !provider.enabled {
            return Ok(None);
        }
        let actor = match self.actor_of_subject(&provider, &identity.subject).await? {
            Some(actor) => actor,
            None => match self.meet_subject(&provider, identity).await? {
                Some(actor) => actor,
                None => return Ok(None),
            },
        };
        if !actor.enabled {
            return Ok(None);
        }
        if let Some(groups) = &identity.groups {
            self.follow_groups(&provider, ActorId::from_uuid(actor.id), groups).await?;
        }
        Ok(Some(actor))
    }

    async fn actor_of_subject(
        &mut self,
        provider: &AuthProvider,
        subject: &str,
    ) -> Result<Option<Actor>, StoreError> {
        Ok(sql::query_as(
            "SELECT actor.* FROM actor JOIN identity ON identity.actor_id = actor.id
             WHERE identity.provider_id = $1 AND identity.subject = $2",
        )
        .bind(provider.id)
        .bind(subject)
        .fetch_optional(self.sql())
        .await?)
    }

    /// A subject that signs in first.
    async fn meet_subject(
        &mut self,
        provider: &AuthProvider,
        identity: &Identity,
    ) -> Result<Option<Actor>, StoreError> {
        let from_directory =
            if provider.links_directory { self.directory_user(provider, identity).await? } else { None };
        let actor = match from_directory {
            Some(actor) => actor,
            None if provider.just_in_time => {
                let name = self.free_name(TAKEN_ACTOR, &identity.name, &provider.name).await?;
                self.create_actor(ActorKind::User, &name, Role::None).await?
            }
            None => return Ok(None),
        };
        let at = self.at_ms();
        sql::query(
            "INSERT INTO identity (id, provider_id, subject, actor_id, created_ms) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(Uuid::now_v7())
        .bind(provider.id)
        .bind(&identity.subject)
        .bind(actor.id)
        .bind(at)
        .execute(self.sql())
        .await?;
        let detail = json!({ "provider": provider.name, "subject": identity.subject });
        self.audit_change("identity.create", ("actor", actor.id), Json::Null, detail).await?;
        Ok(Some(actor))
    }

    /// The person of the directory who this is: known there under the same subject, or by an address that is verified.
    /// Whoever has an identity of this provider already is somebody else: addresses are given to others in time. Who has
    /// been given a role is not taken over either: it was given to the one who was known then.
    async fn directory_user(
        &mut self,
        provider: &AuthProvider,
        identity: &Identity,
    ) -> Result<Option<Actor>, StoreError> {
        let account = self.account();
        let mut found: Vec<Actor> = sql::query_as(
            "SELECT * FROM actor WHERE account_id = $1 AND managed_by = 'scim' AND kind = 'user' AND role = 'none'
               AND (external_id = $2 OR lower(name) = lower($3))
               AND NOT EXISTS (SELECT 1 FROM identity WHERE identity.actor_id = actor.id AND identity.provider_id = $4)
             LIMIT 2",
        )
        .bind(account.as_uuid())
        .bind(&identity.subject)
        .bind(identity.verified_email.as_deref().unwrap_or_default())
        .bind(provider.id)
        .fetch_all(self.sql())
        .await?;
        // Two people who could be meant: neither is.
        Ok(if found.len() == 1 { found.pop() } else { None })
    }

    /// A name that nobody has yet: the one that is wanted, or that with the provider's behind it.
    async fn free_name(&mut self, taken: &'static str, wanted: &str, of: &str) -> Result<String, StoreError> {
        let account = self.account();
        for number in 0..MOST_NAMES {
            let name = match number {
                0 => wanted.to_owned(),
                1 => format!("{wanted} ({of})"),
                number => format!("{wanted} ({of} {number})"),
            };
            let is_taken: bool =
                sql::query_scalar(taken).bind(account.as_uuid()).bind(&name).fetch_one(self.sql()).await?;
            if !is_taken {
                return Ok(name);
            }
        }
        Err(StoreError::Conflict("there are too many of that name".to_owned()))
    }

    /// Makes an actor a member of exactly these groups of a provider. What a group gave that they are in no longer is
    /// revoked with this change.
    async fn follow_groups(
        &mut self,
        provider: &AuthProvider,
        actor: ActorId,
        wanted: &BTreeSet<String>,
    ) -> Result<(), StoreError> {
        let held: Vec<(Uuid, String)> = sql::query_as(
            "SELECT actor_group.id, actor_group.external_id FROM actor_group
             JOIN membership ON membership.group_id = actor_group.id
             WHERE actor_group.provider_id = $1 AND membership.actor_id = $2 AND actor_group.external_id IS NOT NULL",
        )
        .bind(provider.id)
        .bind(actor.as_uuid())
        .fetch_all(self.sql())
        .await?;
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for (group, name) in &held {
            if !wanted.contains(name) {
                self.leave_group(GroupId::from_uuid(*group), actor).await?;
                removed.push(name.clone());
            }
        }
        for name in wanted {
            if !held.iter().any(|(_, held)| held == name) {
                let group = self.group_of_provider(provider, name).await?;
                self.enter_group(group, actor).await?;
                added.push(name.clone());
            }
        }
        if added.is_empty() && removed.is_empty() {
            return Ok(());
        }
        self.tell(&Event::VisibilityChanged { actors: vec![actor] })?;
        let detail = json!({ "provider": provider.name, "added": added, "removed": removed });
        self.audit("membership.follow", ("actor", Some(actor.as_uuid())), detail).await
    }

    async fn group_of_provider(
        &mut self,
        provider: &AuthProvider,
        name: &str,
    ) -> Result<GroupId, StoreError> {
        let known: Option<Uuid> =
            sql::query_scalar("SELECT id FROM actor_group WHERE provider_id = $1 AND external_id = $2")
                .bind(provider.id)
                .bind(name)
                .fetch_optional(self.sql())
                .await?;
        if let Some(id) = known {
            return Ok(GroupId::from_uuid(id));
        }
        let shown = self.free_name(TAKEN_GROUP, name, &provider.name).await?;
        let id = self.create_group(&shown, false).await?.id;
        sql::query(
            "UPDATE actor_group SET managed_by = $1, provider_id = $2, external_id = $3 WHERE id = $4",
        )
        .bind(OIDC)
        .bind(provider.id)
        .bind(name)
        .bind(id)
        .execute(self.sql())
        .await?;
        Ok(GroupId::from_uuid(id))
    }

    async fn enter_group(&mut self, group: GroupId, actor: ActorId) -> Result<(), StoreError> {
        let at = self.at_ms();
        sql::query("INSERT INTO membership (group_id, actor_id, created_ms) VALUES ($1, $2, $3)")
            .bind(group.as_uuid())
            .bind(actor.as_uuid())
            .bind(at)
            .execute(self.sql())
            .await?;
        Ok(())
    }

    async fn leave_group(&mut self, group: GroupId, actor: ActorId) -> Result<(), StoreError> {
        sql::query("DELETE FROM membership WHERE group_id = $1 AND actor_id = $2")
            .bind(group.as_uuid())
            .bind(actor.as_uuid())
            .execute(self.sql())
            .await?;
        self.revoke(Revoke::Membership { group, actor }).await?;
        Ok(())
    }

    /// Nobody says any more who is in the groups of a provider: they are empty, and the administrators' from now on.
    pub(super) async fn release_groups_of(&mut self, provider: Uuid) -> Result<(), StoreError> {
        let groups: Vec<Uuid> = sql::query_scalar("SELECT id FROM actor_group WHERE provider_id = $1")
            .bind(provider)
            .fetch_all(self.sql())
            .await?;
        for group in groups {
            let group = GroupId::from_uuid(group);
            let members = self.members_of(group).await?;
            for actor in &members {
                self.leave_group(group, *actor).await?;
            }
            self.tell_visibility(members)?;
            sql::query(
                "UPDATE actor_group SET managed_by = NULL, provider_id = NULL, external_id = NULL WHERE id = $1",
            )
            .bind(group.as_uuid())
            .execute(self.sql())
            .await?;
        }
        Ok(())
    }
}

const TAKEN_ACTOR: &str =
    "SELECT EXISTS (SELECT 1 FROM actor WHERE account_id = $1 AND lower(name) = lower($2))";
const TAKEN_GROUP: &str =
    "SELECT EXISTS (SELECT 1 FROM actor_group WHERE account_id = $1 AND lower(name) = lower($2))";
