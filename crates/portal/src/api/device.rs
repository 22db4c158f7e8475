//! Devices: clients and gateways that have signed in.

use std::net::{Ipv4Addr, Ipv6Addr};

use adit_policy::ClientId;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Admin, Body, Failure, Listed, Params, PathIds, listed};
use crate::portal::SharedPortal;
use crate::store::{DeviceRow, Page};

#[derive(Debug, Serialize)]
pub(super) struct DeviceView {
    #[serde(flatten)]
    row: DeviceRow,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    online: bool,
}

async fn views(portal: &SharedPortal, kind: &str, page: Page) -> Result<Json<Listed<DeviceView>>, Failure> {
    let online = portal.hub.online();
    let rows = portal.store.devices(kind, page).await?;
    let views = rows
        .into_iter()
        .map(|row| {
            let index = u32::try_from(row.address_index).unwrap_or(0);
            let (ipv4, ipv6) = portal.account.tunnel_addresses(index);
            DeviceView { online: online.contains(&row.id), ipv4, ipv6, row }
        })
        .collect();
    Ok(listed(page, views, |view: &DeviceView| view.row.id))
}

pub(super) async fn clients(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<DeviceView>>, Failure> {
    views(&portal, "client", page).await
}

pub(super) async fn gateways(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<DeviceView>>, Failure> {
    views(&portal, "gateway", page).await
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeviceChange {
    /// An administrator vouches for it.
    verified: bool,
}

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

pub(super) async fn delete_client(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<Uuid>,
) -> Result<StatusCode, Failure> {
    delete(&portal, &admin, "client", id).await
}

pub(super) async fn delete_gateway(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<Uuid>,
) -> Result<StatusCode, Failure> {
    delete(&portal, &admin, "gateway", id).await
}
