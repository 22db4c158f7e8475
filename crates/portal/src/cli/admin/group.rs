//! Groups and memberships.

use clap::Subcommand;
use reqwest::Method;

use super::{Admin, AdminError, Column};
use crate::cli::output::text;

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Action {
    /// Create a group
    Create {
        /// Its name
        name: String,
    },
    /// List groups
    List,
    /// List the members of a group
    Members {
        /// Name or id
        group: String,
    },
    /// Give a group another name
    Rename {
        /// Name or id
        group: String,
        /// Its new name
        name: String,
    },
    /// Delete a group with its policies
    Delete {
        /// Name or id
        group: String,
    },
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::Create { name } => {
                admin.create("groups", "group", serde_json::json!({ "name": name })).await
            }
            Self::List => {
                let columns = [
                    Column { head: "ID", show: |group| text(&group["id"]) },
                    Column { head: "NAME", show: |group| text(&group["name"]) },
                    Column { head: "EVERYONE", show: |group| text(&group["everyone"]) },
                ];
                admin.list("groups", &columns).await
            }
            Self::Members { group } => {
                let id = admin.api.find("groups", &group).await?;
                admin.list(&format!("groups/{id}/members"), &super::actor::columns()).await
            }
            Self::Rename { group, name } => {
                let id = admin.api.find("groups", &group).await?;
                admin.patch(&format!("groups/{id}"), serde_json::json!({ "name": name }), "renamed").await
            }
            Self::Delete { group } => {
                let id = admin.api.find("groups", &group).await?;
                admin.delete(&format!("groups/{id}"), &format!("deleted group {id}")).await
            }
        }
    }
}

/// What can be done with memberships.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum MembershipAction {
    /// Put an actor into a group
    Add {
        /// Name or id of the group
        #[arg(long)]
        group: String,
        /// Name or id of the actor
        #[arg(long)]
        actor: String,
    },
    /// Take an actor out of a group
    Remove {
        /// Name or id of the group
        #[arg(long)]
        group: String,
        /// Name or id of the actor
        #[arg(long)]
        actor: String,
    },
}

impl MembershipAction {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        let (method, group, actor, done) = match self {
            Self::Add { group, actor } => (Method::PUT, group, actor, "added"),
            Self::Remove { group, actor } => (Method::DELETE, group, actor, "removed"),
        };
        let group = admin.api.find("groups", &group).await?;
        let actor = admin.api.find("actors", &actor).await?;
        let answer = admin.api.call(method, &format!("groups/{group}/members/{actor}"), None).await?;
        admin.say(&answer, done);
        Ok(())
    }
}
