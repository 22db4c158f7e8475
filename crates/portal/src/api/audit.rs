//! The audit log: pages of it, and all of it.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;

use super::{Admin, Failure, Listed, Params, listed};
use crate::portal::SharedPortal;
use crate::store::{AuditFilter, AuditRow, Page};

/// Entries that are read at a time for an export.
const BATCH: i64 = 500;

/// Lists what was changed, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/audit",
    tag = "audit",
    params(Page, AuditFilter),
    responses((status = 200, description = "Here it is", body = Listed<AuditRow>)),
    security(("token" = ["audit:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
    Params(filter): Params<AuditFilter>,
) -> Result<Json<Listed<AuditRow>>, Failure> {
    Ok(listed(page, portal.store.audit_of(page, &filter).await?, |row| row.id))
}

/// Where an export begins.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct From {
    /// Entries with larger numbers; all of them when absent.
    #[serde(default)]
    after_seq: i64,
}

/// Every entry as a line of JSON, the oldest first. Whoever comes back asks for what follows the
/// last number that it has.
#[utoipa::path(
    get,
    path = "/api/v1/audit/export",
    tag = "audit",
    params(From),
    responses((status = 200, description = "Here it is", body = String, content_type = "application/x-ndjson")),
    security(("token" = ["audit:read"])),
)]
pub(super) async fn export(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(from): Params<From>,
) -> Response {
    let lines = stream::try_unfold((portal, from.after_seq), |(portal, after)| async move {
        let rows = portal.store.audit_in_order(after, BATCH).await.map_err(std::io::Error::other)?;
        let Some(last) = rows.last().map(|row| row.seq) else { return Ok::<_, std::io::Error>(None) };
        Ok(Some((json_lines(&rows)?, (portal, last))))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn json_lines(rows: &[AuditRow]) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    for row in rows {
        text += &serde_json::to_string(row)?;
        text.push('\n');
    }
    Ok(text)
}
