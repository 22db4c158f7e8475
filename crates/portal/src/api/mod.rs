//! The JSON API below `/api/v1`, for administrators and their scripts.
//!
//! One file for each noun, mirrored by one of the same name in `store`. Every request carries an API token; what it may do
//! is the less of its scopes and its actor's role (`permission`). Errors are problem+json with stable codes; lists come in
//! pages (`?limit=…&after=ID`, and `next` in the answer). The OpenAPI document is made from the handlers (`document`), and
//! a POST may carry an idempotency key (`idempotency`).

mod actor;
mod audit;
mod authorization;
mod device;
mod document;
mod explain;
mod extract;
mod failure;
mod flow;
mod group;
mod idempotency;
mod permission;
mod plan;
mod policy;
mod provider;
mod relay;
mod resource;
mod scope;
mod session;
mod settings;
mod site;
mod token;

use std::sync::Arc;

use axum::{Router, middleware};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

pub(crate) use extract::{Remote, authenticate};
pub(crate) use failure::Failure;
pub(crate) use flow::WantedSink;
pub(crate) use policy::check as checked_conditions;
pub(crate) use provider::{NewProvider, ProviderChange, new_provider};
pub(crate) use resource::{MAX_FILTERS, checked_address};
pub(crate) use settings::{
    SettingsChange, change_settings, checked_device_limit, checked_search_domains, checked_session_days,
    checked_upstreams,
};

use crate::portal::SharedPortal;
use crate::store::{LONGEST_PAGE, Page};
use extract::{Body, Params, PathIds};
use permission::{Admin, Permissions};

/// The longest body of a request.
pub(crate) const MAX_BODY: usize = 256 * 1024;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
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

/// A name as people may choose it. Spaces around it are left out, and count: the description promises that nothing longer
/// is taken.
pub(crate) fn checked_name(name: &str) -> Result<&str, Failure> {
    let trimmed = name.trim();
    if trimmed.is_empty() || name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Failure::invalid("a name has 1 to 100 characters and none to control terminals"));
    }
    Ok(trimmed)
}

/// All routes of the API.
pub(crate) fn router(portal: &SharedPortal) -> Router<SharedPortal> {
    let (router, document) = documented();
    let permissions = Arc::new(Permissions::of(&document));
    let text: Arc<str> = document::text(&document).into();
    let open = Router::new().route(
        "/api/v1/openapi.json",
        axum::routing::get(move || std::future::ready(document::answer(&text))),
    );
    router
        .route_layer(middleware::from_fn_with_state(Arc::clone(portal), idempotency::once))
        .route_layer(middleware::from_fn_with_state((Arc::clone(portal), permissions), permission::enforce))
        .merge(open)
}

/// The routes and what is said of them.
fn documented() -> (Router<SharedPortal>, OpenApi) {
    let router = OpenApiRouter::with_openapi(document::head())
        .routes(routes!(site::list, site::create))
        .routes(routes!(site::show, site::update, site::delete))
        .routes(routes!(resource::list, resource::create))
        .routes(routes!(resource::show, resource::update, resource::delete))
        .routes(routes!(group::list, group::create))
        .routes(routes!(group::show, group::update, group::delete))
        .routes(routes!(group::members))
        .routes(routes!(group::add, group::remove))
        .routes(routes!(actor::list, actor::create))
        .routes(routes!(actor::show, actor::update, actor::delete))
        .routes(routes!(actor::devices))
        .routes(routes!(actor::sign_in_link))
        .routes(routes!(policy::list, policy::create))
        .routes(routes!(policy::show, policy::update, policy::delete))
        .routes(routes!(token::list, token::create))
        .routes(routes!(token::show, token::revoke))
        .routes(routes!(token::rotate))
        .routes(routes!(device::clients))
        .routes(routes!(device::update_client, device::delete_client))
        .routes(routes!(device::gateways))
        .routes(routes!(device::delete_gateway))
        .routes(routes!(provider::list, provider::create))
        .routes(routes!(provider::show, provider::update, provider::delete))
        .routes(routes!(relay::list))
        .routes(routes!(authorization::list))
        .routes(routes!(authorization::revoke))
        .routes(routes!(explain::explain))
        .routes(routes!(session::list))
        .routes(routes!(session::end))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
        .routes(routes!(flow::list))
        .routes(routes!(flow::export))
        .routes(routes!(flow::setting, flow::set))
        .routes(routes!(flow::sink, flow::set_sink, flow::remove_sink))
        .routes(routes!(settings::show, settings::update))
        .routes(routes!(plan::plan))
        .routes(routes!(plan::apply))
        .routes(routes!(plan::export));
    let (router, mut document) = router.split_for_parts();
    document::complete(&mut document);
    (router, document)
}
