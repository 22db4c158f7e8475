//! People and groups that a directory manages through SCIM.
//!
//! A managed person's name, state and attributes, and a managed group's name and members, come from the directory alone.
//! What takes access away here goes the way of every other change, so that it ends at once.

use adit_policy::{ActorId, GroupId};
use sqlx::FromRow;
use uuid::Uuid;

use super::{ActorKind, Change, Event, Revoke, Role, Store, StoreError, sql};

/// The name of the directory's protocol in the column `managed_by`.
const SCIM: &str = "scim";

/// A person, as the directory sees one.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct DirectoryUser {
    /// Names it; the actor's id.
    pub(crate) id: Uuid,
    /// The name under which it signs in.
    pub(crate) name: String,
    /// Whether it may use anything.
    pub(crate) enabled: bool,
    /// What the directory calls it.
    pub(crate) external_id: Option<String>,
    /// What else the directory says of it, as JSON.
    pub(crate) attributes: Option<String>,
    /// When it was created.
    pub(crate) created_ms: i64,
    /// When the directory changed it last.
    pub(crate) modified_ms: Option<i64>,
}

/// A group, as the directory sees one.
#[derive(Debug, Clone, FromRow)]
pub(crate) struct DirectoryGroup {
    /// Names it.
    pub(crate) id: Uuid,
    /// Shown to people.
    pub(crate) name: String,
    /// What the directory calls it.
    pub(crate) external_id: Option<String>,
    /// When it was created.
    pub(crate) created_ms: i64,
    /// When the directory changed it last.
    pub(crate) modified_ms: Option<i64>,
}

/// What a list is limited to; everything that is absent does not limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DirectoryFilter {
    /// Exactly this one.
    pub(crate) id: Option<Uuid>,
    /// Of this name, in whatever case.
    pub(crate) name: Option<String>,
    /// What the directory calls it.
    pub(crate) external_id: Option<String>,
}

/// What the directory wants a person to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserContent {
    /// The name under which it signs in.
    pub(crate) name: String,
    /// Whether it may use anything.
    pub(crate) enabled: bool,
    /// What the directory calls it.
    pub(crate) external_id: Option<String>,
    /// What else the directory says of it, as JSON.
    pub(crate) attributes: String,
}

macro_rules! page {
    ($what:literal, $from:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM ",
            $from,
            " WHERE account_id = $1 AND managed_by = 'scim' AND coalesce(id = $2, TRUE)
              AND coalesce(lower(name) = lower($3), TRUE) AND coalesce(external_id = $4, $4 IS NULL)"
        )
    };
}

/// Where a page of a directory's list begins, and how long it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    /// Rows before it.
    pub(crate) skip: i64,
    /// Rows of it at most.
    pub(crate) count: i64,
}

impl Store {
    /// How many people match, and a page of them.
    pub(crate) async fn directory_users(
        &self,
        filter: &DirectoryFilter,
        slice: Slice,
    ) -> Result<(i64, Vec<DirectoryUser>), StoreError> {
        let total = sql::query_scalar(page!("count(*)", "actor"))
            .bind(self.account.as_uuid())
            .bind(filter.id)
            .bind(filter.name.clone())
            .bind(filter.external_id.clone());
        let rows = sql::query_as(concat!(
            page!("id, name, enabled, external_id, attributes, created_ms, modified_ms", "actor"),
            " ORDER BY id LIMIT $5 OFFSET $6"
        ))
        .bind(self.account.as_uuid())
        .bind(filter.id)
        .bind(filter.name.clone())
        .bind(filter.external_id.clone())
        .bind(slice.count)
        .bind(slice.skip);
        Ok((total.fetch_one(&self.reader).await?, rows.fetch_all(&self.reader).await?))
    }

