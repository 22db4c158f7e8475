//! Sites.

use adit_policy::{Site, SiteId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use super::{Admin, Body, Failure, Listed, Params, PathIds, checked_name, listed};
use crate::portal::SharedPortal;
use crate::store::Page;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSite {
    name: String,
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Site>>, Failure> {
    Ok(listed(page, portal.store.sites(page).await?, |site| site.id.as_uuid()))
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<SiteId>,
) -> Result<Json<Site>, Failure> {
    Ok(Json(portal.store.site(id).await?))
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(new): Body<NewSite>,
) -> Result<(StatusCode, Json<Site>), Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    let site = change.create_site(checked_name(&new.name)?).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(site)))
}

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
