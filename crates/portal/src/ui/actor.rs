//! People and service accounts.

use std::collections::HashMap;

use adit_policy::ActorId;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use uuid::Uuid;

use super::resource::{SUGGESTIONS, suggestions};
use super::view::{
    Block, Button, Cell, Empty, Field, Form, Input, Page, Table, Tone, confirmation, count, query,
};
use super::visitor::{Edit, Editor, Fields, Visitor, role_name};
use super::{ListQuery, Wrong, again, go};
use crate::api::checked_name;
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{Actor, ActorKind, DeviceSession, Find, Removal, Role};
use crate::web::Refusal;

const COLUMNS: [&str; 4] = ["Name", "Kind", "Role", "State"];

fn kind(actor: &Actor) -> &'static str {
    if actor.kind == ActorKind::User.name() { "person" } else { "service account" }
}

fn state(actor: &Actor) -> Cell {
    if actor.enabled { Cell::badge(Tone::Good, "enabled") } else { Cell::badge(Tone::Bad, "disabled") }
}

/// What an actor may do with the portal itself.
fn role(actor: &Actor) -> Cell {
    match actor.role {
        Role::None => Cell::Muted(role_name(Role::None).to_owned()),
        role => Cell::text(role_name(role)),
    }
}

/// All roles, for an owner; others cannot give any.
fn role_field(visitor: &Visitor, chosen: &str) -> Option<Field> {
    let roles = [Role::None, Role::Auditor, Role::Admin, Role::Owner];
    let roles = roles.map(|role| (role.name().to_owned(), role_name(role).to_owned())).to_vec();
    let hint = "Auditors see everything and change nothing. Owners also change roles.";
    visitor.owns().then(|| Field::new("role", "Role", Input::Select(roles)).value(chosen).hint(hint))
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let mut actors = portal.store.find_actors(&wanted.find()).await?;
    let next = wanted.cut("/admin/people", &mut actors, |actor| actor.id);
    let row = |actor: &Actor| {
        let link = Cell::Link(format!("/admin/people/{}", actor.id), actor.name.clone());
        vec![link, Cell::text(kind(actor)), role(actor), state(actor)]
    };
    let rows = actors.iter().map(row).collect();
    let new = Button::change("New person", "/admin/people/new", Tone::Primary);
    let empty = if wanted.q.is_empty() {
        Empty::new("Nobody yet", "Add people here, or let them come in through a sign-in provider.")
            .with(new.clone())
    } else {
        Empty::new("Nobody has this in their name", "")
    };
    Ok(Page::new(&visitor, "people", "People")
        .lead("People and the service accounts of machines.")
        .action(new)
        .search(&wanted.q, "Find by name")
        .table(Table { next, ..Table::new("People", &COLUMNS, rows, empty) })
        .answer())
}

fn new_page(visitor: &Visitor) -> Page {
    Page::new(visitor, "people", "New person").below("People", "/admin/people")
}

fn create_form(visitor: &Visitor, fields: &Fields) -> Form {
    let kinds = vec![
        ("user".to_owned(), "Person".to_owned()),
        ("service_account".to_owned(), "Service account of a machine".to_owned()),
    ];
    let mut shown = vec![
        Field::new("name", "Name", Input::Text).value(fields.get("name")).required(),
        Field::new("kind", "Kind", Input::Select(kinds)).value(fields.get("kind")),
    ];
    shown.extend(role_field(visitor, fields.get("role")));
    Form::new("/admin/people/new", "Create", shown).or_back("/admin/people")
}

pub(super) async fn form(Editor(visitor): Editor) -> Response {
    new_page(&visitor).block(Block::Form(create_form(&visitor, &Fields::default()))).answer()
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    let created = async {
        let name = checked_name(fields.get("name"))?;
        let kind = match fields.get("kind") {
            "service_account" => ActorKind::ServiceAccount,
            _ => ActorKind::User,
        };
        let role = wanted_role(&visitor, &fields)?;
        let mut change = portal.store.change(&visitor.by()).await?;
        let actor = change.create_actor(kind, name, role).await?;
        change.commit().await?;
        Ok::<_, Wrong>(actor.id)
    };
    match created.await {
        Ok(id) => Ok(go(format!("/admin/people/{id}"))),
        Err(wrong) => {
            again(wrong, new_page(&visitor), |error| create_form(&visitor, &fields).with_error(error))
        }
    }
}

