//! Devices: clients, and the removal of gateways.

use std::collections::HashMap;

use adit_policy::{ActorId, ClientId};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use uuid::Uuid;

use super::view::{Button, Cell, Empty, Form, Page, Table, Tone, confirmation, distance};
use super::visitor::{Edit, Editor, Visitor};
use super::{ListQuery, go};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{DeviceRow, Find, Impact, Removal, StoreError};
use crate::web::Refusal;

const COLUMNS: [&str; 7] = ["Device", "Owner", "State", "Verified", "Connects from", "Last sign-in", ""];

/// Clients as a table; without the names of their owners it belongs to one person's page.
pub(super) fn table(
    portal: &SharedPortal,
    title: &str,
    devices: &[DeviceRow],
    owners: &HashMap<Uuid, String>,
) -> Table {
    let now_ms = clock::now_ms();
    let online = portal.hub.online();
    let row = |device: &DeviceRow| {
        let owner = device.actor_id.and_then(|id| owners.get(&id).map(|name| (id, name)));
        let owner = match owner {
            Some((id, name)) => Cell::Link(format!("/admin/people/{id}"), name.clone()),
            None => Cell::Muted("this person".to_owned()),
        };
        let (verified, toggle) = match device.verified_ms {
            Some(_) => (
                Cell::badge(Tone::Good, "verified"),
                Button::change("Withdraw", format!("/admin/devices/{}/unverify", device.id), Tone::Plain),
            ),
            None => (
                Cell::badge(Tone::Warn, "not verified"),
                Button::post("Verify", format!("/admin/devices/{}/verify", device.id)),
            ),
        };
        let remove = Button::change("Remove", format!("/admin/devices/{}/delete", device.id), Tone::Bad);
        vec![
            Cell::text(format!("{} {}", device.name, device.version)),
            owner,
            Cell::online(online.contains(&device.id)),
            verified,
            Cell::Code(device.remote_address.clone()),
            Cell::text(distance(device.last_seen_ms, now_ms)),
            Cell::Buttons(vec![toggle.about(&device.name), remove.about(&device.name)]),
        ]
    };
    let rows = devices.iter().map(row).collect();
    let empty = Empty::new("No device", "A device shows here when it signs in for the first time.");
    Table::titled(title, &COLUMNS, rows, empty)
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let mut devices = portal.store.find_devices("client", &wanted.find()).await?;
    let next = wanted.cut("/admin/devices", &mut devices, |device| device.id);
    let mut owners = HashMap::new();
    for id in devices.iter().filter_map(|device| device.actor_id) {
        if let std::collections::hash_map::Entry::Vacant(entry) = owners.entry(id) {
            match portal.store.actor(ActorId::from_uuid(id)).await {
                Ok(actor) => entry.insert(actor.name),
                Err(StoreError::NotFound(_)) => continue,
                Err(error) => return Err(error.into()),
            };
        }
    }
    let table = table(&portal, "Devices", &devices, &owners);
    Ok(Page::new(&visitor, "devices", "Devices")
        .lead("Computers that have signed in. Verify those that you know; policies may ask for it.")
        .search(&wanted.q, "Find by name or address")
        .live("/admin/devices")
        .table(Table { next, is_titled: false, ..table })
        .answer())
}

async fn one(portal: &SharedPortal, kind: &str, id: Uuid) -> Result<DeviceRow, StoreError> {
    let found = portal.store.find_devices(kind, &Find::of(id, 2)).await?;
    found.into_iter().find(|device| device.id == id).ok_or(StoreError::NotFound("device"))
}

async fn set_verified(
    portal: &SharedPortal,
    visitor: &Visitor,
    id: Uuid,
    is_verified: bool,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    change.set_device_verified(ClientId::from_uuid(id), is_verified).await?;
    change.commit().await?;
    Ok(go("/admin/devices"))
}

pub(super) async fn verify(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    set_verified(&portal, &visitor, id, true).await
}

pub(super) async fn unverify(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    set_verified(&portal, &visitor, id, false).await
}

/// Those live connections that rest on the verification would end; all of them are shown, because
/// conditions are judged when it is withdrawn.
pub(super) async fn confirm_unverify(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let device = one(&portal, "client", id).await?;
    let impact = portal.store.impact_of_unverifying(ClientId::from_uuid(id), clock::now_ms()).await?;
    let title = format!("Withdraw the verification of {}?", device.name);
    let lead = "Policies that ask for a verified device no longer grant anything on it.";
    Ok(confirmed(
        &visitor,
        "devices",
        &title,
        lead,
        &impact,
        format!("/admin/devices/{id}/unverify"),
        "/admin/devices",
        "Withdraw",
    ))
}

#[expect(clippy::too_many_arguments, reason = "each is one text of the page")]
fn confirmed(
    visitor: &Visitor,
    section: &'static str,
    title: &str,
    lead: &str,
    impact: &Impact,
    action: String,
    back: &str,
    submit: &str,
) -> Response {
    let page = Page::new(visitor, section, title).lead(lead).below("Back", back);
    confirmation(page, impact, Form::new(action, submit, Vec::new()).or_back(back)).answer()
}

pub(super) async fn confirm_client(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let device = one(&portal, "client", id).await?;
    let impact = portal.store.impact(Removal::Device(id), clock::now_ms()).await?;
    let title = format!("Remove {}?", device.name);
    let lead =
        "It comes back as another, unverified device as long as its token or its owner's sign-in is good.";
    let action = format!("/admin/devices/{id}/delete");
    Ok(confirmed(&visitor, "devices", &title, lead, &impact, action, "/admin/devices", "Remove the device"))
}

pub(super) async fn confirm_gateway(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let device = one(&portal, "gateway", id).await?;
    let impact = portal.store.impact(Removal::Device(id), clock::now_ms()).await?;
    let back = format!("/admin/sites/{}", device.site_id.unwrap_or_default());
    let title = format!("Remove {}?", device.name);
    let lead =
        "It comes back as another gateway as long as its token is good; revoke the token to keep it away.";
    let action = format!("/admin/gateways/{id}/delete");
    Ok(confirmed(&visitor, "sites", &title, lead, &impact, action, &back, "Remove the gateway"))
}

pub(super) async fn delete_client(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    change.delete_device("client", id).await?;
    change.commit().await?;
    Ok(go("/admin/devices"))
}

pub(super) async fn delete_gateway(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let device = one(&portal, "gateway", id).await?;
    let mut change = portal.store.change(&visitor.by()).await?;
    change.delete_device("gateway", id).await?;
    change.commit().await?;
    Ok(go(format!("/admin/sites/{}", device.site_id.unwrap_or_default())))
}
