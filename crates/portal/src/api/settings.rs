//! Settings of the account.

use std::net::SocketAddr;

use adit_policy::ResourceAddress;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Admin, Body, Failure};
use crate::portal::{Portal, SharedPortal};
use crate::store::{Change, SignInSetting};

/// Resolvers that clients ask; more help nobody.
const MOST_UPSTREAMS: usize = 8;

/// Search domains; what the resolvers of common systems take.
const MOST_DOMAINS: usize = 6;

const TOO_MANY: &str = "there are at most 8 resolvers and 6 search domains";

/// What holds for all clients.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Settings {
    /// Shown to people.
    name: String,
    /// Resolvers that clients ask for names that are no resources; their own when there is none.
    dns_upstreams: Vec<String>,
    /// Search domains of clients.
    search_domains: Vec<String>,
    /// Days for which a device stays signed in.
    device_session_days: i64,
    /// Devices on which one person may be signed in at a time; any number when null.
    devices_per_user: Option<i64>,
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
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsChange {
    /// All resolvers, each as `ADDRESS:PORT`; at most 8.
    #[schema(value_type = Option<Vec<String>>, max_items = 8, example = json!(["192.0.2.53:53"]))]
    pub(crate) dns_upstreams: Option<Vec<SocketAddr>>,
    /// All search domains; at most 6.
    #[schema(max_items = 6, example = json!(["corp.example"]))]
    pub(crate) search_domains: Option<Vec<String>>,
    /// Days for which a device stays signed in, from its next sign-in on.
    #[schema(minimum = 1, maximum = 366)]
    pub(crate) device_session_days: Option<i64>,
    /// Devices on which one person may be signed in at a time; null for any number. Those that
    /// are signed in stay so.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 10000)]
    pub(crate) devices_per_user: Option<Option<i64>>,
}

/// Tells null from nothing.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl SettingsChange {
    const fn is_empty(&self) -> bool {
        self.dns_upstreams.is_none() && self.search_domains.is_none() && !self.concerns_devices()
    }

    const fn concerns_devices(&self) -> bool {
        self.device_session_days.is_some() || self.devices_per_user.is_some()
    }
}

/// Refuses days that are not meant.
pub(crate) fn checked_session_days(days: i64) -> Result<i64, Failure> {
    let is_good = (1..=366).contains(&days);
    is_good.then_some(days).ok_or_else(|| Failure::invalid("a device stays signed in for 1 to 366 days"))
}

/// Refuses a limit that is none, or that locks everybody out.
pub(crate) fn checked_device_limit(most: Option<i64>) -> Result<Option<i64>, Failure> {
    let is_good = most.is_none_or(|most| (1..=10_000).contains(&most));
    is_good.then_some(most).ok_or_else(|| Failure::invalid("a limit of devices is 1 to 10000"))
}

/// Refuses more resolvers than help anybody.
pub(crate) fn checked_upstreams(upstreams: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Failure> {
    if upstreams.len() > MOST_UPSTREAMS {
        return Err(Failure::invalid(TOO_MANY));
    }
    Ok(upstreams)
}

/// Search domains in their stored form.
pub(crate) fn checked_search_domains(domains: &[String]) -> Result<Vec<String>, Failure> {
    if domains.len() > MOST_DOMAINS {
        return Err(Failure::invalid(TOO_MANY));
    }
    domains.iter().map(|text| domain(text)).collect()
}

/// The settings of signing in, with what is to be changed.
fn sign_in_setting(before: SignInSetting, wanted: &SettingsChange) -> Result<SignInSetting, Failure> {
    Ok(SignInSetting {
        device_session_days: checked_session_days(
            wanted.device_session_days.unwrap_or(before.device_session_days),
        )?,
        devices_per_user: checked_device_limit(wanted.devices_per_user.unwrap_or(before.devices_per_user))?,
        ..before
    })
}

async fn settings(portal: &Portal) -> Result<Json<Settings>, Failure> {
    let sign_in = portal.store.sign_in_setting().await?;
    let account = portal.account();
    let settings = &account.settings;
    Ok(Json(Settings {
        name: settings.name.clone(),
        dns_upstreams: settings.dns_upstreams.iter().map(ToString::to_string).collect(),
        search_domains: settings.search_domains.clone(),
        device_session_days: sign_in.device_session_days,
        devices_per_user: sign_in.devices_per_user,
        ipv4_range: settings.ipv4_range.to_string(),
        ipv6_range: settings.ipv6_range.to_string(),
        ipv4_proxy_range: settings.ipv4_proxy_range.to_string(),
        ipv6_proxy_range: settings.ipv6_proxy_range.to_string(),
    }))
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
pub(super) async fn show(State(portal): State<SharedPortal>, _: Admin) -> Result<Json<Settings>, Failure> {
    settings(&portal).await
}

/// Changes settings; clients come back for resolvers and search domains within moments, and their tunnels stay.
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
    if wanted.is_empty() {
        return Err(Failure::invalid("nothing is to be changed: name a setting"));
    }
    let mut change = portal.store.change(&admin.by).await?;
    change_settings(&portal, &mut change, wanted).await?;
    change.commit().await?;
    portal.set_account(portal.store.account().await?);
    settings(&portal).await
}

/// Checks and makes a change of settings. What was is read while no other change can happen.
pub(crate) async fn change_settings(
    portal: &Portal,
    change: &mut Change,
    wanted: SettingsChange,
) -> Result<(), Failure> {
    if wanted.concerns_devices() {
        let before = portal.store.sign_in_setting().await?;
        change.set_sign_in_setting(&sign_in_setting(before, &wanted)?).await?;
    }
    if wanted.dns_upstreams.is_some() || wanted.search_domains.is_some() {
        set_dns(portal, change, wanted).await?;
    }
    Ok(())
}

async fn set_dns(portal: &Portal, change: &mut Change, wanted: SettingsChange) -> Result<(), Failure> {
    let before = portal.store.account().await?.settings;
    let upstreams = checked_upstreams(wanted.dns_upstreams.unwrap_or(before.dns_upstreams))?;
    let domains = match wanted.search_domains {
        Some(domains) => checked_search_domains(&domains)?,
        None => before.search_domains,
    };
    Ok(change.set_dns(&upstreams, &domains).await?)
}
