//! Tokens: the list, a new one (shown once), and revocation.

use std::collections::HashMap;

use adit_policy::{ActorId, SiteId, TokenId};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use uuid::Uuid;

use super::view::{
    Block, Button, Cell, Empty, Field, Form, Input, Page, Table, Tone, confirmation, distance,
};
use super::visitor::{Edit, Editor, Fields, Visitor};
use super::{ListQuery, Wrong, again, go};
use crate::api::checked_name;
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{Find, NewToken, Removal, StoreError, Token, TokenKind};
use crate::web::Refusal;

const COLUMNS: [&str; 6] = ["Name", "For", "State", "Last used", "Ends", ""];

/// Days in milliseconds.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn purpose(kind: &str) -> &'static str {
    match kind {
        "client" => "a device",
        "gateway" => "gateways of a site",
        "relay" => "a relay",
        "scim" => "a directory (SCIM)",
        _ => "the API",
    }
}

fn row(token: &Token, now_ms: i64) -> Vec<Cell> {
    let is_expired = token.expires_ms.is_some_and(|at_ms| at_ms <= now_ms);
    let (state, buttons) = match token.revoked_ms {
        Some(_) => (Cell::badge(Tone::Bad, "revoked"), Vec::new()),
        None if is_expired => (Cell::badge(Tone::Warn, "expired"), Vec::new()),
        None => {
            let revoke = Button::change("Revoke", format!("/admin/tokens/{}/revoke", token.id), Tone::Bad);
            (Cell::badge(Tone::Good, "good"), vec![revoke.about(&token.name)])
        }
    };
    let used = token.last_used_ms.map_or_else(|| "never".to_owned(), |at_ms| distance(at_ms, now_ms));
    vec![
        Cell::text(&token.name),
        Cell::text(purpose(&token.kind)),
        state,
        Cell::text(used),
        Cell::moment(token.expires_ms, "never"),
        Cell::Buttons(buttons),
    ]
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let mut tokens = portal.store.find_tokens(&wanted.find()).await?;
    let next = wanted.cut("/admin/tokens", &mut tokens, |token| token.id);
    let now_ms = clock::now_ms();
    let rows = tokens.iter().map(|token| row(token, now_ms)).collect();
    let new = Button::change("New token", "/admin/tokens/new", Tone::Primary);
    let empty = Empty::new("No such token", "Only a digest of each token is kept.").with(new.clone());
    Ok(Page::new(&visitor, "tokens", "Tokens")
        .lead("What devices, gateways, relays and scripts present. Each is shown once, when it is made.")
        .action(new)
        .search(&wanted.q, "Find by name or kind")
        .table(Table { next, ..Table::new("Tokens", &COLUMNS, rows, empty) })
        .answer())
}

fn new_page(visitor: &Visitor) -> Page {
    Page::new(visitor, "tokens", "New token").below("Tokens", "/admin/tokens")
}

async fn create_form(portal: &SharedPortal, fields: &Fields) -> Result<Form, Refusal> {
    let kinds = [
        ("client", "A device of a person or service account"),
        ("gateway", "Gateways of a site"),
        ("relay", "A relay"),
        ("api", "The API, as somebody with a role"),
        ("scim", "A directory that keeps people and groups (SCIM)"),
    ];
    let kinds = kinds.map(|(value, label)| (value.to_owned(), label.to_owned())).to_vec();
    let sites = portal.store.find_sites(&Find::first(500)).await?;
    let none = (String::new(), "–".to_owned());
    let sites = std::iter::once(none).chain(sites.into_iter().map(|site| (site.id.to_string(), site.name)));
    let fields = vec![
        Field::new("kind", "For", Input::Select(kinds)).value(fields.get("kind")),
        Field::new("name", "Name", Input::Text)
            .value(fields.get("name"))
            .required()
            .hint("So that you know it in the list."),
        Field::new("person", "Whose", Input::Suggested("/admin/suggest/people"))
            .value(fields.get("person"))
            .hint("For devices and the API."),
        Field::new("site", "Site", Input::Select(sites.collect()))
            .value(fields.get("site"))
            .hint("For gateways."),
        Field::new("days", "Ends after how many days", Input::Text)
            .value(fields.get("days"))
            .hint("Empty: never, except that a device's token ends after 30 days."),
    ];
    Ok(Form::new("/admin/tokens/new", "Create token", fields).or_back("/admin/tokens"))
}

