//! Live access: who is connected to what, since when, until when, how, and how much it was.
//!
//! Path and bytes are as gateways reported them last: ten seconds after a flow began, then every five minutes, and when it
//! ends. Without a flow log they are not known.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use uuid::Uuid;

use super::flow::{size, through};
use super::view::{Button, Cell, Empty, Form, Page, Table, Tone, confirmation, distance};
use super::visitor::{Edit, Editor, Visitor};
use super::{ListQuery, go};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{AuthorizationRow, Find, Removal, StoreError};
use crate::web::Refusal;

const COLUMNS: [&str; 8] = ["Who", "Device", "Reaches", "Through", "Sent / received", "Since", "Ends", ""];

/// Authorizations as a table below a title.
pub(super) fn table(title: &str, leases: &[AuthorizationRow]) -> Table {
    let now_ms = clock::now_ms();
    let row = |row: &AuthorizationRow| {
        let revoke = Button::change("Revoke", format!("/admin/authorizations/{}/revoke", row.id), Tone::Bad);
        vec![
            Cell::text(&row.actor_name),
            Cell::text(&row.client_name),
            Cell::Link(format!("/admin/resources/{}", row.resource_id), row.resource_name.clone()),
            through(&row.gateway_name, row.path.as_deref()),
            Cell::text(format!("{} / {}", size(row.sent_bytes), size(row.received_bytes))),
            Cell::text(distance(row.created_ms, now_ms)),
            Cell::text(distance(row.expires_ms, now_ms)),
            Cell::Buttons(vec![revoke.about(&format!("{} for {}", row.resource_name, row.actor_name))]),
        ]
    };
    let empty = Empty::new("Nobody is connected", "When somebody reaches a resource, it shows here at once.");
    Table::titled(title, &COLUMNS, leases.iter().map(row).collect(), empty)
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let mut leases = portal.store.find_authorizations(&wanted.find(), clock::now_ms()).await?;
    let next = wanted.cut("/admin/authorizations", &mut leases, |row| row.id);
    Ok(Page::new(&visitor, "authorizations", "Live access")
        .lead("Who may reach what right now. Revoking cuts the traffic at once; a policy that still grants lets it be asked for again.")
        .search(&wanted.q, "Find by person, device or resource")
        .live("/admin/authorizations")
        .table(Table { next, is_titled: false, ..table("Live access", &leases) })
        .answer())
}

pub(super) async fn confirm(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let now_ms = clock::now_ms();
    let found = portal.store.find_authorizations(&Find::of(id, 2), now_ms).await?;
    let lease = found.into_iter().find(|row| row.id == id).ok_or(StoreError::NotFound("live access"))?;
    let impact = portal.store.impact(Removal::Authorization(id), now_ms).await?;
    let title = format!("Revoke {} for {}?", lease.resource_name, lease.actor_name);
    let page = Page::new(&visitor, "authorizations", &title)
        .lead("The connection ends at once. As long as a policy grants it, the device may ask for it again: to keep it away, disable the policy or the person.")
        .below("Live access", "/admin/authorizations");
    let form = Form::new(format!("/admin/authorizations/{id}/revoke"), "Revoke", Vec::new());
    Ok(confirmation(page, &impact, form.or_back("/admin/authorizations")).answer())
}

pub(super) async fn revoke(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    change.revoke_authorization(adit_policy::AuthorizationId::from_uuid(id)).await?;
    change.commit().await?;
    Ok(go("/admin/authorizations"))
}
