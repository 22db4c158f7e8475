//! Errors of the HTTP interface: problem+json with a stable code.

use std::time::Duration;

use adit_protocol::problem::{MEDIA_TYPE, Problem};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::credential::NoRandomness;
use crate::store::StoreError;

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    code: &'static str,
    title: String,
    detail: Option<String>,
    retry_after: Option<Duration>,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, title: &str) -> Self {
        Self { status, code, title: title.to_owned(), detail: None, retry_after: None }
    }

    fn with_detail(mut self, detail: &str) -> Self {
        self.detail = Some(detail.to_owned());
        self
    }

    /// No token was presented.
    pub(crate) fn missing_token() -> Self {
        let title = "A token is needed: Authorization: Bearer adit_…";
        Self::new(StatusCode::UNAUTHORIZED, "missing_token", title)
    }

    /// The token is not one of ours.
    pub(crate) fn invalid_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_token", "The token is not valid")
    }

    /// The token's time is over.
    pub(crate) fn expired_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "expired_token", "The token has expired")
    }

    /// The token was revoked.
    pub(crate) fn revoked_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "revoked_token", "The token was revoked")
    }

    /// The session of a script's page has ended.
    pub(crate) fn signed_out() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "signed_out", "The session has ended; sign in again")
    }

    /// The token is good, but not for this.
    pub(crate) fn forbidden(code: &'static str, title: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, title)
    }

    /// There is no such thing.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", &format!("There is no such {what}"))
    }

    /// The request cannot be read.
    pub(crate) fn bad_request(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", "The request cannot be read").with_detail(detail)
    }

    /// The request can be read and makes no sense.
    pub(crate) fn invalid(detail: &str) -> Self {
        let title = "The request makes no sense";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", title).with_detail(detail)
    }

    /// Too often; the caller is told when to come back.
    pub(crate) fn too_many(retry_after: Duration) -> Self {
        let failure = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", "Too many connections");
        Self { retry_after: Some(retry_after), ..failure }
    }

    /// Not now.
    pub(crate) fn unavailable(title: &str) -> Self {
        let failure = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title);
        Self { retry_after: Some(Duration::from_secs(5)), ..failure }
    }

    /// The portal is at fault; the details are for its log only.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The portal failed; see its log")
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => Self::not_found(what),
            StoreError::Conflict(detail) => {
                Self::new(StatusCode::CONFLICT, "conflict", "That is not possible now").with_detail(&detail)
            }
            StoreError::Invalid(detail) => Self::invalid(&detail),
            StoreError::Database(error) if is_out_of_reach(&error) => {
                tracing::error!(%error, "the database is out of reach");
                Self::unavailable("The database is out of reach")
            }
            error @ (StoreError::NewerSchema { .. } | StoreError::Database(_)) => Self::internal(error),
        }
    }
}

/// Whether asking again later may help.
fn is_out_of_reach(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed)
}

impl From<NoRandomness> for Failure {
    fn from(error: NoRandomness) -> Self {
        Self::internal(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        metrics::counter!("adit_portal_http_errors_total", "code" => self.code).increment(1);
        let problem = Problem {
            code: self.code.to_owned(),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail,
        };
        let body = serde_json::to_string(&problem).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response();
        if let Some(after) = self.retry_after {
            let seconds = HeaderValue::from(after.as_secs().max(1));
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
