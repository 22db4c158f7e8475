//! Sites: the list, one site with its gateways, and the deployment of a gateway.

use adit_policy::{SiteId, TokenId};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use uuid::Uuid;

use super::view::{Block, Button, Cell, Empty, Field, Form, Input, Page, Table, Tone, address, confirmation};
use super::visitor::{Edit, Editor, Visitor};
use super::{ListQuery, Wrong, again, go};
use crate::api::checked_name;
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{DeviceRow, Find, NewToken, Removal, TokenKind};
use crate::web::{Refusal, gateway_script, peer_url};

const COLUMNS: [&str; 4] = ["Name", "Gateways", "Resources", "State"];

/// Resources of a site that its page shows.
const SHOWN: u32 = 20;

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let mut sites = portal.store.find_sites(&wanted.find()).await?;
    let next = wanted.cut("/admin/sites", &mut sites, |site| site.id);
    let row = |site: &crate::store::SiteSummary| {
        let online = portal.hub.gateways_of_site(SiteId::from_uuid(site.id)).len();
        let state = match (online, site.gateways) {
            (0, 0) => Cell::badge(Tone::Plain, "no gateway"),
            (0, _) => Cell::badge(Tone::Bad, "offline"),
            _ => Cell::badge(Tone::Good, "online"),
        };
        vec![
            Cell::Link(format!("/admin/sites/{}", site.id), site.name.clone()),
            Cell::text(format!("{online} of {} online", site.gateways)),
            Cell::text(site.resources.to_string()),
            state,
        ]
    };
    let rows = sites.iter().map(row).collect();
    let new = Button::change("New site", "/admin/sites/new", Tone::Primary);
    let empty = if wanted.q.is_empty() {
        Empty::new(
            "No site yet",
            "A site is a place with things to reach: an office, a data centre, a cloud network.",
        )
        .with(new.clone())
    } else {
        Empty::new("No site has this in its name", "")
    };
    Ok(Page::new(&visitor, "sites", "Sites")
        .lead("Places whose gateways let people reach what is there.")
        .action(new)
        .search(&wanted.q, "Find a site")
        .live("/admin/sites")
        .table(Table { next, ..Table::new("Sites", &COLUMNS, rows, empty) })
        .answer())
}

fn name_form(error: Option<String>, value: &str) -> Form {
    let field = Field::new("name", "Name", Input::Text).value(value).required();
    let field = field.hint("As people know the place, such as Berlin office.");
    Form::new("/admin/sites/new", "Create site", vec![field]).or_back("/admin/sites").with_error(error)
}

fn new_page(visitor: &Visitor) -> Page {
    Page::new(visitor, "sites", "New site").below("Sites", "/admin/sites")
}

pub(super) async fn form(Editor(visitor): Editor) -> Response {
    new_page(&visitor).block(Block::Form(name_form(None, ""))).answer()
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    let created = async {
        let name = checked_name(fields.get("name"))?;
        let mut change = portal.store.change(&visitor.by()).await?;
        let site = change.create_site(name).await?;
        change.commit().await?;
        Ok::<_, Wrong>(site.id)
    };
    match created.await {
        Ok(id) => Ok(go(format!("/admin/sites/{id}"))),
        Err(wrong) => again(wrong, new_page(&visitor), |error| name_form(error, fields.get("name"))),
    }
}

fn gateway_rows(portal: &SharedPortal, gateways: &[DeviceRow]) -> Vec<Vec<Cell>> {
    let now_ms = clock::now_ms();
    let row = |row: &DeviceRow| {
        let index = u32::try_from(row.address_index).unwrap_or(0);
        let remove = Button::change("Remove", format!("/admin/gateways/{}/delete", row.id), Tone::Bad);
        vec![
            Cell::text(&row.name),
            Cell::online(portal.hub.is_online(row.id)),
            Cell::text(&row.version),
            Cell::Code(row.remote_address.clone()),
            Cell::Code(portal.account().tunnel_addresses(index).0.to_string()),
            Cell::text(super::view::distance(row.last_seen_ms, now_ms)),
            Cell::Buttons(vec![remove.about(&row.name)]),
        ]
    };
    gateways.iter().map(row).collect()
}

