//! Tokens. The text of a token is in the answer to its creation and nowhere else.

use adit_policy::{ActorId, SiteId, TokenId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Admin, Body, Failure, Listed, Params, PathIds, checked_name, listed};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{NewToken, Page, Token, TokenKind};

/// How long a client's token lasts unless said otherwise: 30 days, in seconds.
const CLIENT_LIFETIME: u64 = 30 * 24 * 60 * 60;

#[derive(Debug, Deserialize)]
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
    expires_in: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Created {
    id: TokenId,
    kind: TokenKind,
    name: String,
    token: String,
    expires_ms: Option<i64>,
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Token>>, Failure> {
    Ok(listed(page, portal.store.tokens(page).await?, |token| token.id))
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(request): Body<TokenRequest>,
) -> Result<(StatusCode, Json<Created>), Failure> {
    let kind = request.kind;
    let name = match &request.name {
        Some(name) => checked_name(name)?.to_owned(),
        None => kind.name().to_owned(),
    };
    let (actor, site) = scope(&portal, &request).await?;
    let lifetime = match request.expires_in {
        Some(seconds) => seconds,
        None if kind == TokenKind::Client => CLIENT_LIFETIME,
        None => 0,
    };
    let lifetime_ms = i64::try_from(lifetime).unwrap_or(i64::MAX).saturating_mul(1000);
    let expires_ms = (lifetime != 0).then(|| clock::now_ms().saturating_add(lifetime_ms));
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
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(Created { id: minted.id, kind, name, token: minted.text, expires_ms })))
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
            if request.kind == TokenKind::Api && !actor.admin {
                return Err(Failure::invalid("an API token needs an actor who is an administrator"));
            }
            Ok((Some(id), None))
        }
        (TokenKind::Gateway, None, Some(id)) => Ok((None, Some(portal.store.site(id).await?.id))),
        (TokenKind::Relay, None, None) => Ok((None, None)),
        (TokenKind::Client | TokenKind::Api, ..) => {
            Err(Failure::invalid("such a token needs an actor, and no site"))
        }
        (TokenKind::Gateway, ..) => Err(Failure::invalid("a gateway token needs a site, and no actor")),
        (TokenKind::Relay, ..) => Err(Failure::invalid("a relay token takes neither actor nor site")),
    }
}

pub(super) async fn revoke(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<TokenId>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.revoke_token(id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
