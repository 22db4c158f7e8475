//! The admin pages, below `/admin`: rendered here, changed by plain forms, alive by events.
//!
//! One file for each page, on the store directly. Whoever is signed in and may see the pages is a
//! [`visitor::Visitor`]; every handler takes one, and those that lead to a change or make one take an
//! `Editor` or an `Edit`, so that a page cannot be served without the question. What a page consists of is
//! in [`view`]; nothing else makes HTML. A change that takes access away has a page of its own,
//! which says from whom, before the form that makes it.
//!
//! Deliberately absent: script that is needed. Forms and links work without; script adds liveness,
//! searching while one types, and copying.

mod actor;
mod assets;
mod audit;
mod authorization;
mod device;
mod explain;
mod flow;
mod group;
mod live;
mod overview;
mod policy;
mod provider;
mod rehearsal;
mod relay;
mod resource;
mod session;
mod settings;
mod sink;
mod site;
mod token;
mod view;
mod visitor;

#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use uuid::Uuid;

use crate::api::Failure;
use crate::credential::NoRandomness;
use crate::portal::SharedPortal;
use crate::store::{Find, StoreError};
use crate::web::Refusal;
use view::{Form, Page, query};

/// Rows of one page of a list.
const ROWS: u32 = 50;

/// The largest form.
const MAX_FORM: usize = 64 * 1024;

/// A page is answered within this time.
const PAGE_TIME: Duration = Duration::from_secs(20);

/// Nothing but what the portal itself serves, nothing inside a page, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What the address of a list asks for.
#[derive(Debug, Default, Deserialize)]
struct ListQuery {
    /// Only what holds this.
    #[serde(default)]
    q: String,
    /// Rows behind this one.
    #[serde(default, deserialize_with = "maybe_id")]
    after: Option<Uuid>,
    /// Only what belongs to this.
    #[serde(default, deserialize_with = "maybe_id")]
    of: Option<Uuid>,
}

/// An id that is not one asks for the first page.
fn maybe_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    Ok(String::deserialize(deserializer)?.parse().ok())
}

impl ListQuery {
    /// One row more than is shown, which says whether there is a next page.
    fn find(&self) -> Find {
        Find { text: self.q.clone(), after: self.after, limit: ROWS + 1, of: self.of }
    }

    /// Cuts the row that is too many, and says where the next page is.
    fn cut<T>(&self, path: &str, rows: &mut Vec<T>, id: impl Fn(&T) -> Uuid) -> Option<String> {
        if rows.len() <= ROWS as usize {
            return None;
        }
        rows.truncate(ROWS as usize);
        let last = rows.last().map(id)?.to_string();
        let of = self.of.map(|id| id.to_string()).unwrap_or_default();
        Some(query(path, &[("q", &self.q), ("of", &of), ("after", &last)]))
    }
}

/// Why a form was not carried out.
#[derive(Debug)]
enum Wrong {
    /// It can be mended: the form is shown again with this.
    Said(String),
    /// It cannot.
    Refused(Box<Refusal>),
}

impl Wrong {
    fn said(text: impl Into<String>) -> Self {
        Self::Said(text.into())
    }
}

impl From<StoreError> for Wrong {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(text) | StoreError::Invalid(text) => Self::Said(text),
            StoreError::NotFound(what) => Self::Said(format!("There is no such {what}.")),
            other @ (StoreError::NewerSchema { .. }
            | StoreError::Database(_)
            | StoreError::NotCommitted(_)) => Self::Refused(Box::new(other.into())),
        }
    }
}

impl From<Failure> for Wrong {
    fn from(failure: Failure) -> Self {
        Self::Said(failure.reason())
    }
}

impl From<NoRandomness> for Wrong {
    fn from(error: NoRandomness) -> Self {
        Self::Refused(Box::new(Refusal::internal(error)))
    }
}

/// Shows a form again, with what is wrong with it.
fn again(wrong: Wrong, page: Page, form: impl FnOnce(Option<String>) -> Form) -> Result<Response, Refusal> {
    match wrong {
        Wrong::Said(text) => {
            let form = form(Some(text));
            Ok(page.block(view::Block::Form(form)).answer_with(StatusCode::UNPROCESSABLE_ENTITY))
        }
        Wrong::Refused(refusal) => Err(*refusal),
    }
}

/// Goes on to a page after a change.
fn go(path: impl AsRef<str>) -> Response {
    Redirect::to(path.as_ref()).into_response()
}

