//! Tokens. The text of a token is in the answer to its creation and nowhere else.

use adit_policy::{ActorId, SiteId, TokenId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::scope::{Scope, Scopes};
use super::{Admin, Body, Failure, Listed, Params, PathIds, checked_name, listed};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{NewToken, Page, StoreError, Token, TokenKind};

/// How long a client's token lasts unless said otherwise: 30 days, in seconds.
const CLIENT_LIFETIME: u64 = 30 * 24 * 60 * 60;

/// The longest lifetime that can be asked for, in seconds: a century. What is longer is meant to be none.
const LONGEST_LIFETIME: u64 = 100 * 365 * 24 * 60 * 60;

/// How long a replaced token stays good at most: 7 days, in seconds.
const LONGEST_OVERLAP: u64 = 7 * 24 * 60 * 60;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRequest {
    kind: TokenKind,
    #[serde(default)]
    name: Option<String>,
    /// Whose it is (client, api).
    actor: Option<ActorId>,
    /// Which site it is for (gateway).
    site: Option<SiteId>,
    /// Seconds until it ends; 0 means never. Clients' tokens end after 30 days by default,
    /// others never.
    #[schema(minimum = 0)]
    expires_in: Option<u64>,
    /// What it may be used for (api), never more than the token that asks; everything that the actor may do by default.
    #[schema(value_type = Option<Vec<String>>, example = json!(["sites:read", "policies:write"]))]
    scopes: Option<Vec<Scope>>,
}

/// How a token is replaced.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotation {
    /// Seconds for which the old token stays good; at most 7 days.
    #[serde(default = "default_overlap")]
    #[schema(minimum = 0, maximum = 604_800)]
    overlap: u64,
}

/// Long enough to roll a new token out within a working day: in seconds.
const fn default_overlap() -> u64 {
    24 * 60 * 60
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedToken {
    id: TokenId,
    kind: TokenKind,
    name: String,
    token: String,
    expires_ms: Option<i64>,
    /// What it may be used for; everything that the actor may do when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<String>,
}

/// Lists tokens, without their secrets.
#[utoipa::path(
    get,
    path = "/api/v1/tokens",
    tag = "tokens",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<Token>)),
    security(("token" = ["tokens:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Token>>, Failure> {
    Ok(listed(page, portal.store.tokens(page).await?, |token| token.id))
}

/// Makes a token, whose text is shown once.
#[utoipa::path(
    post,
    path = "/api/v1/tokens",
    tag = "tokens",
    request_body = TokenRequest,
    responses((status = 201, description = "Created", body = CreatedToken)),
    security(("token" = ["tokens:write"])),
)]
pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(request): Body<TokenRequest>,
) -> Result<(StatusCode, Json<CreatedToken>), Failure> {
    let kind = request.kind;
    let name = match &request.name {
        Some(name) => checked_name(name)?.to_owned(),
        None => kind.name().to_owned(),
    };
    let (actor, site) = scope(&portal, &request).await?;
    if kind == TokenKind::Scim || (kind == TokenKind::Api && actor != Some(admin.actor)) {
        admin.owns()?;
    }
    let lifetime = match request.expires_in {
        Some(seconds) => seconds,
        None if kind == TokenKind::Client => CLIENT_LIFETIME,
        None => 0,
    };
    if lifetime > LONGEST_LIFETIME {
        return Err(Failure::invalid("a token lasts for a century at most; 0 means for ever"));
    }
    let lifetime_ms = i64::try_from(lifetime).unwrap_or(i64::MAX).saturating_mul(1000);
    let expires_ms = (lifetime != 0).then(|| clock::now_ms().saturating_add(lifetime_ms));
    let scopes = Scopes::wanted(request.scopes)?;
    if scopes.text().is_some() && kind != TokenKind::Api {
        return Err(Failure::invalid("only API tokens have scopes"));
    }
    if kind == TokenKind::Api {
        admin.may_hand_out(&scopes)?;
    }
    let minted = portal.secrets.mint(kind)?;
    let mut change = portal.store.change(&admin.by).await?;
    change
        .create_token(&NewToken {
            id: minted.id,
            kind,
            name: name.clone(),
            hash: minted.hash,
            actor,
            site,
            expires_ms,
        })
        .await?;
    if let Some(scopes) = scopes.text() {
        change.set_token_scopes(minted.id, scopes).await?;
    }
    change.commit().await?;
    let scopes = scopes.text();
    let created = CreatedToken { id: minted.id, kind, name, token: minted.text, expires_ms, scopes };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Makes a token that takes the place of one for the API; both are good for a while.
#[utoipa::path(
    post,
    path = "/api/v1/tokens/{id}/rotate",
    tag = "tokens",
    params(("id" = Uuid, Path)),
    request_body = Rotation,
    responses((status = 201, description = "Created", body = CreatedToken)),
    security(("token" = ["tokens:write"])),
)]
pub(super) async fn rotate(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<TokenId>,
    Body(rotation): Body<Rotation>,
) -> Result<(StatusCode, Json<CreatedToken>), Failure> {
    if rotation.overlap > LONGEST_OVERLAP {
        return Err(Failure::invalid("the old token stays good for 7 days at most"));
    }
    let old = portal.store.token(id).await?.ok_or(StoreError::NotFound("token"))?;
    let kind: TokenKind = old.kind.parse()?;
    if !matches!(kind, TokenKind::Api | TokenKind::Scim) {
        return Err(Failure::invalid("only tokens for the API and SCIM are rotated"));
    }
    if old.actor_id != Some(admin.actor.as_uuid()) {
        admin.owns()?;
    }
    if kind == TokenKind::Api {
        admin.may_hand_out(&Scopes::stored(old.scopes.as_deref()))?;
    }
    let now_ms = clock::now_ms();
    let lifetime_ms = old.expires_ms.map(|at_ms| at_ms - old.created_ms);
    let expires_ms = lifetime_ms.map(|lifetime_ms| now_ms.saturating_add(lifetime_ms));
    let minted = portal.secrets.mint(kind)?;
    let new = NewToken {
        id: minted.id,
        kind,
        name: old.name.clone(),
        hash: minted.hash,
        actor: old.actor_id.map(ActorId::from_uuid),
        site: None,
        expires_ms,
    };
    let until_ms =
        now_ms.saturating_add(i64::try_from(rotation.overlap).unwrap_or(i64::MAX).saturating_mul(1000));
    let mut change = portal.store.change(&admin.by).await?;
    change.replace_token(id, &new, until_ms).await?;
    if let Some(scopes) = &old.scopes {
        change.set_token_scopes(new.id, scopes.clone()).await?;
    }
    change.commit().await?;
    let created =
        CreatedToken { id: new.id, kind, name: old.name, token: minted.text, expires_ms, scopes: old.scopes };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Shows a token, without its secret.
#[utoipa::path(
    get,
    path = "/api/v1/tokens/{id}",
    tag = "tokens",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "Here it is", body = Token)),
    security(("token" = ["tokens:read"])),
)]
pub(super) async fn show(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<TokenId>,
) -> Result<Json<Token>, Failure> {
    Ok(Json(portal.store.token(id).await?.ok_or(StoreError::NotFound("token"))?))
}

