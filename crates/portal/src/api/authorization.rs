//! Live authorizations: who may reach what at this moment.

use adit_policy::AuthorizationId;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::{Admin, Failure, Listed, Params, PathIds, listed};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{AuthorizationRow, Page};

/// Lists who may reach what at this moment.
#[utoipa::path(
    get,
    path = "/api/v1/authorizations",
    tag = "authorizations",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<AuthorizationRow>)),
    security(("token" = ["authorizations:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<AuthorizationRow>>, Failure> {
    let rows = portal.store.authorizations(page, clock::now_ms()).await?;
    Ok(listed(page, rows, |row| row.id))
}

/// Ends one authorization.
#[utoipa::path(
    delete,
    path = "/api/v1/authorizations/{id}",
    tag = "authorizations",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["authorizations:write"])),
)]
pub(super) async fn revoke(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<AuthorizationId>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.revoke_authorization(id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
