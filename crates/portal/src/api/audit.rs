//! The audit log.

use axum::Json;
use axum::extract::State;

use super::{Admin, Failure, Listed, Params, listed};
use crate::portal::SharedPortal;
use crate::store::{AuditRow, Page};

/// Lists what was changed, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    tag = "audit",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<AuditRow>)),
    security(("token" = ["audit:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<AuditRow>>, Failure> {
    Ok(listed(page, portal.store.audit(page).await?, |row| row.id))
}
