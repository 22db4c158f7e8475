//! Settings of the account.

use std::net::SocketAddr;

use adit_policy::ResourceAddress;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Admin, Body, Failure};
use crate::portal::{Portal, SharedPortal};

/// Resolvers that clients ask; more help nobody.
const MOST_UPSTREAMS: usize = 8;

/// Search domains; what the resolvers of common systems take.
const MOST_DOMAINS: usize = 6;

/// What clients get from the portal besides resources.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Settings {
    /// Shown to people.
    name: String,
    /// Resolvers that clients ask for names that are no resources; their own when there is none.
    dns_upstreams: Vec<String>,
    /// Search domains of clients.
    search_domains: Vec<String>,
    /// Tunnel addresses; fixed when the portal was made.
    ipv4_range: String,
    /// Tunnel addresses; fixed when the portal was made.
    ipv6_range: String,
    /// Addresses that stand for names; fixed when the portal was made.
    ipv4_proxy_range: String,
    /// Addresses that stand for names; fixed when the portal was made.
    ipv6_proxy_range: String,
}

/// What to change; what is not given stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SettingsChange {
    /// All resolvers, each as `ADDRESS:PORT`; at most 8.
    #[schema(value_type = Option<Vec<String>>, max_items = 8, example = json!(["192.0.2.53:53"]))]
    dns_upstreams: Option<Vec<SocketAddr>>,
    /// All search domains; at most 6.
    #[schema(max_items = 6, example = json!(["corp.example"]))]
    search_domains: Option<Vec<String>>,
}

fn settings(portal: &Portal) -> Json<Settings> {
    let account = portal.account();
    let settings = &account.settings;
    Json(Settings {
        name: settings.name.clone(),
        dns_upstreams: settings.dns_upstreams.iter().map(ToString::to_string).collect(),
        search_domains: settings.search_domains.clone(),
        ipv4_range: settings.ipv4_range.to_string(),
        ipv6_range: settings.ipv6_range.to_string(),
        ipv4_proxy_range: settings.ipv4_proxy_range.to_string(),
        ipv6_proxy_range: settings.ipv6_proxy_range.to_string(),
    })
}

/// A domain in its stored form: one that could be a resource's name, without wildcards.
fn domain(text: &str) -> Result<String, Failure> {
    let wrong = || Failure::invalid(&format!("`{}` is no search domain", text.escape_debug()));
    if text.contains(['*', '?']) {
        return Err(wrong());
    }
    match ResourceAddress::parse("dns", text) {
        Ok(ResourceAddress::Dns { pattern }) => Ok(pattern),
        _ => Err(wrong()),
    }
}

/// Shows the settings.
#[utoipa::path(
    get,
    path = "/api/v1/settings",
    tag = "settings",
    responses((status = 200, description = "Here it is", body = Settings)),
    security(("token" = ["settings:read"])),
)]
pub(super) async fn show(State(portal): State<SharedPortal>, _: Admin) -> Json<Settings> {
    settings(&portal)
}

/// Changes settings; clients come back for them within moments, and their tunnels stay.
#[utoipa::path(
    patch,
    path = "/api/v1/settings",
    tag = "settings",
    request_body = SettingsChange,
    responses((status = 200, description = "Changed", body = Settings)),
    security(("token" = ["settings:write"])),
)]
pub(super) async fn update(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(wanted): Body<SettingsChange>,
) -> Result<Json<Settings>, Failure> {
    if wanted.dns_upstreams.is_none() && wanted.search_domains.is_none() {
        return Err(Failure::invalid("nothing is to be changed: name `dns_upstreams` or `search_domains`"));
    }
    let mut change = portal.store.change(&admin.by).await?;
    // Read while no other change can happen.
    let before = portal.store.account().await?.settings;
    let upstreams = wanted.dns_upstreams.unwrap_or(before.dns_upstreams);
    let domains = match wanted.search_domains {
        Some(domains) => domains.iter().map(|text| domain(text)).collect::<Result<_, _>>()?,
        None => before.search_domains,
    };
    if upstreams.len() > MOST_UPSTREAMS || domains.len() > MOST_DOMAINS {
        return Err(Failure::invalid("there are at most 8 resolvers and 6 search domains"));
    }
    change.set_dns(&upstreams, &domains).await?;
    change.commit().await?;
    portal.set_account(portal.store.account().await?);
    Ok(settings(&portal))
}
