//! The flow log.

use axum::extract::{Query, State};
use axum::response::Response;

use super::ListQuery;
use super::view::{Cell, Empty, Page, Table, Tone};
use super::visitor::Visitor;
use crate::portal::SharedPortal;
use crate::store::FlowRow;
use crate::web::Refusal;

const COLUMNS: [&str; 8] =
    ["When (UTC)", "Who", "Device", "Reached", "At", "Through", "Sent / received", "State"];

/// A name that is known links to its page, if it has one.
fn named(href: Option<String>, name: Option<&String>) -> Cell {
    match (href, name) {
        (Some(href), Some(name)) => Cell::Link(href, name.clone()),
        (_, Some(name)) => Cell::text(name),
        _ => Cell::Muted("unknown".to_owned()),
    }
}

/// Where it went: the name that was asked for, or the address.
fn destination(row: &FlowRow) -> String {
    let host = row.name.clone().unwrap_or_else(|| row.destination.clone());
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    match row.protocol {
        6 => format!("tcp {host}:{}", row.destination_port),
        17 => format!("udp {host}:{}", row.destination_port),
        1 | 58 => format!("ping {host}"),
        other => format!("protocol {other} {host}"),
    }
}

/// A gateway, and how the tunnel reaches it if that is known.
pub(super) fn through(gateway: &str, path: Option<&str>) -> Cell {
    match path {
        Some(path) => Cell::text(format!("{gateway}, {path}")),
        None => Cell::text(gateway),
    }
}

/// Bytes as people read them.
pub(super) fn size(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut whole, mut rest, mut unit) = (bytes.max(0), 0, 0);
    while whole >= 1000 && unit + 1 < UNITS.len() {
        (whole, rest, unit) = (whole / 1000, whole % 1000, unit + 1);
    }
    match (unit, whole) {
        (1.., 0..10) => format!("{whole}.{} {}", rest / 100, UNITS[unit]),
        _ => format!("{whole} {}", UNITS[unit]),
    }
}

fn state(row: &FlowRow) -> Cell {
    match &row.end_reason {
        None => Cell::badge(Tone::Good, "open"),
        Some(reason) => Cell::Muted(reason.replace('_', " ")),
    }
}

fn cells(row: &FlowRow) -> Vec<Cell> {
    vec![
        Cell::Time(row.opened_ms),
        named(row.actor_id.map(|id| format!("/admin/people/{id}")), row.actor_name.as_ref()),
        named(None, row.client_name.as_ref()),
        named(row.resource_id.map(|id| format!("/admin/resources/{id}")), row.resource_name.as_ref()),
        Cell::Code(destination(row)),
        through(&row.gateway_name, row.path.as_deref()),
        Cell::text(format!("{} / {}", size(row.sent_bytes), size(row.received_bytes))),
        state(row),
    ]
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let mut flows = portal.store.find_flows(&wanted.find()).await?;
    let next = wanted.cut("/admin/flows", &mut flows, |row| row.id);
    let setting = portal.store.flow_setting().await?;
    let lead = if setting.keep_days == 0 {
        "No flow log is kept.".to_owned()
    } else {
        format!(
            "Which device reached what, as the gateways report it: when a flow ends, and now and then while it lasts. Kept for {} days. Newest first.",
            setting.keep_days
        )
    };
    let rows = flows.iter().map(cells).collect();
    let empty = Empty::new("No flow", "Flows show here some moments after they end.");
    Ok(Page::new(&visitor, "flows", "Flow log")
        .lead(lead)
        .search(&wanted.q, "Find by person, device, resource, gateway or address")
        .live("/admin/flows")
        .table(Table { next, ..Table::new("Flow log", &COLUMNS, rows, empty) })
        .answer())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (-5, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_960, "9.9 kB"),
            (12_345, "12 kB"),
            (1_234_567_890, "1.2 GB"),
            (i64::MAX, "9223372 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
