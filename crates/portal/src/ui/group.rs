//! Groups and their members.

use adit_policy::{ActorId, GroupId};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use uuid::Uuid;

use super::policy::{COLUMNS as POLICY_COLUMNS, rows as policy_rows};
use super::view::{Block, Button, Cell, Empty, Field, Form, Input, Page, Table, Tone, confirmation, query};
use super::visitor::{Edit, Editor, Visitor};
use super::{ListQuery, ROWS, Wrong, again, go};
use crate::api::checked_name;
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{Actor, Find, Group, GroupSummary, Removal};
use crate::web::Refusal;

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let mut groups = portal.store.find_groups(&wanted.find()).await?;
    let next = wanted.cut("/admin/groups", &mut groups, |row| row.group.id);
    let row = |row: &GroupSummary| {
        let members =
            if row.group.everyone { format!("everyone ({})", row.members) } else { row.members.to_string() };
        vec![
            Cell::Link(format!("/admin/groups/{}", row.group.id), row.group.name.clone()),
            Cell::text(members),
            Cell::text(row.policies.to_string()),
        ]
    };
    let rows = groups.iter().map(row).collect();
    let new = Button::change("New group", "/admin/groups/new", Tone::Primary);
    let empty = if wanted.q.is_empty() {
        Empty::new("No group yet", "Policies are made for groups, not for single people.").with(new.clone())
    } else {
        Empty::new("No group has this in its name", "")
    };
    Ok(Page::new(&visitor, "groups", "Groups")
        .lead("Policies are made for groups.")
        .action(new)
        .search(&wanted.q, "Find by name")
        .table(Table { next, ..Table::new("Groups", &["Name", "Members", "Policies"], rows, empty) })
        .answer())
}

fn new_page(visitor: &Visitor) -> Page {
    Page::new(visitor, "groups", "New group").below("Groups", "/admin/groups")
}

fn create_form(name: &str, error: Option<String>) -> Form {
    let field = Field::new("name", "Name", Input::Text).value(name).required();
    Form::new("/admin/groups/new", "Create group", vec![field]).or_back("/admin/groups").with_error(error)
}

pub(super) async fn form(Editor(visitor): Editor) -> Response {
    new_page(&visitor).block(Block::Form(create_form("", None))).answer()
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    let created = async {
        let name = checked_name(fields.get("name"))?;
        let mut change = portal.store.change(&visitor.by()).await?;
        let group = change.create_group(name, false).await?;
        change.commit().await?;
        Ok::<_, Wrong>(group.id)
    };
    match created.await {
        Ok(id) => Ok(go(format!("/admin/groups/{id}"))),
        Err(wrong) => again(wrong, new_page(&visitor), |error| create_form(fields.get("name"), error)),
    }
}

async fn page(
    portal: &SharedPortal,
    visitor: &Visitor,
    group: &Group,
    wanted: &ListQuery,
    error: Option<(String, String)>,
) -> Result<Page, Refusal> {
    let id = group.id;
    let find = Find { text: String::new(), after: wanted.after, limit: ROWS + 1, of: Some(id) };
    let mut members = portal.store.find_actors(&find).await?;
    let next = wanted.cut(&format!("/admin/groups/{id}"), &mut members, |actor| actor.id);
    let policies = portal.store.find_policies(&Find::of(id, 100)).await?;
    let row = |actor: &Actor| {
        let mut buttons = Vec::new();
        if !group.everyone {
            let href = format!("/admin/groups/{id}/remove/{}", actor.id);
            buttons.push(Button::change("Remove", href, Tone::Bad).about(&actor.name));
        }
        vec![
            Cell::Link(format!("/admin/people/{}", actor.id), actor.name.clone()),
            if actor.enabled {
                Cell::badge(Tone::Good, "enabled")
            } else {
                Cell::badge(Tone::Bad, "disabled")
            },
            Cell::Buttons(buttons),
        ]
    };
    let rows = members.iter().map(row).collect();
    let allow = Button::change(
        "New policy",
        query("/admin/policies/new", &[("group", &id.to_string())]),
        Tone::Primary,
    );
    let mut page =
        Page::new(visitor, "groups", &group.name).below("Groups", "/admin/groups").action(allow.clone());
    if group.everyone {
        page = page.lead("Everybody is a member, always.");
    } else {
        page = page.action(Button::change("Delete", format!("/admin/groups/{id}/delete"), Tone::Bad));
        let (name, error) = error.map_or((String::new(), None), |(name, error)| (name, Some(error)));
        let field = Field::new("person", "Add a member", Input::Suggested("/admin/suggest/people"));
        let field = field.value(name).required().hint("Begin to type the name.");
        let form = Form::new(format!("/admin/groups/{id}/add"), "Add", vec![field]).with_error(error);
        page = page.block(Block::Form(form));
    }
    let nobody = Empty::new("Nobody is in this group", "Add the first member above.");
    let none = Empty::new("No policy", "Members reach nothing through this group yet.").with(allow);
    let members = Table::titled("Members", &["Name", "State", ""], rows, nobody);
    Ok(page.table(Table { next, ..members }).table(Table::titled(
        "Policies",
        &POLICY_COLUMNS,
        policy_rows(&policies),
        none,
    )))
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Path(id): Path<Uuid>,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let group = portal.store.group(GroupId::from_uuid(id)).await?;
    Ok(page(&portal, &visitor, &group, &wanted, None).await?.answer())
}

