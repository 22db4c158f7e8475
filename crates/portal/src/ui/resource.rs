//! Resources: the list, one resource, and the forms.

use std::collections::HashMap;

use adit_policy::{Filter, Resource, ResourceAddress, ResourceId, SiteId};
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse as _, Response};
use uuid::Uuid;

use super::policy::rows as policy_rows;
use super::rehearsal::Rehearsal;
use super::view::{
    Block, Button, Cell, Empty, Field, Form, Input, Page, Table, Tone, address, confirmation, ports, query,
};
use super::visitor::{Edit, Editor, Fields, Visitor};
use super::{ListQuery, Wrong, again, go};
use crate::api::{MAX_FILTERS, checked_address, checked_name};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{Find, Removal, ResourceSpec};
use crate::web::Refusal;

/// Sites that a form offers.
const MOST_SITES: u32 = 500;

/// Names that are suggested while somebody types.
pub(super) const SUGGESTIONS: u32 = 20;

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let mut resources = portal.store.find_resources(&wanted.find()).await?;
    let next = wanted.cut("/admin/resources", &mut resources, |resource| resource.id.as_uuid());
    let row = |resource: &Resource| {
        vec![
            Cell::Link(format!("/admin/resources/{}", resource.id), resource.name.clone()),
            Cell::Code(address(resource)),
            Cell::text(ports(resource)),
            Cell::Link(format!("/admin/sites/{}", resource.site.id), resource.site.name.clone()),
        ]
    };
    let rows = resources.iter().map(row).collect();
    let new = Button::change("New resource", "/admin/resources/new", Tone::Primary);
    let empty = if wanted.q.is_empty() {
        Empty::new(
            "No resource yet",
            "A resource is a name, an address or a network that people should reach.",
        )
        .with(new.clone())
    } else {
        Empty::new("No resource has this in its name or address", "")
    };
    let columns = ["Name", "Address", "Lets through", "Site"];
    Ok(Page::new(&visitor, "resources", "Resources")
        .lead("What people may be let reach. Nobody reaches one before a policy says so.")
        .action(new)
        .search(&wanted.q, "Find by name or address")
        .table(Table { next, ..Table::new("Resources", &columns, rows, empty) })
        .answer())
}

/// What the form for a resource holds.
fn filled(resource: &Resource) -> Fields {
    let kind = match &resource.address {
        ResourceAddress::Dns { .. } => "dns",
        ResourceAddress::Ip { .. } => "ip",
        ResourceAddress::Cidr { .. } => "cidr",
        ResourceAddress::Internet => "internet",
    };
    let address = if kind == "internet" { String::new() } else { address(resource) };
    let ports = resource.filters.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    let pairs = [
        ("name", resource.name.clone()),
        ("kind", kind.to_owned()),
        ("address", address),
        ("site", resource.site.id.to_string()),
        ("ports", ports),
    ];
    Fields(HashMap::from(pairs.map(|(name, value)| (name.to_owned(), value))))
}

async fn resource_form(
    portal: &SharedPortal,
    action: &str,
    submit: &str,
    back: &str,
    fields: &Fields,
) -> Result<Form, Refusal> {
    let sites = portal.store.find_sites(&Find::first(MOST_SITES)).await?;
    let sites = sites.into_iter().map(|site| (site.id.to_string(), site.name)).collect();
    let kinds = [
        ("dns", "Name in the DNS"),
        ("ip", "IP address"),
        ("cidr", "Network"),
        ("internet", "The whole Internet"),
    ];
    let kinds = kinds.map(|(value, label)| (value.to_owned(), label.to_owned())).to_vec();
    let fields = vec![
        Field::new("name", "Name", Input::Text).value(fields.get("name")).required(),
        Field::new("kind", "Kind", Input::Select(kinds)).value(fields.get("kind")),
        Field::new("address", "Address", Input::Text).value(fields.get("address")).hint(
            "git.corp.example, *.corp.example, 10.1.2.3 or 10.20.0.0/16. Empty for the whole Internet.",
        ),
        Field::new("site", "Site", Input::Select(sites))
            .value(fields.get("site"))
            .required()
            .hint("Its gateways reach the address."),
        Field::new("ports", "Lets through", Input::Text).value(fields.get("ports")).hint(
            "Such as tcp/443 tcp/8000-8080 udp/53 icmp, with spaces between. Empty lets everything through.",
        ),
    ];
    Ok(Form::new(action, submit, fields).or_back(back))
}

