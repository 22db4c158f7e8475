//! OpenID Connect providers. Only owners change them: whoever decides who authenticates people decides who they are.

use adit_policy::ProviderName;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Admin, Body, Failure, Listed, Params, PathIds, listed};
use crate::clock;
use crate::portal::{Portal, SharedPortal};
use crate::store::{AuthProvider, Page};
use crate::web;

/// Email domains of one provider.
const MOST_DOMAINS: usize = 50;

/// A provider without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProviderView {
    /// Names it.
    id: Uuid,
    /// What sessions and conditions call it.
    name: String,
    /// Its issuer identifier.
    issuer: String,
    /// What it calls this portal.
    client_id: String,
    /// Whether a client secret is set.
    has_secret: bool,
    /// Scopes that are asked for.
    scopes: String,
    /// The claim that lists groups; absent when the provider has none here.
    group_claim: Option<String>,
    /// Domains of the verified email address that somebody must have; everyone is let in when there is none.
    email_domains: Vec<String>,
    /// Certificates of the authority of its TLS, beside the well-known ones.
    ca_pem: Option<String>,
    /// Whether its subjects may be people whom SCIM made.
    links_directory: bool,
    /// Whether a subject that nobody knows becomes a user.
    just_in_time: bool,
    /// Whether anybody may sign in with it.
    enabled: bool,
    /// Where it sends browsers back to: to be entered there. Absent while the portal does not know its own address.
    redirect_uri: Option<String>,
    /// When it was set up.
    created_ms: i64,
}

/// A new provider.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProvider {
    /// 1 to 32 of a-z, 0-9 and `-`, a letter first; not `local`.
    #[schema(min_length = 1, max_length = 32, pattern = "^[a-z][a-z0-9-]{0,31}$")]
    pub(crate) name: String,
    /// Exactly as the provider writes it; `https`, or `http` with a loopback address.
    #[schema(max_length = 500)]
    pub(crate) issuer: String,
    /// What the provider calls this portal.
    #[schema(min_length = 1, max_length = 500)]
    pub(crate) client_id: String,
    /// The secret for the token endpoint; absent for a public client.
    #[schema(max_length = 500)]
    pub(crate) client_secret: Option<String>,
    /// Scopes to ask for, separated by spaces; `openid profile email` if nothing is said.
    #[schema(max_length = 500)]
    pub(crate) scopes: Option<String>,
    /// The claim that lists groups.
    #[schema(max_length = 100)]
    pub(crate) group_claim: Option<String>,
    /// Email domains; at most 50.
    #[schema(max_items = 50)]
    pub(crate) email_domains: Option<Vec<String>>,
    /// Certificates in PEM.
    #[schema(max_length = 100_000)]
    pub(crate) ca_pem: Option<String>,
    /// `false` if nothing is said.
    pub(crate) links_directory: Option<bool>,
    /// `true` if nothing is said.
    pub(crate) just_in_time: Option<bool>,
    /// `true` if nothing is said.
    pub(crate) enabled: Option<bool>,
}

/// What to change; what is not given stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderChange {
    /// The secret for the token endpoint; empty for a public client.
    #[schema(max_length = 500)]
    pub(crate) client_secret: Option<String>,
    /// Scopes to ask for, separated by spaces; `openid` is always among them.
    #[schema(max_length = 500)]
    pub(crate) scopes: Option<String>,
    /// The claim that lists groups; empty for none.
    #[schema(max_length = 100)]
    pub(crate) group_claim: Option<String>,
    /// All email domains; at most 50.
    #[schema(max_items = 50)]
    pub(crate) email_domains: Option<Vec<String>>,
    /// Certificates in PEM; empty for none.
    #[schema(max_length = 100_000)]
    pub(crate) ca_pem: Option<String>,
    /// Whether its subjects may be people whom SCIM made.
    pub(crate) links_directory: Option<bool>,
    /// Whether a subject that nobody knows becomes a user.
    pub(crate) just_in_time: Option<bool>,
    /// Whether anybody may sign in with it.
    pub(crate) enabled: Option<bool>,
}

async fn public_url(portal: &Portal) -> Result<Option<String>, Failure> {
    Ok(portal.store.sign_in_setting().await?.public_url)
}

async fn shown(portal: &Portal, provider: AuthProvider) -> Result<Json<ProviderView>, Failure> {
    Ok(Json(view(public_url(portal).await?.as_deref(), provider)))
}

