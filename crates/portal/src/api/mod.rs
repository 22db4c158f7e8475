//! The JSON API below `/api/v1`, for administrators and their scripts.
//!
//! One file for each noun, mirrored by one of the same name in `store`. Every request carries an
//! API token of an administrator; errors are problem+json with stable codes; lists come in
//! pages (`?limit=…&after=ID`, and `next` in the answer).
//!
//! Deliberately absent for now: OpenAPI, idempotency keys, roles below administrator.

mod actor;
mod audit;
mod authorization;
mod device;
mod explain;
mod extract;
mod failure;
mod group;
mod policy;
mod relay;
mod resource;
mod session;
mod site;
mod token;

use axum::Router;
use axum::routing::{get, put};
use serde::Serialize;
use uuid::Uuid;

pub(crate) use extract::{Remote, authenticate};
pub(crate) use failure::Failure;

use crate::portal::SharedPortal;
use crate::store::{LONGEST_PAGE, Page};
use extract::{Admin, Body, Params, PathIds};

/// A page of a list.
#[derive(Debug, Serialize)]
struct Listed<T> {
    items: Vec<T>,
    /// Ask for the next page with `?after=` this; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Uuid>,
}

fn listed<T>(page: Page, items: Vec<T>, id: impl Fn(&T) -> Uuid) -> axum::Json<Listed<T>> {
    let limit = page.limit.unwrap_or(LONGEST_PAGE).clamp(1, LONGEST_PAGE);
    let full = u32::try_from(items.len()).is_ok_and(|count| count >= limit);
    let next = items.last().filter(|_| full).map(id);
    axum::Json(Listed { items, next })
}

/// A name as people may choose it.
fn checked_name(name: &str) -> Result<&str, Failure> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Failure::invalid("a name has 1 to 100 characters and none to control terminals"));
    }
    Ok(name)
}

/// All routes of the API.
pub(crate) fn router() -> Router<SharedPortal> {
    Router::new()
        .route("/api/v1/sites", get(site::list).post(site::create))
        .route("/api/v1/sites/{id}", get(site::show).delete(site::delete))
        .route("/api/v1/resources", get(resource::list).post(resource::create))
        .route("/api/v1/resources/{id}", get(resource::show).patch(resource::update).delete(resource::delete))
        .route("/api/v1/groups", get(group::list).post(group::create))
        .route("/api/v1/groups/{id}", axum::routing::delete(group::delete))
        .route("/api/v1/groups/{id}/members", get(group::members))
        .route("/api/v1/groups/{id}/members/{actor}", put(group::add).delete(group::remove))
        .route("/api/v1/actors", get(actor::list).post(actor::create))
        .route("/api/v1/actors/{id}", get(actor::show).patch(actor::update).delete(actor::delete))
        .route("/api/v1/policies", get(policy::list).post(policy::create))
        .route("/api/v1/policies/{id}", axum::routing::patch(policy::update).delete(policy::delete))
        .route("/api/v1/tokens", get(token::list).post(token::create))
        .route("/api/v1/tokens/{id}", axum::routing::delete(token::revoke))
        .route("/api/v1/devices", get(device::clients))
        .route(
            "/api/v1/devices/{id}",
            axum::routing::patch(device::update_client).delete(device::delete_client),
        )
        .route("/api/v1/gateways", get(device::gateways))
        .route("/api/v1/gateways/{id}", axum::routing::delete(device::delete_gateway))
        .route("/api/v1/relays", get(relay::list))
        .route("/api/v1/authorizations", get(authorization::list))
        .route("/api/v1/authorizations/{id}", axum::routing::delete(authorization::revoke))
        .route("/api/v1/explain", get(explain::explain))
        .route("/api/v1/sessions", get(session::list))
        .route("/api/v1/sessions/{id}", axum::routing::delete(session::end))
        .route("/api/v1/audit", get(audit::list))
}