/// The role that was chosen; none where nothing was.
fn wanted_role(visitor: &Visitor, fields: &Fields) -> Result<Role, Wrong> {
    let role = match fields.get("role") {
        "" => Role::None,
        text => Role::try_from(text.to_owned())?,
    };
    if role == Role::None || visitor.owns() { Ok(role) } else { Err(Wrong::said("Only owners give roles.")) }
}

pub(super) async fn set_role(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    if !visitor.owns() {
        return Err(Refusal::forbidden("Only owners change roles."));
    }
    let back = format!("/admin/people/{id}");
    let changed = async {
        let role = wanted_role(&visitor, &fields)?;
        let mut change = portal.store.change(&visitor.by()).await?;
        change.set_actor_role(ActorId::from_uuid(id), role).await?;
        change.commit().await?;
        Ok::<_, Wrong>(())
    };
    match changed.await {
        Ok(()) => Ok(go(back)),
        Err(wrong) => {
            let page = Page::new(&visitor, "people", "Change the role").below("Back", back.clone());
            let field = role_field(&visitor, fields.get("role")).into_iter().collect();
            again(wrong, page, |error| {
                Form::new(format!("{back}/role"), "Change the role", field).with_error(error)
            })
        }
    }
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let actor = portal.store.actor(ActorId::from_uuid(id)).await?;
    let groups = portal.store.find_groups(&Find::of(id, 100)).await?;
    let devices = portal.store.find_devices("client", &Find::of(id, 100)).await?;
    let leases = portal.store.find_authorizations(&Find::of(id, 100), clock::now_ms()).await?;
    let sessions = portal.store.device_sessions_of(ActorId::from_uuid(id), clock::now_ms()).await?;
    let facts = vec![
        ("Kind", Cell::text(kind(&actor))),
        ("Role", role(&actor)),
        ("State", state(&actor)),
        ("Created", Cell::Time(actor.created_ms)),
    ];
    let rows = groups.iter().map(|row| {
        let link = Cell::Link(format!("/admin/groups/{}", row.group.id), row.group.name.clone());
        vec![link, Cell::text(count(row.policies, "policy"))]
    });
    let toggle = if actor.enabled {
        Button::change("Disable", format!("/admin/people/{id}/disable"), Tone::Bad)
    } else {
        Button::post("Enable", format!("/admin/people/{id}/enable"))
    };
    let role_form = role_field(&visitor, actor.role.name()).map(|field| {
        Block::Form(Form::new(format!("/admin/people/{id}/role"), "Change the role", vec![field]))
    });
    let link = (actor.kind == ActorKind::User.name())
        .then(|| Button::post("Sign-in link", format!("/admin/people/{id}/sign-in-link")));
    let none = Empty::new("In no group", "Add them on the page of a group, so that its policies apply.");
    Ok(Page::new(&visitor, "people", &actor.name)
        .below("People", "/admin/people")
        .action(Button::link("Explain access", query("/admin/explain", &[("person", &actor.name)])))
        .action(Button::change(
            "New token",
            query("/admin/tokens/new", &[("person", &actor.name)]),
            Tone::Plain,
        ))
        .actions(link)
        .action(toggle)
        .action(Button::change("Delete", format!("/admin/people/{id}/delete"), Tone::Bad))
        .live(format!("/admin/people/{id}"))
        .block(Block::Facts(facts))
        .blocks(role_form)
        .table(Table::titled("Groups", &["Group", "Policies"], rows.collect(), none))
        .table(sessions_table(&sessions))
        .table(super::device::table(&portal, "Devices", &devices, &HashMap::new()))
        .table(super::authorization::table("Connected now", &leases))
        .answer())
}

