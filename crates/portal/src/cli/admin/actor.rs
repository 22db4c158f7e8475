//! People and service accounts.

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::{Admin, AdminError, Column};
use crate::cli::output::text;

/// What an actor is.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum Kind {
    /// A person
    User,
    /// A machine with a static token
    ServiceAccount,
}

/// What an actor may do with the portal itself.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum Role {
    /// Everything
    Owner,
    /// Everything but owners, roles and the API tokens of others
    Admin,
    /// Reads everything, changes nothing
    Auditor,
    /// Nothing
    None,
}

impl Role {
    const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Auditor => "auditor",
            Self::None => "none",
        }
    }
}

/// What can be done with actors.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Action {
    /// Create a person or a service account
    Create {
        /// The name
        name: String,
        /// What it is
        #[arg(long = "type", value_enum, default_value = "user", value_name = "TYPE")]
        kind: Kind,
        /// What it may do with the portal itself
        #[arg(long, value_enum, default_value = "none", value_name = "ROLE")]
        role: Role,
    },
    /// List actors
    List,
    /// Give an actor another role
    SetRole {
        /// Name or id
        actor: String,
        /// What it may do with the portal itself
        #[arg(value_enum)]
        role: Role,
    },
    /// Make a link with which a person chooses password and authenticator
    SignInLink {
        /// Name or id
        actor: String,
    },
    /// Let a disabled actor in again; it needs new tokens
    Enable {
        /// Name or id
        actor: String,
    },
    /// Shut an actor out: tokens, sessions and authorizations end
    Disable {
        /// Name or id
        actor: String,
    },
    /// Delete an actor with its tokens and devices
    Delete {
        /// Name or id
        actor: String,
    },
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::Create { name, kind, role } => {
                let kind = match kind {
                    Kind::User => "user",
                    Kind::ServiceAccount => "service_account",
                };
                admin
                    .create("actors", "actor", json!({ "name": name, "kind": kind, "role": role.name() }))
                    .await
            }
            Self::List => admin.list("actors", &columns()).await,
            Self::SetRole { actor, role } => {
                let id = admin.api.find("actors", &actor).await?;
                admin.patch(&format!("actors/{id}"), json!({ "role": role.name() }), "changed").await
            }
            Self::SignInLink { actor } => {
                let id = admin.api.find("actors", &actor).await?;
                let path = format!("actors/{id}/sign-in-link");
                let link = admin.api.call(reqwest::Method::POST, &path, None).await?;
                admin.say(&link, &format!("once, within an hour: {}", text(&link["url"])));
                Ok(())
            }
            Self::Enable { actor } => set_enabled(admin, &actor, true).await,
            Self::Disable { actor } => set_enabled(admin, &actor, false).await,
            Self::Delete { actor } => {
                let id = admin.api.find("actors", &actor).await?;
                admin.delete(&format!("actors/{id}"), &format!("deleted actor {id}")).await
            }
        }
    }
}

async fn set_enabled(admin: &Admin, actor: &str, enabled: bool) -> Result<(), AdminError> {
    let id = admin.api.find("actors", actor).await?;
    let done = if enabled { "enabled" } else { "disabled" };
    admin.patch(&format!("actors/{id}"), json!({ "enabled": enabled }), done).await
}

pub(super) fn columns() -> [Column; 5] {
    [
        Column { head: "ID", show: |actor| text(&actor["id"]) },
        Column { head: "NAME", show: |actor| text(&actor["name"]) },
        Column { head: "TYPE", show: |actor| text(&actor["kind"]) },
        Column { head: "ROLE", show: |actor| text(&actor["role"]) },
        Column { head: "ENABLED", show: |actor| text(&actor["enabled"]) },
    ]
}
