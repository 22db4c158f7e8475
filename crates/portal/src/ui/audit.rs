//! The audit log.

use axum::extract::{Query, State};
use axum::response::Response;

use super::ListQuery;
use super::view::{Cell, Empty, Page, Table};
use super::visitor::Visitor;
use crate::portal::SharedPortal;
use crate::store::AuditRow;
use crate::web::Refusal;

const COLUMNS: [&str; 5] = ["When (UTC)", "Who", "Did", "From", "Values"];

/// Characters of the values that are shown.
const LONGEST: usize = 300;

/// What it was and what it is now, and further facts.
fn values(row: &AuditRow) -> Cell {
    let (before, after) = (row.before.as_deref(), row.after.as_deref());
    let changed = match (before, after) {
        (Some(before), Some(after)) => format!("{before} → {after}"),
        (Some(before), None) => format!("{before} → gone"),
        (None, after) => after.unwrap_or_default().to_owned(),
    };
    let facts = Some(row.detail.as_str()).filter(|detail| !matches!(*detail, "{}" | "null"));
    let all = format!("{changed} {}", facts.unwrap_or_default());
    let all = all.trim();
    let text: String = all.chars().take(LONGEST).collect();
    match text.as_str() {
        "" => Cell::Muted("none".to_owned()),
        _ if text.len() < all.len() => Cell::Code(format!("{text}…")),
        _ => Cell::Code(text),
    }
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let mut entries = portal.store.find_audit(&wanted.find()).await?;
    let next = wanted.cut("/admin/audit", &mut entries, |row| row.id);
    let row = |row: &AuditRow| {
        let address = if row.address.is_empty() {
            Cell::Muted("the portal".to_owned())
        } else {
            Cell::Code(row.address.clone())
        };
        vec![Cell::Time(row.at_ms), Cell::text(&row.who), Cell::text(&row.action), address, values(row)]
    };
    let rows = entries.iter().map(row).collect();
    let empty = Empty::new("No entry holds this", "");
    Ok(Page::new(&visitor, "audit", "Audit log")
        .lead("Every change, with who made it and from where. Newest first.")
        .search(&wanted.q, "Find by who, what or value")
        .table(Table { next, ..Table::new("Audit log", &COLUMNS, rows, empty) })
        .answer())
}