/// All pages.
pub(crate) fn router() -> Router<SharedPortal> {
    let pages = Router::new()
        .route("/admin", get(overview::show))
        .route("/admin/sites", get(site::list))
        .route("/admin/sites/new", get(site::form).post(site::create))
        .route("/admin/sites/{id}", get(site::show))
        .route("/admin/sites/{id}/deploy", get(site::back).post(site::deploy))
        .route("/admin/sites/{id}/arrival/{token}", get(site::arrival))
        .route("/admin/sites/{id}/delete", get(site::confirm).post(site::delete))
        .route("/admin/gateways/{id}/delete", get(device::confirm_gateway).post(device::delete_gateway))
        .route("/admin/resources", get(resource::list))
        .route("/admin/resources/new", get(resource::form).post(resource::create))
        .route("/admin/resources/{id}", get(resource::show))
        .route("/admin/resources/{id}/edit", get(resource::edit).post(resource::update))
        .route("/admin/resources/{id}/delete", get(resource::confirm).post(resource::delete))
        .route("/admin/policies", get(policy::list))
        .route("/admin/policies/new", get(policy::form).post(policy::create))
        .route("/admin/policies/{id}", get(policy::show))
        .route("/admin/policies/{id}/edit", get(policy::edit).post(policy::update))
        .route("/admin/policies/{id}/enable", post(policy::enable))
        .route("/admin/policies/{id}/disable", get(policy::confirm_disable).post(policy::disable))
        .route("/admin/policies/{id}/delete", get(policy::confirm_delete).post(policy::delete))
        .route("/admin/explain", get(explain::show))
        .route("/admin/people", get(actor::list))
        .route("/admin/people/new", get(actor::form).post(actor::create))
        .route("/admin/people/{id}", get(actor::show))
        .route("/admin/people/{id}/role", post(actor::set_role))
        .route("/admin/people/{id}/sign-in-link", post(actor::sign_in_link))
        .route("/admin/people/{id}/enable", post(actor::enable))
        .route("/admin/people/{id}/disable", get(actor::confirm_disable).post(actor::disable))
        .route("/admin/people/{id}/delete", get(actor::confirm_delete).post(actor::delete))
        .route("/admin/groups", get(group::list))
        .route("/admin/groups/new", get(group::form).post(group::create))
        .route("/admin/groups/{id}", get(group::show))
        .route("/admin/groups/{id}/add", post(group::add))
        .route("/admin/groups/{id}/remove/{actor}", get(group::confirm_remove).post(group::remove))
        .route("/admin/groups/{id}/delete", get(group::confirm).post(group::delete))
        .route("/admin/devices", get(device::list))
        .route("/admin/devices/{id}/verify", post(device::verify))
        .route("/admin/devices/{id}/unverify", get(device::confirm_unverify).post(device::unverify))
        .route("/admin/devices/{id}/delete", get(device::confirm_client).post(device::delete_client))
        .route("/admin/sessions", get(session::list))
        .route("/admin/sessions/{id}/end", get(session::confirm).post(session::end))
        .route("/admin/authorizations", get(authorization::list))
        .route("/admin/authorizations/{id}/revoke", get(authorization::confirm).post(authorization::revoke))
        .route("/admin/relays", get(relay::list))
        .route("/admin/tokens", get(token::list))
        .route("/admin/tokens/new", get(token::form).post(token::create))
        .route("/admin/tokens/{id}/revoke", get(token::confirm).post(token::revoke))
        .route("/admin/audit", get(audit::list))
        .route("/admin/flows", get(flow::list))
        .route("/admin/flows/sink", get(sink::show).post(sink::update))
        .route("/admin/flows/sink/remove", get(sink::confirm).post(sink::remove))
        .route("/admin/settings", get(settings::show))
        .route("/admin/settings/edit", get(settings::edit).post(settings::update))
        .route("/admin/providers/new", get(provider::form).post(provider::create))
        .route("/admin/providers/{id}", get(provider::show))
        .route("/admin/providers/{id}/edit", get(provider::edit).post(provider::update))
        .route("/admin/providers/{id}/enable", post(provider::enable))
        .route("/admin/providers/{id}/disable", get(provider::confirm_disable).post(provider::disable))
        .route("/admin/providers/{id}/delete", get(provider::confirm_delete).post(provider::delete))
        .route("/admin/suggest/resources", get(resource::suggest))
        .route("/admin/suggest/people", get(actor::suggest))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::from_fn(limit_time));
    pages
        .route("/admin/events", get(live::events))
        .route("/assets/{name}", get(assets::serve))
        .layer(middleware::from_fn(secure))
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(PAGE_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::unavailable("The portal did not answer in time").into_response(),
    }
}

async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    response
}
