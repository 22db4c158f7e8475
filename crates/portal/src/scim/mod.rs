//! SCIM 2.0 (RFC 7643, RFC 7644): a directory such as Entra or Okta provisions people and groups.
//!
//! Below `/scim/v2`, with a token of its own kind. A user's `userName` is the actor's name, `active` whether it is enabled;
//! a group's `displayName` is its name. What else a directory says of a user is kept and given back, and means nothing here.
//! Users and groups that SCIM made are managed by it: administrators change neither names nor members then.
//!
//! Deliberately absent: bulk, sorting, ETags, changing one's password, `/Me`, `.search`, and filters other than
//! `attribute eq "value"`, none of which those directories need; `ServiceProviderConfig` says so.

mod config;
mod filter;
mod group;
mod list;
mod patch;
#[cfg(test)]
mod tests;
mod user;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{Failure, Remote, authenticate};
use crate::portal::SharedPortal;
use crate::store::{By, StoreError, TokenKind};

/// The media type of everything here.
const MEDIA_TYPE: &str = "application/scim+json";

/// The longest body of a request: a group of ten thousand members fits.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// Where a resource is, relative to the portal.
const BASE: &str = "/scim/v2";

/// All routes.
pub(crate) fn router() -> Router<SharedPortal> {
    Router::new()
        .route("/scim/v2/Users", get(user::list).post(user::create))
        .route(
            "/scim/v2/Users/{id}",
            get(user::show).put(user::replace).patch(user::patch).delete(user::delete),
        )
        .route("/scim/v2/Groups", get(group::list).post(group::create))
        .route(
            "/scim/v2/Groups/{id}",
            get(group::show).put(group::replace).patch(group::patch).delete(group::delete),
        )
        .route("/scim/v2/ServiceProviderConfig", get(config::provider))
        .route("/scim/v2/ResourceTypes", get(config::resource_types))
        .route("/scim/v2/ResourceTypes/{id}", get(config::resource_type))
        .route("/scim/v2/Schemas", get(config::schemas))
        .route("/scim/v2/Schemas/{id}", get(config::schema_of))
}

/// An error as RFC 7644, 3.12 has it.
#[derive(Debug)]
pub(crate) struct ScimError {
    status: StatusCode,
    kind: Option<&'static str>,
    detail: String,
}

impl ScimError {
    /// The request makes no sense; `kind` is one of the RFC's `scimType`s.
    fn invalid(kind: &'static str, detail: &str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, kind: Some(kind), detail: detail.to_owned() }
    }

    fn too_many(detail: &str) -> Self {
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, kind: None, detail: detail.to_owned() }
    }

    fn not_found() -> Self {
        Self { status: StatusCode::NOT_FOUND, kind: None, detail: "there is no such resource".to_owned() }
    }
}

impl From<StoreError> for ScimError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(_) => Self::not_found(),
            StoreError::Conflict(detail) => {
                Self { status: StatusCode::CONFLICT, kind: Some("uniqueness"), detail }
            }
            StoreError::Invalid(detail) => {
                Self { status: StatusCode::BAD_REQUEST, kind: Some("invalidValue"), detail }
            }
            other => Failure::from(other).into(),
        }
    }
}

impl From<Failure> for ScimError {
    fn from(failure: Failure) -> Self {
        let status = failure.status();
        let kind = (status == StatusCode::UNPROCESSABLE_ENTITY).then_some("invalidValue");
        let status = if kind.is_some() { StatusCode::BAD_REQUEST } else { status };
        Self { status, kind, detail: failure.reason() }
    }
}

impl IntoResponse for ScimError {
    fn into_response(self) -> Response {
        let mut body = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"],
            "status": self.status.as_str(),
            "detail": self.detail,
        });
        if let Some(kind) = self.kind {
            body["scimType"] = kind.into();
        }
        let mut response = Scim(self.status, body).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Scim(StatusCode, Value);

impl IntoResponse for Scim {
    fn into_response(self) -> Response {
        let location = self.1.pointer("/meta/location").and_then(Value::as_str);
        let location = location.and_then(|location| HeaderValue::from_str(location).ok());
        let mut response = (self.0, [(header::CONTENT_TYPE, MEDIA_TYPE)], self.1.to_string()).into_response();
        if let (StatusCode::CREATED, Some(location)) = (self.0, location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}

/// A directory's request.
#[derive(Debug)]
pub(crate) struct Directory {
    by: By,
}

impl FromRequestParts<SharedPortal> for Directory {
    type Rejection = ScimError;

    async fn from_request_parts(parts: &mut Parts, portal: &SharedPortal) -> Result<Self, ScimError> {
        let remote = Remote::from_request_parts(parts, portal).await?;
        let token = authenticate(portal, &parts.headers, TokenKind::Scim).await?;
        let by = By { who: format!("scim: {}", token.name), address: remote.0.ip().to_string() };
        Ok(Self { by })
    }
}

/// A JSON body, whichever media type it claims to have: directories say `application/json` as well.
#[derive(Debug)]
pub(crate) struct Document<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Document<T> {
    type Rejection = ScimError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ScimError> {
        let bytes = to_bytes(request.into_body(), MAX_BODY).await;
        let bytes = bytes.map_err(|_| ScimError::too_many("the body is too long or was cut off"))?;
        let document = serde_json::from_slice(&bytes);
        document.map(Self).map_err(|error| ScimError::invalid("invalidSyntax", &error.to_string()))
    }
}

/// An instant as RFC 7643, 2.3.5 has it.
fn instant(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map(|at| at.to_string()).unwrap_or_default()
}
