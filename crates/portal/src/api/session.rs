//! Sessions of people in a browser.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use uuid::Uuid;

use super::{Admin, Failure, Listed, Params, PathIds, listed};
use crate::portal::SharedPortal;
use crate::store::{Page, WebSessionRow};

/// Lists sessions of people in a browser.
#[utoipa::path(
    get,
    path = "/api/v1/sessions",
    tag = "sessions",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<WebSessionRow>)),
    security(("token" = ["sessions:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<WebSessionRow>>, Failure> {
    Ok(listed(page, portal.store.web_sessions(page).await?, |row| row.session.id))
}

/// Ends a session: its browser has to sign in again.
#[utoipa::path(
    delete,
    path = "/api/v1/sessions/{id}",
    tag = "sessions",
    params(("id" = Uuid, Path, description = "The session")),
    responses((status = 204, description = "It has ended")),
    security(("token" = ["sessions:write"])),
)]
pub(super) async fn end(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<Uuid>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.end_web_session(id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
