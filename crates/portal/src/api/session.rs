//! Sessions of people in a browser.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use uuid::Uuid;

use super::{Admin, Failure, Listed, Params, PathIds, listed};
use crate::portal::SharedPortal;
use crate::store::{Page, WebSessionRow};

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<WebSessionRow>>, Failure> {
    Ok(listed(page, portal.store.web_sessions(page).await?, |row| row.session.id))
}

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