/// What an administrator filled in, checked.
fn spec(portal: &SharedPortal, fields: &Fields) -> Result<ResourceSpec, Wrong> {
    let name = checked_name(fields.get("name"))?.to_owned();
    let address = ResourceAddress::parse(fields.get("kind"), fields.get("address"))
        .map_err(|error| Wrong::said(error.to_string()))?;
    let address = checked_address(portal, address)?;
    let site = fields.get("site").parse::<SiteId>().map_err(|_| Wrong::said("Choose a site."))?;
    let mut filters = Vec::new();
    for part in fields.get("ports").split_whitespace() {
        filters.extend(Filter::parse_list(part).map_err(|error| Wrong::said(error.to_string()))?);
    }
    if filters.len() > MAX_FILTERS {
        return Err(Wrong::said(format!("A resource has at most {MAX_FILTERS} filters.")));
    }
    Ok(ResourceSpec { name, address, site, filters })
}

fn new_page(visitor: &Visitor) -> Page {
    Page::new(visitor, "resources", "New resource").below("Resources", "/admin/resources")
}

pub(super) async fn form(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Query(wanted): Query<HashMap<String, String>>,
) -> Result<Response, Refusal> {
    if portal.store.find_sites(&Find::first(1)).await?.is_empty() {
        let button = Button::change("New site", "/admin/sites/new", Tone::Primary);
        let empty =
            Empty::new("There is no site yet", "A resource belongs to the site whose gateways reach it.");
        let table = Table::new("Sites", &[], Vec::new(), empty.with(button));
        return Ok(new_page(&visitor).table(table).answer());
    }
    let form = create_form(&portal, &Fields(wanted)).await?;
    Ok(new_page(&visitor).block(Block::Form(form)).answer())
}

async fn create_form(portal: &SharedPortal, fields: &Fields) -> Result<Form, Refusal> {
    resource_form(portal, "/admin/resources/new", "Create resource", "/admin/resources", fields).await
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    let created = async {
        let spec = spec(&portal, &fields)?;
        let mut change = portal.store.change(&visitor.by()).await?;
        let id = change.create_resource(&spec).await?;
        change.commit().await?;
        Ok::<_, Wrong>(id)
    };
    match created.await {
        Ok(id) => Ok(go(format!("/admin/resources/{id}"))),
        Err(wrong) => {
            let form = create_form(&portal, &fields).await?;
            again(wrong, new_page(&visitor), |error| form.with_error(error))
        }
    }
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let resource = portal.store.resource(ResourceId::from_uuid(id)).await?;
    let policies = portal.store.find_policies(&Find::of(id, 100)).await?;
    let leases = portal.store.find_authorizations(&Find::of(id, 100), clock::now_ms()).await?;
    let gateways = portal.hub.gateways_of_site(resource.site.id).len();
    let facts = vec![
        ("Address", Cell::Code(address(&resource))),
        ("Lets through", Cell::text(ports(&resource))),
        ("Site", Cell::Link(format!("/admin/sites/{}", resource.site.id), resource.site.name.clone())),
        (
            "Gateways",
            if gateways == 0 {
                Cell::badge(Tone::Bad, "none online")
            } else {
                Cell::badge(Tone::Good, format!("{gateways} online"))
            },
        ),
    ];
    let allow = Button::change(
        "Let a group reach it",
        query("/admin/policies/new", &[("resource", &resource.name)]),
        Tone::Primary,
    );
    let why = Button::link("Explain access", query("/admin/explain", &[("resource", &resource.name)]));
    let empty = Empty::new("Nobody may reach it", "Let a group reach it with a policy.").with(allow.clone());
    let columns = super::policy::COLUMNS;
    Ok(Page::new(&visitor, "resources", &resource.name)
        .below("Resources", "/admin/resources")
        .action(allow)
        .action(why)
        .action(Button::change("Edit", format!("/admin/resources/{id}/edit"), Tone::Plain))
        .action(Button::change("Delete", format!("/admin/resources/{id}/delete"), Tone::Bad))
        .live(format!("/admin/resources/{id}"))
        .block(Block::Facts(facts))
        .table(Table::titled("Policies", &columns, policy_rows(&policies), empty))
        .table(super::authorization::table("Connected now", &leases))
        .answer())
}