/// Devices on which somebody is signed in, by themselves rather than with a token from here.
fn sessions_table(sessions: &[DeviceSession]) -> Table {
    const COLUMNS: [&str; 5] = ["Device", "Signed in by", "Signed in", "Ends", ""];
    let row = |session: &DeviceSession| {
        let token = &session.token;
        let end = Button::change("End", format!("/admin/tokens/{}/revoke", token.id), Tone::Bad);
        vec![
            Cell::text(&token.name),
            Cell::text(token.provider.as_deref().unwrap_or_default()),
            Cell::moment(token.authenticated_ms, "never"),
            Cell::moment(token.expires_ms, "never"),
            Cell::Buttons(vec![end.about(&format!("the session on {}", token.name))]),
        ]
    };
    let empty = Empty::new("Signed in nowhere", "Devices that sign in with a browser show here.");
    Table::titled("Signed in on", &COLUMNS, sessions.iter().map(row).collect(), empty)
}

/// Makes a link with which a person chooses password and authenticator, and shows it once.
pub(super) async fn sign_in_link(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let actor = ActorId::from_uuid(id);
    let mut change = portal.store.change(&visitor.by()).await?;
    if change.actor_role(actor).await? != Role::None && !visitor.owns() {
        return Err(Refusal::forbidden("Only owners make links for people who have a role."));
    }
    let (path, _) = crate::web::make_link(&portal, &mut change, actor).await?;
    change.commit().await?;
    let name = portal.store.actor(actor).await?.name;
    let url = crate::web::browser_url(&portal, &headers).await? + &path;
    Ok(Page::new(&visitor, "people", &format!("A link for {name}"))
        .lead("They choose a password and an authenticator with it, once, within an hour. Whoever has it becomes them: hand it over safely.")
        .below("Back", format!("/admin/people/{id}"))
        .copy("The link; it is shown only now", url)
        .answer())
}

async fn set_enabled(
    portal: &SharedPortal,
    visitor: &Visitor,
    id: Uuid,
    is_enabled: bool,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    visitor.governs(&mut change, ActorId::from_uuid(id)).await?;
    change.set_actor_enabled(ActorId::from_uuid(id), is_enabled).await?;
    change.commit().await?;
    Ok(go(format!("/admin/people/{id}")))
}

pub(super) async fn enable(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    set_enabled(&portal, &visitor, id, true).await
}

pub(super) async fn disable(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    set_enabled(&portal, &visitor, id, false).await
}

async fn confirm(
    portal: &SharedPortal,
    visitor: &Visitor,
    id: Uuid,
    verb: (&str, &str),
    lead: &str,
) -> Result<Response, Refusal> {
    let actor = portal.store.actor(ActorId::from_uuid(id)).await?;
    let impact = portal.store.impact(Removal::Actor(ActorId::from_uuid(id)), clock::now_ms()).await?;
    let back = format!("/admin/people/{id}");
    let page = Page::new(visitor, "people", &format!("{} {}?", verb.0, actor.name))
        .lead(lead)
        .below("Back", back.clone());
    let form = Form::new(format!("{back}/{}", verb.1), verb.0, Vec::new()).or_back(back);
    Ok(confirmation(page, &impact, form).answer())
}

pub(super) async fn confirm_disable(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let lead = "They can no longer sign in, and all their tokens are revoked.";
    confirm(&portal, &visitor, id, ("Disable", "disable"), lead).await
}

pub(super) async fn confirm_delete(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let lead = "Their tokens and devices go with them. Entries of the audit log stay.";
    confirm(&portal, &visitor, id, ("Delete", "delete"), lead).await
}

pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    visitor.governs(&mut change, ActorId::from_uuid(id)).await?;
    change.delete_actor(ActorId::from_uuid(id)).await?;
    change.commit().await?;
    Ok(go("/admin/people"))
}

pub(super) async fn suggest(
    State(portal): State<SharedPortal>,
    _: Visitor,
    Query(typed): Query<HashMap<String, String>>,
) -> Result<Response, Refusal> {
    let text = typed.into_values().next().unwrap_or_default();
    let actors = portal.store.find_actors(&Find { text, ..Find::first(SUGGESTIONS) }).await?;
    Ok(suggestions(actors.into_iter().map(|actor| actor.name)))
}
