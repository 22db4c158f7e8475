//! Resources.

use adit_policy::{Filter, Resource, ResourceAddress, ResourceId, SiteId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use ipnet::IpNet;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Admin, Body, Failure, Listed, Params, PathIds, checked_name, listed};
use crate::portal::{Portal, SharedPortal};
use crate::store::{Page, ResourceSpec};

/// Filters of one resource; every packet of a new flow is compared with all of them.
pub(crate) const MAX_FILTERS: usize = 100;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewResource {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    address: ResourceAddress,
    site: SiteId,
    #[serde(default)]
    filters: Vec<Filter>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceChange {
    name: Option<String>,
    address: Option<ResourceAddress>,
    site: Option<SiteId>,
    filters: Option<Vec<Filter>>,
}

/// An address in its stored form, or what is wrong with it.
pub(crate) fn checked_address(portal: &Portal, address: ResourceAddress) -> Result<ResourceAddress, Failure> {
    let address = address.validated().map_err(|error| Failure::invalid(&error.to_string()))?;
    if let Some(network) = address.network() {
        let account = portal.account();
        let settings = &account.settings;
        let own: [IpNet; 4] = [
            settings.ipv4_range.into(),
            settings.ipv4_proxy_range.into(),
            settings.ipv6_range.into(),
            settings.ipv6_proxy_range.into(),
        ];
        if let Some(range) = own.iter().find(|range| range.contains(&network) || network.contains(*range)) {
            let text = format!("{network} touches {range}, from which Adit takes tunnel addresses");
            return Err(Failure::invalid(&text));
        }
    }
    Ok(address)
}

/// Brings what an administrator wrote into its stored form, or says what is wrong with it.
fn checked(portal: &Portal, new: NewResource) -> Result<ResourceSpec, Failure> {
    let address = checked_address(portal, new.address)?;
    if new.filters.len() > MAX_FILTERS {
        return Err(Failure::invalid("a resource has at most 100 filters"));
    }
    let name = checked_name(&new.name)?.to_owned();
    Ok(ResourceSpec { name, address, site: new.site, filters: new.filters })
}

/// Lists resources.
#[utoipa::path(
    get,
    path = "/api/v1/resources",
    tag = "resources",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<Resource>)),
    security(("token" = ["resources:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Resource>>, Failure> {
    Ok(listed(page, portal.store.resources(page).await?, |resource| resource.id.as_uuid()))
}

/// Shows a resource.
#[utoipa::path(
    get,
    path = "/api/v1/resources/{id}",
    tag = "resources",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "Here it is", body = Resource)),
    security(("token" = ["resources:read"])),
)]
pub(super) async fn show(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<ResourceId>,
) -> Result<Json<Resource>, Failure> {
    Ok(Json(portal.store.resource(id).await?))
}

/// Creates a resource; nobody reaches it before a policy says so.
#[utoipa::path(
    post,
    path = "/api/v1/resources",
    tag = "resources",
    request_body = NewResource,
    responses((status = 201, description = "Created", body = Resource)),
    security(("token" = ["resources:write"])),
)]
pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(new): Body<NewResource>,
) -> Result<(StatusCode, Json<Resource>), Failure> {
    let spec = checked(&portal, new)?;
    let mut change = portal.store.change(&admin.by).await?;
    let id = change.create_resource(&spec).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(portal.store.resource(id).await?)))
}

/// Changes a resource; another address or site ends its authorizations.
#[utoipa::path(
    patch,
    path = "/api/v1/resources/{id}",
    tag = "resources",
    params(("id" = Uuid, Path)),
    request_body = ResourceChange,
    responses((status = 200, description = "Here it is", body = Resource)),
    security(("token" = ["resources:write"])),
)]
pub(super) async fn update(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<ResourceId>,
    Body(wanted): Body<ResourceChange>,
) -> Result<Json<Resource>, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    // Read while no other change can happen.
    let before = portal.store.resource(id).await?;
    let spec = checked(
        &portal,
        NewResource {
            name: wanted.name.unwrap_or_else(|| before.name.clone()),
            address: wanted.address.unwrap_or_else(|| before.address.clone()),
            site: wanted.site.unwrap_or(before.site.id),
            filters: wanted.filters.unwrap_or_else(|| before.filters.clone()),
        },
    )?;
    change.update_resource(&before, &spec).await?;
    change.commit().await?;
    Ok(Json(portal.store.resource(id).await?))
}

/// Deletes a resource and ends its authorizations.
#[utoipa::path(
    delete,
    path = "/api/v1/resources/{id}",
    tag = "resources",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["resources:write"])),
)]
pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<ResourceId>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.delete_resource(id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