/// Whom the token is for: exactly what its kind needs.
async fn scope(
    portal: &SharedPortal,
    request: &TokenRequest,
) -> Result<(Option<ActorId>, Option<SiteId>), Failure> {
    match (request.kind, request.actor, request.site) {
        (TokenKind::Client | TokenKind::Api, Some(id), None) => {
            let actor = portal.store.actor(id).await?;
            if !actor.enabled {
                return Err(Failure::invalid("the actor is disabled"));
            }
            if request.kind == TokenKind::Api && !actor.role.reads() {
                return Err(Failure::invalid("an API token needs an actor who has a role"));
            }
            Ok((Some(id), None))
        }
        (TokenKind::Gateway, None, Some(id)) => Ok((None, Some(portal.store.site(id).await?.id))),
        (TokenKind::Relay | TokenKind::Scim, None, None) => Ok((None, None)),
        (TokenKind::Client | TokenKind::Api, ..) => {
            Err(Failure::invalid("such a token needs an actor, and no site"))
        }
        (TokenKind::Gateway, ..) => Err(Failure::invalid("a gateway token needs a site, and no actor")),
        (TokenKind::Relay | TokenKind::Scim, ..) => {
            Err(Failure::invalid("such a token takes neither actor nor site"))
        }
    }
}

/// Revokes a token; its sessions end at once.
#[utoipa::path(
    delete,
    path = "/api/v1/tokens/{id}",
    tag = "tokens",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["tokens:write"])),
)]
pub(super) async fn revoke(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<TokenId>,
) -> Result<StatusCode, Failure> {
    let token = portal.store.token(id).await?.ok_or(StoreError::NotFound("token"))?;
    if token.is_for_administration() && token.actor_id != Some(admin.actor.as_uuid()) {
        admin.owns()?;
    }
    let mut change = portal.store.change(&admin.by).await?;
    change.revoke_token(id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
