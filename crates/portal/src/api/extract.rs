//! What handlers need to know of a request, with errors in our own form.

use std::net::SocketAddr;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use super::Failure;
use crate::clock;
use crate::credential::PresentedToken;
use crate::portal::SharedPortal;
use crate::store::{Token, TokenKind};

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote(pub(crate) SocketAddr);

impl<S: Sync> FromRequestParts<S> for Remote {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get().copied().ok_or_else(|| Failure::internal("a request without an address"))
    }
}

/// Finds out whose token a request carries, and that it is good for `kind`.
pub(crate) async fn authenticate(
    portal: &SharedPortal,
    headers: &HeaderMap,
    kind: TokenKind,
) -> Result<Token, Failure> {
    let header = headers.get(header::AUTHORIZATION).ok_or_else(Failure::missing_token)?;
    let text = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).map(str::trim);
    let presented = text.and_then(PresentedToken::parse).ok_or_else(Failure::invalid_token)?;
    let token = portal.store.token(presented.id).await?.ok_or_else(Failure::invalid_token)?;
    if !portal.secrets.verify(&presented, &token.hash) {
        return Err(Failure::invalid_token());
    }
    if token.revoked_ms.is_some() {
        return Err(Failure::revoked_token());
    }
    let now_ms = clock::now_ms();
    if token.expires_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        return Err(Failure::expired_token());
    }
    if token.is_ahead(now_ms) {
        // Not final: the token is good again as soon as the clock is right.
        return Err(Failure::unavailable("The token is from the future: the portal's clock was set back"));
    }
    if token.kind != kind.name() {
        let title = format!("A {} token is needed here, this is a {} token", kind.name(), token.kind);
        return Err(Failure::forbidden("wrong_token_kind", &title));
    }
    Ok(token)
}

/// A JSON body; unknown fields and wrong types are the caller's mistake and said so.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(rejection) => Err(Failure::bad_request(&rejection.body_text())),
        }
    }
}

/// The query string.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Self(value)),
            Err(rejection) => Err(Failure::bad_request(&rejection.body_text())),
        }
    }
}

/// The ids in the path.
#[derive(Debug)]
pub(super) struct PathIds<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathIds<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(Failure::bad_request(&rejection.body_text())),
        }
    }
}