    /// How many groups match, and a page of them.
    pub(crate) async fn directory_groups(
        &self,
        filter: &DirectoryFilter,
        slice: Slice,
    ) -> Result<(i64, Vec<DirectoryGroup>), StoreError> {
        let total = sql::query_scalar(page!("count(*)", "actor_group"))
            .bind(self.account.as_uuid())
            .bind(filter.id)
            .bind(filter.name.clone())
            .bind(filter.external_id.clone());
        let rows = sql::query_as(concat!(
            page!("id, name, external_id, created_ms, modified_ms", "actor_group"),
            " ORDER BY id LIMIT $5 OFFSET $6"
        ))
        .bind(self.account.as_uuid())
        .bind(filter.id)
        .bind(filter.name.clone())
        .bind(filter.external_id.clone())
        .bind(slice.count)
        .bind(slice.skip);
        Ok((total.fetch_one(&self.reader).await?, rows.fetch_all(&self.reader).await?))
    }

    /// Ids and names of a group's members.
    pub(crate) async fn directory_members(&self, group: Uuid) -> Result<Vec<(Uuid, String)>, StoreError> {
        Ok(sql::query_as(
            "SELECT actor.id, actor.name FROM membership JOIN actor ON actor.id = membership.actor_id
             WHERE membership.group_id = $1 AND actor.account_id = $2 ORDER BY actor.id",
        )
        .bind(group)
        .bind(self.account.as_uuid())
        .fetch_all(&self.reader)
        .await?)
    }
}

impl Change {
    /// Takes a person into the directory's hands: a new one, or one of the same name who has no role and whom nobody manages.
    pub(crate) async fn create_directory_user(
        &mut self,
        content: &UserContent,
    ) -> Result<ActorId, StoreError> {
        let account = self.account();
        let known: Option<(Uuid, String, String, Option<String>)> = sql::query_as(
            "SELECT id, kind, role, managed_by FROM actor WHERE account_id = $1 AND lower(name) = lower($2)",
        )
        .bind(account.as_uuid())
        .bind(&content.name)
        .fetch_optional(self.sql())
        .await?;
        let id = match known {
            None => self.create_actor(ActorKind::User, &content.name, Role::None).await?.id,
            Some((id, kind, role, None)) if kind == "user" && role == "none" => id,
            Some(_) => return Err(StoreError::Conflict("a user of that name exists already".to_owned())),
        };
        sql::query("UPDATE actor SET managed_by = $1 WHERE id = $2")
            .bind(SCIM)
            .bind(id)
            .execute(self.sql())
            .await?;
        let id = ActorId::from_uuid(id);
        self.update_directory_user(id, content).await?;
        Ok(id)
    }

