//! Pages, and the answers that are given in the place of one.

use std::time::Duration;

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};

use crate::api::Failure;
use crate::credential::NoRandomness;
use crate::store::StoreError;

/// Answers with a page.
pub(crate) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => Failure::internal(error).into_response(),
    }
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct RefusalPage<'a> {
    title: &'a str,
    detail: &'a str,
}

/// An answer instead of a page.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The person signs in first and comes back.
    SignIn {
        /// Where they wanted to go.
        next: String,
        /// They are signed in, but for too long already.
        again: bool,
    },
    /// The request is answered with a page that says what is wrong.
    Page {
        /// Its status.
        status: StatusCode,
        /// What is wrong.
        title: String,
        /// What can be done.
        detail: String,
        /// When to try again.
        retry_after: Option<Duration>,
    },
    /// As the API answers.
    Failure(Failure),
}

impl Refusal {
    fn new(status: StatusCode, title: &str, detail: &str) -> Self {
        Self::Page { status, title: title.to_owned(), detail: detail.to_owned(), retry_after: None }
    }

    /// To the sign-in, and then to a local path.
    pub(crate) fn to_sign_in(next: &str) -> Self {
        Self::SignIn { next: next.to_owned(), again: false }
    }

    /// To the sign-in although somebody is signed in, and then to a local path.
    pub(crate) fn to_sign_in_again(next: &str) -> Self {
        Self::SignIn { next: next.to_owned(), again: true }
    }

    /// A script's session has ended.
    pub(crate) fn signed_out() -> Self {
        Self::Failure(Failure::signed_out())
    }

    /// The request did not come from one of our pages, or from one that is old.
    pub(crate) fn forged() -> Self {
        let detail = "The page that sent it is out of date or is not ours. Go back, reload it and try again.";
        Self::new(StatusCode::FORBIDDEN, "The request was refused", detail)
    }

    /// They may not do that.
    pub(crate) fn forbidden(detail: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "This is not for you", detail)
    }

    /// There is no such thing, or not any more.
    pub(crate) fn not_found(title: &str, detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, title, detail)
    }

    /// The request cannot be read.
    pub(crate) fn bad_request(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "The request cannot be read", detail)
    }

    /// Too often.
    pub(crate) fn too_many(retry_after: Duration) -> Self {
        let seconds = retry_after.as_secs().max(1);
        Self::Page {
            status: StatusCode::TOO_MANY_REQUESTS,
            title: "Too many attempts".to_owned(),
            detail: format!("Try again in {seconds} seconds."),
            retry_after: Some(retry_after),
        }
    }

    /// Not now.
    pub(crate) fn unavailable(detail: &str) -> Self {
        let retry_after = Some(Duration::from_secs(5));
        let (title, detail) = ("Not now".to_owned(), detail.to_owned());
        Self::Page { status: StatusCode::SERVICE_UNAVAILABLE, title, detail, retry_after }
    }

    /// The portal is at fault; the details are for its log only.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        Self::Failure(Failure::internal(error))
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound(what) => {
                Self::not_found(&format!("There is no such {what}"), "It may have been deleted meanwhile.")
            }
            StoreError::Conflict(detail) => Self::new(StatusCode::CONFLICT, "That is not possible", &detail),
            StoreError::Invalid(detail) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "That makes no sense", &detail)
            }
            other @ (StoreError::NewerSchema { .. }
            | StoreError::Database(_)
            | StoreError::NotCommitted(_)) => Self::Failure(other.into()),
        }
    }
}

impl From<NoRandomness> for Refusal {
    fn from(error: NoRandomness) -> Self {
        Self::internal(error)
    }
}

impl From<super::password::Busy> for Refusal {
    fn from(error: super::password::Busy) -> Self {
        Self::unavailable(&error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::SignIn { next, again } => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                query.append_pair("next", super::origin::local_path(Some(&next)));
                if again {
                    query.append_pair("again", "1");
                }
                Redirect::to(&format!("/sign-in?{}", query.finish())).into_response()
            }
            Self::Failure(failure) => failure.into_response(),
            Self::Page { status, title, detail, retry_after } => {
                let mut response = page(status, &RefusalPage { title: &title, detail: &detail });
                if let Some(after) = retry_after {
                    let seconds = HeaderValue::from(after.as_secs().max(1));
                    response.headers_mut().insert(header::RETRY_AFTER, seconds);
                }
                response
            }
        }
    }
}