pub(super) async fn add(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    let group = portal.store.group(GroupId::from_uuid(id)).await?;
    let added = async {
        let actor = portal.store.actor_named(fields.get("person")).await?;
        let mut change = portal.store.change(&visitor.by()).await?;
        change.add_member(GroupId::from_uuid(id), ActorId::from_uuid(actor.id)).await?;
        change.commit().await?;
        Ok::<_, Wrong>(())
    };
    match added.await {
        Ok(()) => Ok(go(format!("/admin/groups/{id}"))),
        Err(Wrong::Said(text)) => {
            let error = Some((fields.get("person").to_owned(), text));
            let page = page(&portal, &visitor, &group, &ListQuery::default(), error).await?;
            Ok(page.answer_with(axum::http::StatusCode::UNPROCESSABLE_ENTITY))
        }
        Err(Wrong::Refused(refusal)) => Err(*refusal),
    }
}

pub(super) async fn confirm_remove(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path((id, actor)): Path<(Uuid, Uuid)>,
) -> Result<Response, Refusal> {
    let group = portal.store.group(GroupId::from_uuid(id)).await?;
    let who = portal.store.actor(ActorId::from_uuid(actor)).await?;
    let removal = Removal::Membership(GroupId::from_uuid(id), ActorId::from_uuid(actor));
    let impact = portal.store.impact(removal, clock::now_ms()).await?;
    let back = format!("/admin/groups/{id}");
    let page = Page::new(&visitor, "groups", &format!("Remove {} from {}?", who.name, group.name))
        .below("Back to the group", back.clone());
    let form = Form::new(format!("{back}/remove/{actor}"), "Remove", Vec::new()).or_back(back);
    Ok(confirmation(page, &impact, form).answer())
}

pub(super) async fn remove(
    State(portal): State<SharedPortal>,
    Path((id, actor)): Path<(Uuid, Uuid)>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    change.remove_member(GroupId::from_uuid(id), ActorId::from_uuid(actor)).await?;
    change.commit().await?;
    Ok(go(format!("/admin/groups/{id}")))
}

pub(super) async fn confirm(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let group = portal.store.group(GroupId::from_uuid(id)).await?;
    let impact = portal.store.impact(Removal::Group(GroupId::from_uuid(id)), clock::now_ms()).await?;
    let back = format!("/admin/groups/{id}");
    let page = Page::new(&visitor, "groups", &format!("Delete {}?", group.name))
        .lead("Its policies go with it. Its members stay.")
        .below("Back to the group", back.clone());
    let form = Form::new(format!("{back}/delete"), "Delete the group", Vec::new()).or_back(back);
    Ok(confirmation(page, &impact, form).answer())
}

pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    change.delete_group(GroupId::from_uuid(id)).await?;
    change.commit().await?;
    Ok(go("/admin/groups"))
}