async fn edit_form(portal: &SharedPortal, id: Uuid, fields: &Fields) -> Result<Form, Refusal> {
    let (action, back) = (format!("/admin/resources/{id}/edit"), format!("/admin/resources/{id}"));
    resource_form(portal, &action, "Save changes", &back, fields).await
}

fn edit_page(visitor: &Visitor, resource: &Resource) -> Page {
    Page::new(visitor, "resources", &format!("Edit {}", resource.name))
        .below("Back to the resource", format!("/admin/resources/{}", resource.id))
        .lead("Another address or site ends its live connections; people connect anew. A name or ports change in place.")
}

pub(super) async fn edit(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let resource = portal.store.resource(ResourceId::from_uuid(id)).await?;
    let form = edit_form(&portal, id, &filled(&resource)).await?;
    let leases = portal.store.find_authorizations(&Find::of(id, 100), clock::now_ms()).await?;
    let page = edit_page(&visitor, &resource).block(Block::Form(form));
    Ok(page.table(super::authorization::table("Connected now", &leases)).answer())
}

pub(super) async fn update(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    let updated = async {
        let spec = spec(&portal, &fields)?;
        let known = portal.store.resource(ResourceId::from_uuid(id)).await?;
        let rehearsal = Rehearsal::of_resource(&portal, &known, &spec).await?;
        if !rehearsal.is_harmless(&fields) {
            return Ok(Some((known, rehearsal)));
        }
        let mut change = portal.store.change(&visitor.by()).await?;
        // Read while no other change can happen.
        let before = portal.store.resource(ResourceId::from_uuid(id)).await?;
        change.update_resource(&before, &spec).await?;
        change.commit().await?;
        Ok::<_, Wrong>(None)
    };
    match updated.await {
        Ok(None) => Ok(go(format!("/admin/resources/{id}"))),
        Ok(Some((resource, rehearsal))) => {
            let path = format!("/admin/resources/{id}/edit");
            let title = format!("Change {}?", resource.name);
            let page = Page::new(&visitor, "resources", &title)
                .lead("Traffic that is let through no longer ends at once.")
                .below("Back to the resource", path.clone());
            let form = Form::new(path.clone(), "Save changes", Vec::new()).or_back(path);
            Ok(rehearsal.page(page, &fields, form).answer())
        }
        Err(wrong) => {
            let resource = portal.store.resource(ResourceId::from_uuid(id)).await?;
            let form = edit_form(&portal, id, &fields).await?;
            again(wrong, edit_page(&visitor, &resource), |error| form.with_error(error))
        }
    }
}

pub(super) async fn confirm(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let resource = portal.store.resource(ResourceId::from_uuid(id)).await?;
    let impact = portal.store.impact(Removal::Resource(resource.id), clock::now_ms()).await?;
    let back = format!("/admin/resources/{id}");
    let page = Page::new(&visitor, "resources", &format!("Delete {}?", resource.name))
        .lead("Its policies go with it.")
        .below("Back to the resource", back.clone());
    let form = Form::new(format!("{back}/delete"), "Delete the resource", Vec::new()).or_back(back);
    Ok(confirmation(page, &impact, form).answer())
}

pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    change.delete_resource(ResourceId::from_uuid(id)).await?;
    change.commit().await?;
    Ok(go("/admin/resources"))
}

/// Names for a field, as options of a list.
pub(super) fn suggestions(names: impl Iterator<Item = String>) -> Response {
    use askama::filters::{Html as Escape, escape};
    let options = names.filter_map(|name| {
        let name = escape(&name, Escape).ok()?;
        Some(format!("<option value=\"{name}\"></option>"))
    });
    Html(options.collect::<String>()).into_response()
}

pub(super) async fn suggest(
    State(portal): State<SharedPortal>,
    _: Visitor,
    Query(typed): Query<HashMap<String, String>>,
) -> Result<Response, Refusal> {
    let text = typed.into_values().next().unwrap_or_default();
    let resources = portal.store.find_resources(&Find { text, ..Find::first(SUGGESTIONS) }).await?;
    Ok(suggestions(resources.into_iter().map(|resource| resource.name)))
}
