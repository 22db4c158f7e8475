//! Sites.

use adit_policy::{Site, SiteId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Admin, Body, Failure, Listed, Params, PathIds, checked_name, listed};
use crate::portal::SharedPortal;
use crate::store::Page;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteBody {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
}

/// Lists sites.
#[utoipa::path(
    get,
    path = "/api/v1/sites",
    tag = "sites",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<Site>)),
    security(("token" = ["sites:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Site>>, Failure> {
    Ok(listed(page, portal.store.sites(page).await?, |site| site.id.as_uuid()))
}

/// Shows a site.
#[utoipa::path(
    get,
    path = "/api/v1/sites/{id}",
    tag = "sites",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "Here it is", body = Site)),
    security(("token" = ["sites:read"])),
)]
pub(super) async fn show(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<SiteId>,
) -> Result<Json<Site>, Failure> {
    Ok(Json(portal.store.site(id).await?))
}

/// Creates a site.
#[utoipa::path(
    post,
    path = "/api/v1/sites",
    tag = "sites",
    request_body = SiteBody,
    responses((status = 201, description = "Created", body = Site)),
    security(("token" = ["sites:write"])),
)]
pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(new): Body<SiteBody>,
) -> Result<(StatusCode, Json<Site>), Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    let site = change.create_site(checked_name(&new.name)?).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(site)))
}

/// Renames a site.
#[utoipa::path(
    patch,
    path = "/api/v1/sites/{id}",
    tag = "sites",
    params(("id" = Uuid, Path)),
    request_body = SiteBody,
    responses((status = 200, description = "Here it is", body = Site)),
    security(("token" = ["sites:write"])),
)]
pub(super) async fn update(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<SiteId>,
    Body(wanted): Body<SiteBody>,
) -> Result<Json<Site>, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.rename_site(id, checked_name(&wanted.name)?).await?;
    change.commit().await?;
    Ok(Json(portal.store.site(id).await?))
}

/// Deletes a site with its resources, gateways and their tokens.
#[utoipa::path(
    delete,
    path = "/api/v1/sites/{id}",
    tag = "sites",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["sites:write"])),
)]
pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<SiteId>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.delete_site(id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
