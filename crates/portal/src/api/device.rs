//! Devices: clients and gateways that have signed in.

use std::net::{Ipv4Addr, Ipv6Addr};

use adit_policy::ClientId;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Admin, Body, Failure, Listed, Params, PathIds, listed};
use crate::portal::SharedPortal;
use crate::store::{DeviceRow, Page};

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeviceView {
    #[serde(flatten)]
    row: DeviceRow,
    #[schema(value_type = String, format = Ipv4)]
    ipv4: Ipv4Addr,
    #[schema(value_type = String, format = Ipv6)]
    ipv6: Ipv6Addr,
    online: bool,
}

/// Rows with what is known of them besides.
pub(super) fn views(portal: &SharedPortal, page: Page, rows: Vec<DeviceRow>) -> Json<Listed<DeviceView>> {
    let online = portal.hub.online();
    let views = rows
        .into_iter()
        .map(|row| {
            let index = u32::try_from(row.address_index).unwrap_or(0);
            let (ipv4, ipv6) = portal.account().tunnel_addresses(index);
            DeviceView { online: online.contains(&row.id), ipv4, ipv6, row }
        })
        .collect();
    listed(page, views, |view: &DeviceView| view.row.id)
}

/// Lists clients that have signed in.
#[utoipa::path(
    get,
    path = "/api/v1/devices",
    tag = "devices",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<DeviceView>)),
    security(("token" = ["devices:read"])),
)]
pub(super) async fn clients(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<DeviceView>>, Failure> {
    let rows = portal.store.devices("client", page).await?;
    Ok(views(&portal, page, rows))
}

/// Lists gateways that have signed in.
#[utoipa::path(
    get,
    path = "/api/v1/gateways",
    tag = "gateways",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<DeviceView>)),
    security(("token" = ["gateways:read"])),
)]
pub(super) async fn gateways(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<DeviceView>>, Failure> {
    let rows = portal.store.devices("gateway", page).await?;
    Ok(views(&portal, page, rows))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceChange {
    /// An administrator vouches for it.
    verified: bool,
}

/// Vouches for a client, or does so no longer.
#[utoipa::path(
    patch,
    path = "/api/v1/devices/{id}",
    tag = "devices",
    params(("id" = Uuid, Path)),
    request_body = DeviceChange,
    responses((status = 204, description = "Done")),
    security(("token" = ["devices:write"])),
)]
pub(super) async fn update_client(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<ClientId>,
    Body(wanted): Body<DeviceChange>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.set_device_verified(id, wanted.verified).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn delete(
    portal: &SharedPortal,
    admin: &Admin,
    kind: &'static str,
    id: Uuid,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.delete_device(kind, id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a client; it comes back as another one.
#[utoipa::path(
    delete,
    path = "/api/v1/devices/{id}",
    tag = "devices",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["devices:write"])),
)]
pub(super) async fn delete_client(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<Uuid>,
) -> Result<StatusCode, Failure> {
    delete(&portal, &admin, "client", id).await
}

/// Deletes a gateway; it comes back as another one.
#[utoipa::path(
    delete,
    path = "/api/v1/gateways/{id}",
    tag = "gateways",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["gateways:write"])),
)]
pub(super) async fn delete_gateway(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<Uuid>,
) -> Result<StatusCode, Failure> {
    delete(&portal, &admin, "gateway", id).await
}