pub(super) async fn form(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Query(wanted): Query<HashMap<String, String>>,
) -> Result<Response, Refusal> {
    let form = create_form(&portal, &Fields(wanted)).await?;
    Ok(new_page(&visitor).block(Block::Form(form)).answer())
}

/// Whom the token is for: exactly what its kind needs.
async fn scope(
    portal: &SharedPortal,
    visitor: &Visitor,
    kind: TokenKind,
    fields: &Fields,
) -> Result<(Option<ActorId>, Option<SiteId>), Wrong> {
    match kind {
        TokenKind::Client | TokenKind::Api => {
            let actor = portal.store.actor_named(fields.get("person")).await?;
            if !actor.enabled {
                return Err(Wrong::said("This person is disabled."));
            }
            let id = Some(ActorId::from_uuid(actor.id));
            if kind == TokenKind::Api && !actor.role.reads() {
                return Err(Wrong::said("A token for the API belongs to an administrator or auditor."));
            }
            if kind == TokenKind::Api && !visitor.is(id) && !visitor.owns() {
                return Err(Wrong::said("Only owners make API tokens of others."));
            }
            Ok((id, None))
        }
        TokenKind::Gateway => {
            let site = fields.get("site").parse().map_err(|_| Wrong::said("Choose a site."))?;
            Ok((None, Some(portal.store.site(site).await?.id)))
        }
        TokenKind::Scim if !visitor.owns() => Err(Wrong::said("Only owners make tokens for SCIM.")),
        TokenKind::Relay | TokenKind::Scim => Ok((None, None)),
    }
}

fn lifetime(kind: TokenKind, fields: &Fields) -> Result<Option<i64>, Wrong> {
    let days = match fields.get("days") {
        "" if kind == TokenKind::Client => 30,
        "" => return Ok(None),
        text => text
            .parse::<i64>()
            .ok()
            .filter(|days| (1..=3650).contains(days))
            .ok_or_else(|| Wrong::said("A token lasts for 1 to 3650 days."))?,
    };
    Ok(Some(clock::now_ms() + days * DAY_MS))
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    let created = async {
        let kind: TokenKind = fields.get("kind").parse()?;
        let name = checked_name(fields.get("name"))?.to_owned();
        let (actor, site) = scope(&portal, &visitor, kind, &fields).await?;
        let expires_ms = lifetime(kind, &fields)?;
        let minted = portal.secrets.mint(kind)?;
        let mut change = portal.store.change(&visitor.by()).await?;
        let new = NewToken { id: minted.id, kind, name, hash: minted.hash, actor, site, expires_ms };
        change.create_token(&new).await?;
        change.commit().await?;
        Ok::<_, Wrong>((new.name, minted.text))
    };
    match created.await {
        Ok((name, text)) => Ok(Page::new(&visitor, "tokens", &name)
            .lead("Keep it safe: whoever has it is let in with it.")
            .below("Tokens", "/admin/tokens")
            .copy("The token; it is shown only now", text)
            .answer()),
        Err(wrong) => {
            let form = create_form(&portal, &fields).await?;
            again(wrong, new_page(&visitor), |error| form.with_error(error))
        }
    }
}

pub(super) async fn confirm(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let token = portal.store.token(TokenId::from_uuid(id)).await?.ok_or(StoreError::NotFound("token"))?;
    let impact = portal.store.impact(Removal::Token(id), clock::now_ms()).await?;
    let page = Page::new(&visitor, "tokens", &format!("Revoke {}?", token.name))
        .lead("Whatever uses it is disconnected for good. This cannot be undone.")
        .below("Tokens", "/admin/tokens");
    let form = Form::new(format!("/admin/tokens/{id}/revoke"), "Revoke the token", Vec::new());
    Ok(confirmation(page, &impact, form.or_back("/admin/tokens")).answer())
}

pub(super) async fn revoke(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let token = portal.store.token(TokenId::from_uuid(id)).await?.ok_or(StoreError::NotFound("token"))?;
    if token.is_for_administration() && !visitor.is(token.actor_id.map(ActorId::from_uuid)) && !visitor.owns()
    {
        return Err(Refusal::forbidden("Only owners revoke API tokens of others and those of SCIM."));
    }
    let mut change = portal.store.change(&visitor.by()).await?;
    change.revoke_token(TokenId::from_uuid(id)).await?;
    change.commit().await?;
    Ok(go("/admin/tokens"))
}
