//! The overview: what is online, what needs attention, what to do first.

use axum::extract::State;
use axum::response::Response;

use super::view::{Block, Button, Cell, Empty, Figure, Page, Step, Table, Tone, count, distance};
use super::visitor::Visitor;
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{Find, LatestAccess, SiteSummary, Totals};
use crate::web::Refusal;

/// Authorizations that are shown.
const LATEST: u32 = 8;

/// Gateways that are counted.
const MOST_GATEWAYS: u32 = 1000;

fn steps(totals: &Totals, gateways_online: usize) -> Vec<Step> {
    let step = |is_done, title, hint, label: &str, href: &str| Step {
        is_done,
        title,
        hint,
        button: Button::change(label, href, Tone::Primary),
    };
    let mut steps = vec![
        step(
            totals.sites > 0,
            "Create a site",
            "A site is a place with things to reach: an office, a data centre, a cloud network.",
            "New site",
            "/admin/sites/new",
        ),
        step(
            gateways_online > 0,
            "Deploy a gateway there",
            "One command on a machine at the site. It needs outgoing connections only.",
            "Choose the site",
            "/admin/sites",
        ),
        step(
            totals.resources > 0,
            "Add a resource",
            "A name, an address or a network that people should reach.",
            "New resource",
            "/admin/resources/new",
        ),
        step(
            totals.policies > 0,
            "Let a group reach it",
            "Nobody reaches anything before a policy says so.",
            "New policy",
            "/admin/policies/new",
        ),
        step(
            totals.clients > 0,
            "Connect a device",
            "Sign in on a device, or give it a client token.",
            "New token",
            "/admin/tokens/new",
        ),
    ];
    // One thing after the other: only the next one stands out.
    for later in steps.iter_mut().filter(|step| !step.is_done).skip(1) {
        later.button = later.button.clone().quiet();
    }
    steps
}

fn figures(totals: &Totals, online: &Online) -> Vec<Figure> {
    let figure = |label, value: String, note: String, tone, href| Figure { label, value, note, tone, href };
    let gateways = match (online.gateways, totals.gateways) {
        (_, 0) => ("none deployed".to_owned(), Tone::Plain),
        (0, _) => ("none online".to_owned(), Tone::Bad),
        (some, all) if (some as i64) < all => (format!("of {all} online"), Tone::Warn),
        _ => ("all online".to_owned(), Tone::Good),
    };
    let unverified = match totals.unverified {
        0 => format!("of {} online", totals.clients),
        some => format!("of {} online, {some} unverified", totals.clients),
    };
    vec![
        figure(
            "Live access",
            totals.authorizations.to_string(),
            "connections allowed now".to_owned(),
            Tone::Plain,
            "/admin/authorizations",
        ),
        figure("Devices", online.clients.to_string(), unverified, Tone::Plain, "/admin/devices"),
        figure("Gateways", online.gateways.to_string(), gateways.0, gateways.1, "/admin/sites"),
        figure(
            "Relays",
            online.relays.to_string(),
            format!("of {} online", totals.relays),
            Tone::Plain,
            "/admin/relays",
        ),
        figure(
            "Resources",
            totals.resources.to_string(),
            count(totals.policies, "enabled policy"),
            Tone::Plain,
            "/admin/resources",
        ),
        figure(
            "People",
            totals.people.to_string(),
            format!("and {}", count(totals.service_accounts, "service account")),
            Tone::Plain,
            "/admin/people",
        ),
    ]
}

/// How many of each kind are connected.
struct Online {
    clients: usize,
    gateways: usize,
    relays: usize,
}

async fn online(portal: &SharedPortal) -> Result<Online, Refusal> {
    let online = portal.hub.online();
    let relays = portal.store.relays(crate::store::Page::FIRST).await?;
    let relays = relays.iter().filter(|relay| online.contains(&relay.id)).count();
    let gateways = portal.store.find_devices("gateway", &Find::first(MOST_GATEWAYS)).await?;
    let gateways = gateways.iter().filter(|gateway| online.contains(&gateway.id)).count();
    Ok(Online { clients: online.len().saturating_sub(gateways + relays), gateways, relays })
}

/// Sites with resources that nobody can reach now.
fn troubled(portal: &SharedPortal, sites: &[SiteSummary]) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for site in sites.iter().filter(|site| site.resources > 0 || site.gateways > 0) {
        let gateways = portal.hub.gateways_of_site(adit_policy::SiteId::from_uuid(site.id));
        if gateways.iter().any(|gateway| !gateway.is_draining) {
            continue;
        }
        let what = if site.gateways == 0 { "has no gateway" } else { "no gateway is online" };
        rows.push(vec![
            Cell::Link(format!("/admin/sites/{}", site.id), site.name.clone()),
            Cell::badge(Tone::Bad, what),
            Cell::text(format!("{} out of reach", count(site.resources, "resource"))),
        ]);
    }
    rows
}

pub(super) async fn show(State(portal): State<SharedPortal>, visitor: Visitor) -> Result<Response, Refusal> {
    let now_ms = clock::now_ms();
    let totals = portal.store.totals(now_ms).await?;
    let online = online(&portal).await?;
    let sites = portal.store.find_sites(&Find::first(200)).await?;
    let mut page = Page::new(&visitor, "overview", "Overview").live("/admin");
    let steps = steps(&totals, online.gateways);
    if steps.iter().any(|step| !step.is_done) && totals.clients == 0 {
        page = page.block(Block::Steps(steps));
    }
    let troubled = troubled(&portal, &sites);
    if !troubled.is_empty() {
        let columns = ["Site", "State", "Effect"];
        page = page.table(Table::titled("Needs attention", &columns, troubled, Empty::default()));
    }
    page = page.block(Block::Figures(figures(&totals, &online)));
    let latest = portal.store.latest_access(LATEST, now_ms).await?;
    let row = |row: &LatestAccess| {
        vec![
            Cell::text(&row.actor_name),
            Cell::text(&row.client_name),
            Cell::Link(format!("/admin/resources/{}", row.resource_id), row.resource_name.clone()),
            Cell::text(distance(row.created_ms, now_ms)),
        ]
    };
    let rows = latest.iter().map(row).collect();
    let empty = Empty::new("Nobody is connected", "When somebody reaches a resource, it shows here at once.");
    let columns = ["Who", "Device", "Reaches", "Since"];
    Ok(page.table(Table::titled("Latest access", &columns, rows, empty)).answer())
}