    /// Makes a managed person what the directory says; one who is disabled loses all access at once.
    pub(crate) async fn update_directory_user(
        &mut self,
        id: ActorId,
        content: &UserContent,
    ) -> Result<(), StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        let before: Option<(bool, String)> = sql::query_as(
            "SELECT enabled, name FROM actor WHERE account_id = $1 AND id = $2 AND managed_by = 'scim'",
        )
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .fetch_optional(self.sql())
        .await?;
        let (enabled, name) = before.ok_or(StoreError::NotFound("user"))?;
        sql::query(
            "UPDATE actor SET name = $1, external_id = $2, attributes = $3, modified_ms = $4 WHERE id = $5",
        )
        .bind(&content.name)
        .bind(content.external_id.clone())
        .bind(&content.attributes)
        .bind(at)
        .bind(id.as_uuid())
        .execute(self.sql())
        .await?;
        let detail =
            serde_json::json!({ "before": name, "name": content.name, "external_id": content.external_id });
        self.audit("actor.provision", ("actor", Some(id.as_uuid())), detail).await?;
        if enabled != content.enabled {
            self.set_actor_enabled(id, content.enabled).await?;
        }
        Ok(())
    }

    /// Deletes a managed person.
    pub(crate) async fn delete_directory_user(&mut self, id: ActorId) -> Result<(), StoreError> {
        self.expect_managed_actor(id).await?;
        self.delete_actor(id).await
    }

    async fn expect_managed_actor(&mut self, id: ActorId) -> Result<(), StoreError> {
        let account = self.account();
        let known: bool = sql::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM actor WHERE account_id = $1 AND id = $2 AND managed_by = 'scim')",
        )
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .fetch_one(self.sql())
        .await?;
        if known { Ok(()) } else { Err(StoreError::NotFound("user")) }
    }

    /// Creates a managed group.
    pub(crate) async fn create_directory_group(
        &mut self,
        name: &str,
        external_id: Option<String>,
        members: &[ActorId],
    ) -> Result<GroupId, StoreError> {
        let id = GroupId::from_uuid(self.create_group(name, false).await?.id);
        sql::query("UPDATE actor_group SET managed_by = $1 WHERE id = $2")
            .bind(SCIM)
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        self.update_directory_group(id, name, external_id, members).await?;
        Ok(id)
    }

    /// Makes a managed group what the directory says; who is no member any more loses at once what the group gave.
    pub(crate) async fn update_directory_group(
        &mut self,
        id: GroupId,
        name: &str,
        external_id: Option<String>,
        members: &[ActorId],
    ) -> Result<(), StoreError> {
        self.expect_managed_group(id).await?;
        let at = self.at_ms();
        sql::query("UPDATE actor_group SET name = $1, external_id = $2, modified_ms = $3 WHERE id = $4")
            .bind(name)
            .bind(external_id)
            .bind(at)
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        let before: std::collections::BTreeSet<ActorId> = self.members_of(id).await?.into_iter().collect();
        let after: std::collections::BTreeSet<ActorId> = members.iter().copied().collect();
        let (gone, new): (Vec<ActorId>, Vec<ActorId>) =
            (before.difference(&after).copied().collect(), after.difference(&before).copied().collect());
        for actor in &gone {
            sql::query("DELETE FROM membership WHERE group_id = $1 AND actor_id = $2")
                .bind(id.as_uuid())
                .bind(actor.as_uuid())
                .execute(self.sql())
                .await?;
            self.revoke(Revoke::Membership { group: id, actor: *actor }).await?;
        }
        for actor in &new {
            self.put_member(id, *actor).await?;
        }
        let actors: Vec<ActorId> = gone.iter().chain(&new).copied().collect();
        if !actors.is_empty() {
            self.tell(&Event::VisibilityChanged { actors })?;
        }
        let detail = serde_json::json!({ "name": name, "added": new, "removed": gone });
        self.audit("group.provision", ("group", Some(id.as_uuid())), detail).await
    }

    async fn put_member(&mut self, group: GroupId, actor: ActorId) -> Result<(), StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        let put = sql::query(
            "INSERT INTO membership (group_id, actor_id, created_ms)
             SELECT $1, id, $2 FROM actor WHERE account_id = $3 AND id = $4",
        )
        .bind(group.as_uuid())
        .bind(at)
        .bind(account.as_uuid())
        .bind(actor.as_uuid())
        .execute(self.sql())
        .await?;
        if put == 0 { Err(StoreError::Invalid(format!("there is no user {actor}"))) } else { Ok(()) }
    }

    /// Deletes a managed group with its policies.
    pub(crate) async fn delete_directory_group(&mut self, id: GroupId) -> Result<(), StoreError> {
        self.expect_managed_group(id).await?;
        self.delete_group(id).await
    }

    async fn expect_managed_group(&mut self, id: GroupId) -> Result<(), StoreError> {
        if self.is_managed_group(id).await? { Ok(()) } else { Err(StoreError::NotFound("group")) }
    }

    /// Whether a directory decides who is in a group.
    pub(super) async fn is_managed_group(&mut self, id: GroupId) -> Result<bool, StoreError> {
        let account = self.account();
        Ok(sql::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM actor_group WHERE account_id = $1 AND id = $2 AND managed_by = 'scim')",
        )
        .bind(account.as_uuid())
        .bind(id.as_uuid())
        .fetch_one(self.sql())
        .await?)
    }
}
