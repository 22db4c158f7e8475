//! Settings of the installation.
//!
//! Resolvers, search domains, how devices sign in and how long flows are kept are changed here, by the same checks as in
//! the API. Identity providers and the sink of flows have pages of their own. Deliberately absent: address ranges, which are
//! fixed when the portal is made.

use std::collections::HashMap;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::view::{Block, Button, Cell, Empty, Field, Form, Input, Page, Table, Tone};
use super::visitor::{Edit, Editor, Fields, Visitor};
use super::{Wrong, again, go};
use crate::api::{
    Failure, SettingsChange, change_settings, checked_device_limit, checked_search_domains,
    checked_session_days, checked_upstreams,
};
use crate::portal::{Portal, SharedPortal};
use crate::store::{By, Find, FlowSetting};
use crate::web::Refusal;

fn listed(values: impl Iterator<Item = String>, otherwise: &str) -> Cell {
    let values = values.collect::<Vec<_>>().join(", ");
    if values.is_empty() { Cell::Muted(otherwise.to_owned()) } else { Cell::Code(values) }
}

fn count_days(days: i64) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

fn kept(setting: FlowSetting) -> String {
    match setting.keep_days {
        0 => "not at all".to_owned(),
        days => {
            let ends = if setting.from_clients { "gateways and clients" } else { "gateways" };
            format!("{}, at most {} of them, from {ends}", count_days(days), setting.max_rows)
        }
    }
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let account = portal.account();
    let settings = &account.settings;
    let url = crate::web::peer_url(&portal, &headers).await?;
    let sign_in = portal.store.sign_in_setting().await?;
    let most = sign_in.devices_per_user.map_or_else(|| "any number".to_owned(), |most| most.to_string());
    let general = vec![
        ("Account", Cell::text(&settings.name)),
        ("Peers connect to", Cell::Code(url)),
        ("Version", Cell::Code(env!("CARGO_PKG_VERSION").to_owned())),
        ("Tunnel addresses", Cell::Code(format!("{}, {}", settings.ipv4_range, settings.ipv6_range))),
        (
            "Addresses of names",
            Cell::Code(format!("{}, {}", settings.ipv4_proxy_range, settings.ipv6_proxy_range)),
        ),
        (
            "Upstream resolvers",
            listed(settings.dns_upstreams.iter().map(ToString::to_string), "those of each device"),
        ),
        ("Search domains", listed(settings.search_domains.iter().cloned(), "none")),
        ("Devices stay signed in", Cell::text(count_days(sign_in.device_session_days))),
        ("Devices of a person", Cell::text(most)),
        ("Flows are kept", Cell::text(kept(portal.store.flow_setting().await?))),
    ];
    let find = Find { text: "api".to_owned(), ..Find::first(100) };
    let tokens = portal.store.find_tokens(&find).await?;
    let row = |token: &crate::store::Token| {
        vec![Cell::text(&token.name), Cell::Time(token.created_ms), Cell::moment(token.expires_ms, "never")]
    };
    let keys = tokens.iter().filter(|token| token.kind == "api" && token.revoked_ms.is_none());
    let rows = keys.map(row).collect();
    let empty = Empty::new("No key", "Scripts use the API with a token of their own.");
    let providers = portal.store.auth_providers(crate::store::Page::FIRST).await?;
    Ok(Page::new(&visitor, "settings", "Settings")
        .action(Button::change("Change settings", "/admin/settings/edit", Tone::Primary))
        .actions(visitor.owns().then(super::provider::new_button))
        .action(Button::link("Where flows are sent", "/admin/flows/sink"))
        .action(Button::link("All tokens", "/admin/tokens?q=api"))
        .block(Block::Facts(general))
        .table(Table::titled("API keys", &["Name", "Created", "Ends"], rows, empty))
        .table(super::provider::table(&visitor, &providers))
        .answer())
}

/// What is wrong with each field.
type Errors = HashMap<&'static str, String>;

/// What the form holds as things are.
async fn filled(portal: &Portal) -> Result<Fields, Refusal> {
    let account = portal.store.account().await?.settings;
    let (sign_in, flows) = (portal.store.sign_in_setting().await?, portal.store.flow_setting().await?);
    let upstreams = account.dns_upstreams.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pairs = [
        ("upstreams", upstreams.join(" ")),
        ("domains", account.search_domains.join(" ")),
        ("session_days", sign_in.device_session_days.to_string()),
        ("device_limit", sign_in.devices_per_user.map(|most| most.to_string()).unwrap_or_default()),
        ("flow_days", flows.keep_days.to_string()),
        ("flow_rows", flows.max_rows.to_string()),
        ("flow_clients", if flows.from_clients { "yes".to_owned() } else { String::new() }),
    ];
    Ok(Fields(HashMap::from(pairs.map(|(name, value)| (name.to_owned(), value)))))
}

fn edit_form(fields: &Fields, mut errors: Errors) -> Form {
    let mut field = |name: &'static str, label: &str, hint: &str| {
        let field = Field::new(name, label, Input::Text).value(fields.get(name)).hint(hint);
        field.error(errors.remove(name))
    };
    let fields = vec![
        field(
            "upstreams",
            "Upstream resolvers",
            "Such as 192.0.2.53:53, with spaces between; at most 8. Empty: those of each device.",
        ),
        field("domains", "Search domains", "Such as corp.example, with spaces between; at most 6."),
        field("session_days", "Days for which a device stays signed in", "From its next sign-in on."),
        field("device_limit", "Devices of one person at a time", "Empty: any number."),
        field(
            "flow_days",
            "Days for which flows are kept",
            "0 keeps no flow log and forgets the one there is.",
        ),
        field("flow_rows", "The most flows that are kept", "1000 to 100000000; the oldest go first."),
        Field::new("flow_clients", "Clients report their flows too", Input::Check)
            .value(fields.get("flow_clients"))
            .hint("A second account of the same traffic, which makes about twice as many."),
    ];
    Form::new("/admin/settings/edit", "Save settings", fields).or_back("/admin/settings")
}