fn view(public_url: Option<&str>, provider: AuthProvider) -> ProviderView {
    ProviderView {
        id: provider.id,
        issuer: provider.issuer,
        client_id: provider.client_id,
        has_secret: provider.client_secret_sealed.is_some(),
        scopes: provider.scopes,
        group_claim: provider.group_claim,
        email_domains: provider.email_domains.split_whitespace().map(str::to_owned).collect(),
        ca_pem: provider.ca_pem,
        links_directory: provider.links_directory,
        just_in_time: provider.just_in_time,
        enabled: provider.enabled,
        redirect_uri: public_url.map(|url| web::redirect_uri(url, &provider.name)),
        created_ms: provider.created_ms,
        name: provider.name,
    }
}

fn checked<'a>(text: &'a str, longest: usize, what: &str) -> Result<&'a str, Failure> {
    if text.len() > longest || text.chars().any(char::is_control) {
        return Err(Failure::invalid(&format!(
            "{what} has at most {longest} characters and none to control terminals"
        )));
    }
    Ok(text.trim())
}

/// The same names as in conditions, or no condition could name the provider.
fn checked_name(name: &str) -> Result<String, Failure> {
    match name.parse::<ProviderName>() {
        Ok(name) if name.as_str() != web::LOCAL => Ok(name.into()),
        _ => Err(Failure::invalid(
            "a provider's name has 1 to 32 of a-z, 0-9 and -, a letter first, and is not `local`",
        )),
    }
}

fn checked_issuer(issuer: &str) -> Result<&str, Failure> {
    let issuer = checked(issuer, 500, "an issuer")?;
    let url = Url::parse(issuer).ok();
    let is_good = |url: &Url| web::is_acceptable(url) && url.query().is_none() && url.fragment().is_none();
    if url.is_none_or(|url| !is_good(&url)) {
        return Err(Failure::invalid(
            "an issuer is an https address without query (http only for a loopback address)",
        ));
    }
    Ok(issuer)
}

fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn checked_scopes(scopes: &str) -> Result<String, Failure> {
    let mut scopes: Vec<&str> = checked(scopes, 500, "`scopes`")?.split_whitespace().collect();
    if !scopes.contains(&"openid") {
        scopes.insert(0, "openid");
    }
    Ok(scopes.join(" "))
}

fn checked_domains(domains: &[String]) -> Result<String, Failure> {
    let is_domain = |text: &String| {
        text.len() <= 253
            && text.contains('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
    };
    if domains.len() > MOST_DOMAINS || !domains.iter().all(is_domain) {
        return Err(Failure::invalid("`email_domains` are at most 50 domains, such as corp.example"));
    }
    Ok(domains.join(" ").to_ascii_lowercase())
}

/// Refuses certificates that no client could be made with.
fn checked_ca(pem: &str) -> Result<Option<String>, Failure> {
    let wrong = || Failure::invalid("`ca_pem` holds certificates in PEM, of at most 100000 characters");
    if pem.trim().is_empty() {
        return Ok(None);
    }
    if pem.len() > 100_000 {
        return Err(wrong());
    }
    let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes()).map_err(|_| wrong())?;
    if certificates.is_empty() { Err(wrong()) } else { Ok(Some(pem.to_owned())) }
}

/// A provider as it is wanted, if it makes sense.
pub(crate) fn new_provider(portal: &Portal, new: NewProvider) -> Result<AuthProvider, Failure> {
    let now_ms = clock::now_ms();
    let client_id = checked(&new.client_id, 500, "`client_id`")?.to_owned();
    if client_id.is_empty() {
        return Err(Failure::invalid("`client_id` is what the provider calls this portal"));
    }
    let mut provider = AuthProvider {
        id: Uuid::now_v7(),
        name: checked_name(&new.name)?,
        issuer: checked_issuer(&new.issuer)?.to_owned(),
        client_id,
        client_secret_sealed: None,
        scopes: "openid profile email".to_owned(),
        group_claim: None,
        email_domains: String::new(),
        ca_pem: None,
        links_directory: false,
        just_in_time: true,
        enabled: true,
        created_ms: now_ms,
        changed_ms: now_ms,
    };
    let settings = ProviderChange {
        client_secret: new.client_secret,
        scopes: new.scopes,
        group_claim: new.group_claim,
        email_domains: new.email_domains,
        ca_pem: new.ca_pem,
        links_directory: new.links_directory,
        just_in_time: new.just_in_time,
        enabled: new.enabled,
    };
    settings.apply(portal, &mut provider)?;
    Ok(provider)
}