const GATEWAY_COLUMNS: [&str; 7] =
    ["Gateway", "State", "Version", "Connects from", "Tunnel address", "Last sign-in", ""];

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let site = portal.store.site(SiteId::from_uuid(id)).await?;
    let gateways = portal.store.find_devices("gateway", &Find::of(id, 100)).await?;
    let resources = portal.store.find_resources(&Find::of(id, SHOWN)).await?;
    let online = portal.hub.gateways_of_site(site.id).len();
    let deploy = Button::post("Deploy a gateway", format!("/admin/sites/{id}/deploy"));
    let note = match (online, gateways.len()) {
        (_, 0) => Block::Note(
            Tone::Warn,
            "No gateway yet.".to_owned(),
            "Deploy one to make the resources of this site reachable.".to_owned(),
        ),
        (0, _) => Block::Note(
            Tone::Bad,
            "No gateway is online.".to_owned(),
            "Nobody can reach the resources of this site now.".to_owned(),
        ),
        _ => Block::Note(
            Tone::Good,
            "Online.".to_owned(),
            format!("{} connected.", super::view::count(online as i64, "gateway")),
        ),
    };
    let empty =
        Empty::new("No gateway", "A gateway is one program on a machine at the site.").with(deploy.clone());
    let row = |resource: &adit_policy::Resource| {
        vec![
            Cell::Link(format!("/admin/resources/{}", resource.id), resource.name.clone()),
            Cell::Code(address(resource)),
            Cell::text(super::view::ports(resource)),
        ]
    };
    let rows = resources.iter().map(row).collect();
    let new = Button::change("New resource", format!("/admin/resources/new?site={id}"), Tone::Plain);
    let none = Empty::new("No resource", "What should people reach here?").with(new.clone());
    let mut table = Table::titled("Resources", &["Name", "Address", "Lets through"], rows, none);
    if resources.len() == SHOWN as usize {
        table.next = Some(format!("/admin/resources?of={id}"));
    }
    Ok(Page::new(&visitor, "sites", &site.name)
        .below("Sites", "/admin/sites")
        .action(deploy)
        .action(new)
        .action(Button::change("Delete", format!("/admin/sites/{id}/delete"), Tone::Bad))
        .live(format!("/admin/sites/{id}"))
        .block(note)
        .table(Table::titled("Gateways", &GATEWAY_COLUMNS, gateway_rows(&portal, &gateways), empty))
        .table(table)
        .answer())
}

/// Makes a gateway token and shows the command to run, once.
pub(super) async fn deploy(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let site = portal.store.site(SiteId::from_uuid(id)).await?;
    let url = peer_url(&portal, &headers).await?;
    let minted = portal.secrets.mint(TokenKind::Gateway)?;
    let mut change = portal.store.change(&visitor.by()).await?;
    let new = NewToken {
        id: minted.id,
        kind: TokenKind::Gateway,
        name: format!("gateway of {}", site.name).chars().take(100).collect(),
        hash: minted.hash,
        actor: None,
        site: Some(site.id),
        expires_ms: None,
    };
    change.create_token(&new).await?;
    change.commit().await?;
    let mut settings = vec![("ADIT_PORTAL", url.as_str()), ("ADIT_TOKEN", &minted.text)];
    settings.extend(portal.authority.as_deref().map(|digest| ("ADIT_CA", digest)));
    let page = deploy_page(&visitor, &site).lead(
        "The machine needs systemd and outgoing connections only. The script installs the package adit-gateway if it \
         lies in the directory where you run it, and says whether the gateway is connected.",
    );
    let page = page.copy("Run this on the machine; it is shown only now", gateway_script(&settings));
    Ok(arrival_of(&portal, page, id, minted.id).await?.answer())
}

fn deploy_page(visitor: &Visitor, site: &adit_policy::Site) -> Page {
    Page::new(visitor, "sites", "Deploy a gateway")
        .below("Back to the site", format!("/admin/sites/{}", site.id))
}

/// Adds whether the gateway of a token has come.
async fn arrival_of(portal: &SharedPortal, page: Page, site: Uuid, token: TokenId) -> Result<Page, Refusal> {
    let gateways = portal.store.find_devices("gateway", &Find::of(site, 100)).await?;
    let arrived = gateways.iter().find(|gateway| gateway.token_id == Some(token.as_uuid()));
    let note = match arrived {
        Some(gateway) if portal.hub.is_online(gateway.id) => Block::Note(
            Tone::Good,
            format!("{} is connected.", gateway.name),
            "It serves the resources of this site from now on.".to_owned(),
        ),
        Some(gateway) => Block::Note(
            Tone::Bad,
            format!("{} was connected and is offline now.", gateway.name),
            "See its log: journalctl -u adit-gateway".to_owned(),
        ),
        None => Block::Note(
            Tone::Plain,
            "Waiting for the gateway…".to_owned(),
            "This turns green as soon as it connects.".to_owned(),
        ),
    };
    Ok(page.live(format!("/admin/sites/{site}/arrival/{token}")).block(note))
}

/// Whether the gateway of a token has come.
pub(super) async fn arrival(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Path((id, token)): Path<(Uuid, TokenId)>,
) -> Result<Response, Refusal> {
    let site = portal.store.site(SiteId::from_uuid(id)).await?;
    Ok(arrival_of(&portal, deploy_page(&visitor, &site), id, token).await?.answer())
}

/// Who reloads the page with the command comes back to the site.
pub(super) async fn back(_: Visitor, Path(id): Path<Uuid>) -> Response {
    go(format!("/admin/sites/{id}"))
}

pub(super) async fn confirm(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let site = portal.store.site(SiteId::from_uuid(id)).await?;
    let impact = portal.store.impact(Removal::Site(site.id), clock::now_ms()).await?;
    let back = format!("/admin/sites/{id}");
    let page = Page::new(&visitor, "sites", &format!("Delete {}?", site.name))
        .lead("Its resources and their policies, its gateways and their tokens go with it.")
        .below("Back to the site", back.clone());
    let form = Form::new(format!("/admin/sites/{id}/delete"), "Delete the site", Vec::new()).or_back(back);
    Ok(confirmation(page, &impact, form).answer())
}

pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    change.delete_site(SiteId::from_uuid(id)).await?;
    change.commit().await?;
    Ok(go("/admin/sites"))
}
