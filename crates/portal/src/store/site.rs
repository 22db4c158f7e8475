//! Sites: the places whose gateways serve resources.

use adit_policy::{Site, SiteId};
use uuid::Uuid;

use super::{Change, Page, Revoke, Store, StoreError, sql};

impl Store {
    /// Sites in the order of their creation.
    pub(crate) async fn sites(&self, page: Page) -> Result<Vec<Site>, StoreError> {
        let rows: Vec<(Uuid, String)> =
            sql::query_as("SELECT id, name FROM site WHERE account_id = $1 AND id > $2 ORDER BY id LIMIT $3")
                .bind(self.account.as_uuid())
                .bind(page.after())
                .bind(page.limit())
                .fetch_all(&self.reader)
                .await?;
        Ok(rows.into_iter().map(|(id, name)| Site { id: SiteId::from_uuid(id), name }).collect())
    }

    /// One site.
    pub(crate) async fn site(&self, id: SiteId) -> Result<Site, StoreError> {
        let name: Option<String> =
            sql::query_scalar("SELECT name FROM site WHERE account_id = $1 AND id = $2")
                .bind(self.account.as_uuid())
                .bind(id.as_uuid())
                .fetch_optional(&self.reader)
                .await?;
        Ok(Site { id, name: name.ok_or(StoreError::NotFound("site"))? })
    }
}

impl Change {
    /// An error when there is no such site.
    pub(super) async fn expect_site(&mut self, id: SiteId) -> Result<(), StoreError> {
        let account = self.account();
        let known: bool =
            sql::query_scalar("SELECT EXISTS (SELECT 1 FROM site WHERE account_id = $1 AND id = $2)")
                .bind(account.as_uuid())
                .bind(id.as_uuid())
                .fetch_one(self.sql())
                .await?;
        if known { Ok(()) } else { Err(StoreError::NotFound("site")) }
    }

    /// Creates a site.
    pub(crate) async fn create_site(&mut self, name: &str) -> Result<Site, StoreError> {
        let id = Uuid::now_v7();
        let (account, at) = (self.account(), self.at_ms());
        sql::query("INSERT INTO site (id, account_id, name, created_ms) VALUES ($1, $2, $3, $4)")
            .bind(id)
            .bind(account.as_uuid())
            .bind(name)
            .bind(at)
            .execute(self.sql())
            .await?;
        let after = serde_json::json!({ "name": name });
        self.audit_change("site.create", ("site", id), serde_json::Value::Null, after).await?;
        Ok(Site { id: SiteId::from_uuid(id), name: name.to_owned() })
    }

    /// Gives a site another name, which whoever sees its resources sees too.
    pub(crate) async fn rename_site(&mut self, id: SiteId, name: &str) -> Result<(), StoreError> {
        let account = self.account();
        let renamed = sql::query("UPDATE site SET name = $1 WHERE account_id = $2 AND id = $3")
            .bind(name)
            .bind(account.as_uuid())
            .bind(id.as_uuid())
            .execute(self.sql())
            .await?;
        if renamed == 0 {
            return Err(StoreError::NotFound("site"));
        }
        let viewers = self.viewers_of_site(id).await?;
        self.tell_visibility(viewers)?;
        let detail = serde_json::json!({ "name": name });
        self.audit("site.rename", ("site", Some(id.as_uuid())), detail).await
    }

    /// Deletes a site with its resources, gateways and their tokens.
    pub(crate) async fn delete_site(&mut self, id: SiteId) -> Result<(), StoreError> {
        let viewers = self.viewers_of_site(id).await?;
        self.revoke(Revoke::Site(id)).await?;
        self.revoke_site_tokens(id).await?;
        let account = self.account();
        let name: Option<String> =
            sql::query_scalar("DELETE FROM site WHERE account_id = $1 AND id = $2 RETURNING name")
                .bind(account.as_uuid())
                .bind(id.as_uuid())
                .fetch_optional(self.sql())
                .await?;
        let name = name.ok_or(StoreError::NotFound("site"))?;
        self.tell_visibility(viewers)?;
        let before = serde_json::json!({ "name": name });
        self.audit_change("site.delete", ("site", id.as_uuid()), before, serde_json::Value::Null).await
    }
}
