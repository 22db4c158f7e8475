//! Live authorizations: who may reach what at this moment.

use adit_policy::AuthorizationId;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::{Admin, Failure, Listed, Params, PathIds, listed};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{AuthorizationRow, Page};

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<AuthorizationRow>>, Failure> {
    let rows = portal.store.authorizations(page, clock::now_ms()).await?;
    Ok(listed(page, rows, |row| row.id))
}

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
