//! Tokens.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Admin, AdminError, Column};
use crate::cli::duration;
use crate::cli::output::{text, time};

/// What can be done with tokens.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Action {
    /// Create a token; it is shown once
    #[command(subcommand)]
    Create(Create),
    /// List tokens, without their secrets
    List,
    /// Make a token that takes the place of one for the API or SCIM
    Rotate {
        /// Its id
        #[arg(value_name = "TOKEN")]
        id: Uuid,
        /// How long the old one stays good: 12h, 7d (default: 24h)
        #[arg(long, value_parser = duration, value_name = "DURATION")]
        overlap: Option<u64>,
    },
    /// Revoke a token; its sessions end at once
    Revoke {
        /// Its id
        // Not named `token`: that is the administrator's own, an argument of every command.
        #[arg(value_name = "TOKEN")]
        id: Uuid,
    },
}

/// What a token is for.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Create {
    /// For the client of a person or service account
    Client {
        /// Name or id of the actor
        #[arg(long)]
        actor: String,
        #[command(flatten)]
        details: Details,
    },
    /// For the gateways of a site
    Gateway {
        /// Name or id of the site
        #[arg(long)]
        site: String,
        #[command(flatten)]
        details: Details,
    },
    /// For relays
    Relay {
        #[command(flatten)]
        details: Details,
    },
    /// For a directory that provisions people and groups through SCIM
    Scim {
        #[command(flatten)]
        details: Details,
    },
    /// For the API, as somebody who has a role
    Api {
        /// Name or id of the actor
        #[arg(long)]
        actor: String,
        /// What it may be used for: read, write, sites:read (repeatable)
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        #[command(flatten)]
        details: Details,
    },
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Details {
    /// Shown in lists
    #[arg(long)]
    name: Option<String>,
    /// Lifetime: 30d, 12h, 90m, 45s or never (default: clients 30d, others never)
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    expires_in: Option<u64>,
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::Create(create) => create.run(admin).await,
            Self::List => admin.list("tokens", &columns()).await,
            Self::Rotate { id, overlap } => {
                let body = overlap.map_or(json!({}), |overlap| json!({ "overlap": overlap }));
                let path = format!("tokens/{id}/rotate");
                let made = admin.api.call(Method::POST, &path, Some(&body)).await?;
                admin.say(&made, &text(&made["token"]));
                Ok(())
            }
            Self::Revoke { id } => admin.delete(&format!("tokens/{id}"), "revoked").await,
        }
    }
}

impl Create {
    async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        let (mut body, details) = match self {
            Self::Client { actor, details } => {
                let actor = admin.api.find("actors", &actor).await?;
                (json!({ "kind": "client", "actor": actor }), details)
            }
            Self::Gateway { site, details } => {
                let site = admin.api.find("sites", &site).await?;
                (json!({ "kind": "gateway", "site": site }), details)
            }
            Self::Relay { details } => (json!({ "kind": "relay" }), details),
            Self::Scim { details } => (json!({ "kind": "scim" }), details),
            Self::Api { actor, scopes, details } => {
                let actor = admin.api.find("actors", &actor).await?;
                let scopes = Some(scopes).filter(|scopes| !scopes.is_empty());
                (json!({ "kind": "api", "actor": actor, "scopes": scopes }), details)
            }
        };
        body["name"] = json!(details.name);
        body["expires_in"] = json!(details.expires_in);
        let made = admin.api.call(Method::POST, "tokens", Some(&body)).await?;
        admin.say(&made, &text(&made["token"]));
        Ok(())
    }
}

fn columns() -> [Column; 5] {
    [
        Column { head: "ID", show: |token| text(&token["id"]) },
        Column { head: "KIND", show: |token| text(&token["kind"]) },
        Column { head: "NAME", show: |token| text(&token["name"]) },
        Column { head: "STATE", show: state },
        Column { head: "LAST USED", show: |token| time(&token["last_used_ms"]) },
    ]
}

fn state(token: &Value) -> String {
    let expired = token["expires_ms"].as_i64().is_some_and(|at_ms| at_ms <= crate::clock::now_ms());
    let state = match (token["revoked_ms"].is_null(), expired) {
        (false, _) => "revoked",
        (true, true) => "expired",
        (true, false) => "good",
    };
    state.to_owned()
}