fn edit_page(visitor: &Visitor) -> Page {
    Page::new(visitor, "settings", "Change settings")
        .below("Settings", "/admin/settings")
        .lead("Clients come back for other resolvers and search domains within moments, and their tunnels stay. Gateways and clients hear at once of a flow log that was switched on or off.")
}

pub(super) async fn edit(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
) -> Result<Response, Refusal> {
    let form = edit_form(&filled(&portal).await?, Errors::new());
    Ok(edit_page(&visitor).block(Block::Form(form)).answer())
}

fn read_number(text: &str, what: &str) -> Result<i64, Failure> {
    text.parse().map_err(|_| Failure::invalid(&format!("{what} is a number")))
}

/// What was filled in, or what is wrong with each field.
fn read(fields: &Fields) -> Result<(SettingsChange, FlowSetting), Errors> {
    let mut errors = Errors::new();
    let words = |name| fields.get(name).split([' ', ',']).filter(|word| !word.is_empty());
    let upstreams = words("upstreams").map(|word| {
        word.parse().map_err(|_| Failure::invalid(&format!("`{}` is no ADDRESS:PORT", word.escape_debug())))
    });
    let upstreams = upstreams.collect::<Result<Vec<_>, _>>().and_then(checked_upstreams);
    let domains = checked_search_domains(&words("domains").map(str::to_owned).collect::<Vec<_>>());
    let days = read_number(fields.get("session_days"), "a count of days").and_then(checked_session_days);
    let limit = match fields.get("device_limit") {
        "" => Ok(None),
        text => read_number(text, "a limit of devices").and_then(|most| checked_device_limit(Some(most))),
    };
    let flow_days = read_number(fields.get("flow_days"), "a count of days");
    let keep_days = flow_days
        .and_then(|days| Ok(FlowSetting { keep_days: days, ..FlowSetting::default() }.checked()?.keep_days));
    let flow_rows = read_number(fields.get("flow_rows"), "a count of flows");
    let max_rows = flow_rows
        .and_then(|rows| Ok(FlowSetting { max_rows: rows, ..FlowSetting::default() }.checked()?.max_rows));
    let wanted = SettingsChange {
        dns_upstreams: noted(&mut errors, "upstreams", upstreams),
        search_domains: noted(&mut errors, "domains", domains),
        device_session_days: noted(&mut errors, "session_days", days),
        devices_per_user: noted(&mut errors, "device_limit", limit),
    };
    let flows = (noted(&mut errors, "flow_days", keep_days), noted(&mut errors, "flow_rows", max_rows));
    match flows {
        (Some(keep_days), Some(max_rows)) if errors.is_empty() => {
            let from_clients = fields.has("flow_clients");
            Ok((wanted, FlowSetting { keep_days, max_rows, from_clients }))
        }
        _ => Err(errors),
    }
}

/// What is right, or nothing and a note of what is wrong.
fn noted<T>(errors: &mut Errors, field: &'static str, read: Result<T, Failure>) -> Option<T> {
    read.map_err(|failure| errors.insert(field, failure.reason())).ok()
}

/// Changes what differs, and nothing else: each change is an entry of the audit log.
async fn save(portal: &Portal, by: &By, mut wanted: SettingsChange, flows: FlowSetting) -> Result<(), Wrong> {
    let mut change = portal.store.change(by).await?;
    let (account, sign_in) = (portal.store.account().await?.settings, portal.store.sign_in_setting().await?);
    wanted.dns_upstreams = wanted.dns_upstreams.filter(|upstreams| *upstreams != account.dns_upstreams);
    wanted.search_domains = wanted.search_domains.filter(|domains| *domains != account.search_domains);
    wanted.device_session_days =
        wanted.device_session_days.filter(|days| *days != sign_in.device_session_days);
    wanted.devices_per_user = wanted.devices_per_user.filter(|most| *most != sign_in.devices_per_user);
    change_settings(portal, &mut change, wanted).await?;
    if flows != portal.store.flow_setting().await? {
        change.set_flow_setting(flows).await?;
    }
    change.commit().await?;
    portal.set_account(portal.store.account().await?);
    Ok(())
}

pub(super) async fn update(
    State(portal): State<SharedPortal>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    let (wanted, flows) = match read(&fields) {
        Ok(read) => read,
        Err(errors) => {
            let form = edit_form(&fields, errors).with_error(Some("Some fields are wrong.".to_owned()));
            let page = edit_page(&visitor).block(Block::Form(form));
            return Ok(page.answer_with(StatusCode::UNPROCESSABLE_ENTITY));
        }
    };
    match save(&portal, &visitor.by(), wanted, flows).await {
        Ok(()) => Ok(go("/admin/settings")),
        Err(wrong) => {
            again(wrong, edit_page(&visitor), |error| edit_form(&fields, Errors::new()).with_error(error))
        }
    }
}
