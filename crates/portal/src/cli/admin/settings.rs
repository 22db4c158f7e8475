//! Settings of the account.

use std::net::SocketAddr;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Admin, AdminError};
use crate::cli::output::text;

/// What can be done with settings.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Action {
    /// Print the settings
    Show,
    /// Change settings; clients come back for them, and their tunnels stay
    #[command(override_usage = "adit-portal settings set [OPTIONS]")]
    #[group(required = true, multiple = true)]
    Set {
        /// Resolver that clients ask for other names (ADDRESS:PORT, repeatable)
        #[arg(long = "dns-upstream", value_name = "ADDRESS", conflicts_with = "system_dns")]
        dns_upstreams: Vec<SocketAddr>,
        /// Let clients keep their own resolvers
        #[arg(long)]
        system_dns: bool,
        /// Search domain for clients (repeatable)
        #[arg(long = "search-domain", value_name = "DOMAIN", conflicts_with = "no_search_domains")]
        search_domains: Vec<String>,
        /// No search domains
        #[arg(long)]
        no_search_domains: bool,
        /// How many days a device stays signed in (1 to 366)
        #[arg(long, value_name = "DAYS")]
        device_session_days: Option<u32>,
        /// On how many devices one person may be signed in at a time
        #[arg(long, value_name = "COUNT", conflicts_with = "no_device_limit")]
        devices_per_user: Option<u32>,
        /// People may be signed in on any number of devices
        #[arg(long)]
        no_device_limit: bool,
    },
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::Show => {
                let settings = admin.api.call(Method::GET, "settings", None).await?;
                admin.say(&settings, &lines(&settings));
                Ok(())
            }
            Self::Set {
                dns_upstreams,
                system_dns,
                search_domains,
                no_search_domains,
                device_session_days,
                devices_per_user,
                no_device_limit,
            } => {
                let mut body = json!({});
                if system_dns || !dns_upstreams.is_empty() {
                    body["dns_upstreams"] = json!(dns_upstreams);
                }
                if no_search_domains || !search_domains.is_empty() {
                    body["search_domains"] = json!(search_domains);
                }
                if let Some(days) = device_session_days {
                    body["device_session_days"] = json!(days);
                }
                if no_device_limit || devices_per_user.is_some() {
                    body["devices_per_user"] = json!(devices_per_user);
                }
                admin.patch("settings", body, "changed").await
            }
        }
    }
}

fn lines(settings: &Value) -> String {
    let lines = settings.as_object().into_iter().flatten().map(|(name, value)| match value {
        Value::Array(values) => format!("{name}: {}", values.iter().map(text).collect::<Vec<_>>().join(", ")),
        value => format!("{name}: {}", text(value)),
    });
    lines.collect::<Vec<_>>().join("\n")
}
