//! Relays.

use axum::extract::{Query, State};
use axum::response::Response;

use super::view::{Button, Cell, Empty, Page, Table, Tone, distance};
use super::visitor::Visitor;
use super::{ListQuery, ROWS};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{Page as Part, RelayRow};
use crate::web::Refusal;

const COLUMNS: [&str; 5] = ["Relay", "State", "Version", "Reached at", "Last sign-in"];

fn reached(relay: &RelayRow) -> String {
    let hosts = [relay.ipv4.as_deref(), relay.ipv6.as_deref()];
    let hosts = hosts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let tcp = relay.tcp_port.map(|port| format!(", TCP {port}")).unwrap_or_default();
    let tls = relay.tls_port.map(|port| format!(", TLS {port}")).unwrap_or_default();
    format!("{hosts} (UDP {}{tcp}{tls})", relay.port)
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let part = Part { after: wanted.after, limit: Some(ROWS + 1) };
    let mut relays = portal.store.relays(part).await?;
    let next = wanted.cut("/admin/relays", &mut relays, |relay| relay.id);
    let (online, now_ms) = (portal.hub.online(), clock::now_ms());
    let row = |relay: &RelayRow| {
        vec![
            Cell::text(&relay.name),
            Cell::online(online.contains(&relay.id)),
            Cell::text(&relay.version),
            Cell::Code(reached(relay)),
            Cell::text(distance(relay.last_seen_ms, now_ms)),
        ]
    };
    let rows = relays.iter().map(row).collect();
    let new = Button::change("New relay token", "/admin/tokens/new?kind=relay", Tone::Primary);
    let empty =
        Empty::new("No relay", "Relays carry traffic where no direct path exists. They see only ciphertext.")
            .with(new.clone());
    Ok(Page::new(&visitor, "relays", "Relays")
        .lead("They carry encrypted traffic where no direct path exists.")
        .action(new)
        .live("/admin/relays")
        .table(Table { next, ..Table::new("Relays", &COLUMNS, rows, empty) })
        .answer())
}