impl ProviderChange {
    /// Changes a provider, unless something of it makes no sense.
    pub(crate) fn apply(self, portal: &Portal, provider: &mut AuthProvider) -> Result<(), Failure> {
        if let Some(secret) = &self.client_secret {
            let secret = optional(checked(secret, 500, "`client_secret`")?);
            let sealed = secret.map(|secret| web::seal_secret(&portal.secrets, provider.id, &secret));
            provider.client_secret_sealed = sealed.transpose().map_err(Failure::internal)?;
        }
        if let Some(scopes) = &self.scopes {
            provider.scopes = checked_scopes(scopes)?;
        }
        if let Some(claim) = &self.group_claim {
            provider.group_claim = optional(checked(claim, 100, "`group_claim`")?);
        }
        if let Some(domains) = &self.email_domains {
            provider.email_domains = checked_domains(domains)?;
        }
        if let Some(pem) = &self.ca_pem {
            provider.ca_pem = checked_ca(pem)?;
        }
        provider.links_directory = self.links_directory.unwrap_or(provider.links_directory);
        provider.just_in_time = self.just_in_time.unwrap_or(provider.just_in_time);
        provider.enabled = self.enabled.unwrap_or(provider.enabled);
        Ok(())
    }
}

/// Lists identity providers.
#[utoipa::path(
    get,
    path = "/api/v1/providers",
    tag = "providers",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<ProviderView>)),
    security(("token" = ["providers:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<ProviderView>>, Failure> {
    let (all, url) = (portal.store.auth_providers(page).await?, public_url(&portal).await?);
    let views = all.into_iter().map(|provider| view(url.as_deref(), provider)).collect();
    Ok(listed(page, views, |view: &ProviderView| view.id))
}

/// Shows an identity provider.
#[utoipa::path(
    get,
    path = "/api/v1/providers/{id}",
    tag = "providers",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "Here it is", body = ProviderView)),
    security(("token" = ["providers:read"])),
)]
pub(super) async fn show(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<Uuid>,
) -> Result<Json<ProviderView>, Failure> {
    shown(&portal, portal.store.auth_provider(id).await?).await
}

/// Sets up an identity provider; only owners may.
#[utoipa::path(
    post,
    path = "/api/v1/providers",
    tag = "providers",
    request_body = NewProvider,
    responses((status = 201, description = "Created", body = ProviderView)),
    security(("token" = ["providers:write"])),
)]
pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(new): Body<NewProvider>,
) -> Result<(StatusCode, Json<ProviderView>), Failure> {
    admin.owns()?;
    let provider = new_provider(&portal, new)?;
    let mut change = portal.store.change(&admin.by).await?;
    change.create_auth_provider(&provider).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, shown(&portal, provider).await?))
}

/// Changes an identity provider; only owners may. When it is disabled, the sessions that rest on it end.
#[utoipa::path(
    patch,
    path = "/api/v1/providers/{id}",
    tag = "providers",
    params(("id" = Uuid, Path)),
    request_body = ProviderChange,
    responses((status = 200, description = "Here it is", body = ProviderView)),
    security(("token" = ["providers:write"])),
)]
pub(super) async fn update(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<Uuid>,
    Body(wanted): Body<ProviderChange>,
) -> Result<Json<ProviderView>, Failure> {
    let mut provider = portal.store.auth_provider(id).await?;
    admin.owns()?;
    wanted.apply(&portal, &mut provider)?;
    let mut change = portal.store.change(&admin.by).await?;
    change.update_auth_provider(&provider).await?;
    change.commit().await?;
    shown(&portal, portal.store.auth_provider(id).await?).await
}

/// Removes an identity provider; only owners may. The sessions that rest on it end, its groups are emptied and stay.
#[utoipa::path(
    delete,
    path = "/api/v1/providers/{id}",
    tag = "providers",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["providers:write"])),
)]
pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<Uuid>,
) -> Result<StatusCode, Failure> {
    portal.store.auth_provider(id).await?;
    admin.owns()?;
    let mut change = portal.store.change(&admin.by).await?;
    change.delete_auth_provider(id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
