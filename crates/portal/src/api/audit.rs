//! The audit log.

use axum::Json;
use axum::extract::State;

use super::{Admin, Failure, Listed, Params, listed};
use crate::portal::SharedPortal;
use crate::store::{AuditRow, Page};

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<AuditRow>>, Failure> {
    Ok(listed(page, portal.store.audit(page).await?, |row| row.id))
}
