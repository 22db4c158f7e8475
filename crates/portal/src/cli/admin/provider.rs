//! Identity providers.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Admin, AdminError, Column};
use crate::cli::output::text;

/// What can be done with identity providers.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Action {
    /// Set up an OpenID Connect provider; prints the redirect URI to enter there
    Add {
        /// What it is called: 1 to 32 of a-z, 0-9 and -, a letter first
        name: String,
        /// Its issuer identifier, exactly as the provider writes it
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// What the provider calls this portal
        #[arg(long, value_name = "ID")]
        client_id: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// List identity providers
    List,
    /// Change a provider; what is not given stays
    Update {
        /// Name or id
        provider: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Let people sign in with a provider again
    Enable {
        /// Name or id
        provider: String,
    },
    /// Let nobody sign in with a provider, and end the sessions that rest on it
    Disable {
        /// Name or id
        provider: String,
    },
    /// Remove a provider; its sessions end, and its groups are emptied
    Remove {
        /// Name or id
        provider: String,
    },
}

/// What can be said of a provider, and changed.
#[derive(Debug, Args)]
pub(in crate::cli) struct Settings {
    /// A file that holds the client secret
    #[arg(long, value_name = "FILE")]
    client_secret_file: Option<PathBuf>,
    /// Scopes to ask for (default: openid profile email)
    #[arg(long)]
    scopes: Option<String>,
    /// The claim that lists a person's groups; empty for none
    #[arg(long, value_name = "CLAIM")]
    group_claim: Option<String>,
    /// Domain of the verified email address that people must have (repeatable)
    #[arg(long = "email-domain", value_name = "DOMAIN")]
    email_domains: Vec<String>,
    /// A file with the certificates of the authority of the provider's TLS
    #[arg(long, value_name = "FILE")]
    provider_ca: Option<PathBuf>,
    /// Whether its people may be users whom SCIM made (default: false)
    #[arg(long, value_name = "BOOL")]
    links_directory: Option<bool>,
    /// Whether people who are not known become users (default: true)
    #[arg(long, value_name = "BOOL")]
    just_in_time: Option<bool>,
}

impl Settings {
    fn body(&self) -> Result<Value, AdminError> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|error| AdminError::Usage(format!("cannot read {}: {error}", path.display())))
        };
        let mut body = json!({});
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                body[name] = value;
            }
        };
        let secret = self.client_secret_file.as_ref().map(read).transpose()?;
        set("client_secret", secret.map(|secret| json!(secret.trim())));
        set("scopes", self.scopes.as_ref().map(|scopes| json!(scopes)));
        set("group_claim", self.group_claim.as_ref().map(|claim| json!(claim)));
        set("email_domains", (!self.email_domains.is_empty()).then(|| json!(self.email_domains)));
        set("ca_pem", self.provider_ca.as_ref().map(read).transpose()?.map(|pem| json!(pem)));
        set("links_directory", self.links_directory.map(|value| json!(value)));
        set("just_in_time", self.just_in_time.map(|value| json!(value)));
        Ok(body)
    }
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::Add { name, issuer, client_id, settings } => {
                let mut body = settings.body()?;
                body["name"] = json!(name);
                body["issuer"] = json!(issuer);
                body["client_id"] = json!(client_id);
                let made = admin.api.call(reqwest::Method::POST, "providers", Some(&body)).await?;
                let uri = text(&made["redirect_uri"]);
                admin.say(&made, &format!("created provider {}\nredirect URI: {uri}", text(&made["id"])));
                Ok(())
            }
            Self::List => {
                let columns = [
                    Column { head: "ID", show: |provider| text(&provider["id"]) },
                    Column { head: "NAME", show: |provider| text(&provider["name"]) },
                    Column { head: "ISSUER", show: |provider| text(&provider["issuer"]) },
                    Column { head: "ENABLED", show: |provider| text(&provider["enabled"]) },
                ];
                admin.list("providers", &columns).await
            }
            Self::Update { provider, settings } => {
                change(admin, &provider, settings.body()?, "changed").await
            }
            Self::Enable { provider } => {
                change(admin, &provider, json!({ "enabled": true }), "enabled").await
            }
            Self::Disable { provider } => {
                change(admin, &provider, json!({ "enabled": false }), "disabled").await
            }
            Self::Remove { provider } => {
                let id = admin.api.find("providers", &provider).await?;
                admin.delete(&format!("providers/{id}"), &format!("removed provider {id}")).await
            }
        }
    }
}

async fn change(admin: &Admin, provider: &str, body: Value, done: &str) -> Result<(), AdminError> {
    let id = admin.api.find("providers", provider).await?;
    admin.patch(&format!("providers/{id}"), body, done).await
}
