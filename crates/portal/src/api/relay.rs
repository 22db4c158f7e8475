//! Relays that have signed in.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Admin, Failure, Listed, Params, listed};
use crate::portal::SharedPortal;
use crate::store::{Page, RelayRow};

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RelayView {
    #[serde(flatten)]
    row: RelayRow,
    online: bool,
}

/// Lists relays that have signed in.
#[utoipa::path(
    get,
    path = "/api/v1/relays",
    tag = "relays",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<RelayView>)),
    security(("token" = ["relays:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<RelayView>>, Failure> {
    let online = portal.hub.online();
    let rows = portal.store.relays(page).await?;
    let views = rows.into_iter().map(|row| RelayView { online: online.contains(&row.id), row }).collect();
    Ok(listed(page, views, |view: &RelayView| view.row.id))
}
