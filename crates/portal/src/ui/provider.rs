//! Identity providers: what is set, and for owners how to change it.
//!
//! What makes sense is decided by the API's checks. A secret is taken and never shown: a field that is left empty keeps it.
//! Name, issuer and client id stay what they are, as in the API, since identities rest on them.

use std::collections::HashMap;

use axum::extract::{Path, State};
use axum::response::Response;
use uuid::Uuid;

use super::view::{Block, Button, Cell, Empty, Field, Form, Input, Page, Table, Tone, confirmation, count};
use super::visitor::{Edit, Editor, Fields, Visitor};
use super::{Wrong, again, go};
use crate::api::{NewProvider, ProviderChange, new_provider};
use crate::clock;
use crate::portal::{Portal, SharedPortal};
use crate::store::{AuthProvider, ProviderUse, Removal};
use crate::web::{self, Refusal};

/// What others are told.
const ONLY_OWNERS: &str =
    "change identity providers: whoever decides who authenticates people decides who they are";

/// All of them, for the page of settings.
pub(super) fn table(visitor: &Visitor, providers: &[AuthProvider]) -> Table {
    let row = |provider: &AuthProvider| {
        vec![
            Cell::Link(format!("/admin/providers/{}", provider.id), provider.name.clone()),
            Cell::Code(provider.issuer.clone()),
            state(provider),
        ]
    };
    let mut empty = Empty::new("No provider", "People sign in with any OpenID Connect provider.");
    if visitor.owns() {
        empty = empty.with(new_button());
    }
    let rows = providers.iter().map(row).collect();
    Table::titled("Identity providers", &["Name", "Issuer", "State"], rows, empty)
}

/// Leads to the page that sets one up.
pub(super) fn new_button() -> Button {
    Button::change("New identity provider", "/admin/providers/new", Tone::Plain)
}

fn state(provider: &AuthProvider) -> Cell {
    if provider.enabled { Cell::badge(Tone::Good, "enabled") } else { Cell::badge(Tone::Bad, "disabled") }
}

fn yes_or(is_so: bool, yes: &str, no: &str) -> Cell {
    Cell::text(if is_so { yes } else { no })
}

async fn facts(portal: &Portal, provider: &AuthProvider) -> Result<Vec<(&'static str, Cell)>, Refusal> {
    let public_url = portal.store.sign_in_setting().await?.public_url;
    let redirect = public_url.map(|url| web::redirect_uri(&url, &provider.name));
    let domains = provider.email_domains.clone();
    let muted = |text: &str| Cell::Muted(text.to_owned());
    Ok(vec![
        ("State", state(provider)),
        ("Issuer", Cell::Code(provider.issuer.clone())),
        ("Client id", Cell::Code(provider.client_id.clone())),
        ("Client secret", yes_or(provider.client_secret_sealed.is_some(), "set, and never shown", "none")),
        ("Redirect URI, to be entered there", redirect.map_or_else(|| muted("not known yet"), Cell::Code)),
        ("Asks for", Cell::Code(provider.scopes.clone())),
        ("Claim with groups", provider.group_claim.clone().map_or_else(|| muted("none"), Cell::Code)),
        ("Email domains", if domains.is_empty() { muted("any") } else { Cell::Code(domains) }),
        (
            "Authority of its certificate",
            yes_or(provider.ca_pem.is_some(), "its own, too", "well-known ones"),
        ),
        ("Whoever is not known", yes_or(provider.just_in_time, "becomes a user", "is not let in")),
        ("People whom SCIM made", yes_or(provider.links_directory, "may sign in with it", "may not")),
    ])
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let provider = portal.store.auth_provider(id).await?;
    let used = portal.store.provider_use(id, clock::now_ms()).await?;
    let mut all = facts(&portal, &provider).await?;
    all.push(("Used by", Cell::text(count(used.people, "user"))));
    all.push(("Sessions", Cell::text(sessions(&used))));
    let at = |verb: &str| format!("/admin/providers/{id}/{verb}");
    let toggle = if provider.enabled {
        Button::change("Disable", at("disable"), Tone::Bad)
    } else {
        Button::post("Enable", at("enable"))
    };
    let change = Button::change("Change", at("edit"), Tone::Primary);
    let buttons = [change, toggle, Button::change("Delete", at("delete"), Tone::Bad)];
    Ok(Page::new(&visitor, "settings", &provider.name)
        .below("Settings", "/admin/settings")
        .actions(buttons.into_iter().filter(|_| visitor.owns()))
        .block(Block::Facts(all))
        .answer())
}

fn sessions(used: &ProviderUse) -> String {
    format!("{} and {}", count(used.browsers, "browser session"), count(used.devices, "device session"))
}

/// What can be set of a new one and of an old one.
fn settings_fields(fields: &Fields, secret_hint: &str) -> Vec<Field> {
    let check = |name, label: &str| Field::new(name, label, Input::Check).value(fields.get(name));
    vec![
        Field::new("client_secret", "Client secret", Input::Secret).hint(secret_hint),
        Field::new("scopes", "Scopes", Input::Text)
            .value(fields.get("scopes"))
            .hint("With spaces between; openid is always among them."),
        Field::new("group_claim", "Claim with groups", Input::Text)
            .value(fields.get("group_claim"))
            .hint("Such as groups. Empty: the provider has no groups here."),
        Field::new("email_domains", "Email domains", Input::Text)
            .value(fields.get("email_domains"))
            .hint("With spaces between. Who has no verified address of these is not let in. Empty: any."),
        Field::new("ca_pem", "Authority of its certificate", Input::Lines)
            .value(fields.get("ca_pem"))
            .hint("Certificates in PEM, beside the well-known ones."),
        check("just_in_time", "Whoever is not known here becomes a user"),
        check("links_directory", "People whom SCIM made may sign in with it")
            .hint("Only if the provider lets nobody choose names and addresses freely."),
    ]
}

fn new_form(fields: &Fields) -> Form {
    let text = |name, label: &str| Field::new(name, label, Input::Text).value(fields.get(name)).required();
    let mut all = vec![
        text("name", "Name")
            .hint("1 to 32 of a-z, 0-9 and -, a letter first. Sessions say it; it never changes."),
        text("issuer", "Issuer").hint("Exactly as the provider writes it, a slash at the end included."),
        text("client_id", "Client id").hint("What the provider calls this portal."),
    ];
    all.extend(settings_fields(fields, "Empty for a public client."));
    Form::new("/admin/providers/new", "Create provider", all).or_back("/admin/settings")
}

fn new_page(visitor: &Visitor) -> Page {
    Page::new(visitor, "settings", "New identity provider")
        .below("Settings", "/admin/settings")
        .lead("The sign-in page shows a link to it at once. The redirect URI to enter there is shown next.")
}

pub(super) async fn form(Editor(visitor): Editor) -> Result<Response, Refusal> {
    visitor.must_own(ONLY_OWNERS)?;
    let begin = [("scopes", "openid profile email"), ("just_in_time", "yes")];
    let begin = begin.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(new_page(&visitor).block(Block::Form(new_form(&Fields(HashMap::from(begin))))).answer())
}

fn words(text: &str) -> Vec<String> {
    text.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    visitor.must_own(ONLY_OWNERS)?;
    let created = async {
        let text = |name| fields.get(name).to_owned();
        let provider = new_provider(
            &portal,
            NewProvider {
                name: text("name"),
                issuer: text("issuer"),
                client_id: text("client_id"),
                client_secret: Some(text("client_secret")),
                scopes: Some(text("scopes")),
                group_claim: Some(text("group_claim")),
                email_domains: Some(words(fields.get("email_domains"))),
                ca_pem: Some(text("ca_pem")),
                links_directory: Some(fields.has("links_directory")),
                just_in_time: Some(fields.has("just_in_time")),
                enabled: Some(true),
            },
        )?;
        let mut change = portal.store.change(&visitor.by()).await?;
        change.create_auth_provider(&provider).await?;
        change.commit().await?;
        Ok::<_, Wrong>(provider.id)
    };
    match created.await {
        Ok(id) => Ok(go(format!("/admin/providers/{id}"))),
        Err(wrong) => again(wrong, new_page(&visitor), |error| new_form(&fields).with_error(error)),
    }
}

fn filled(provider: &AuthProvider) -> Fields {
    let check = |is_so: bool| if is_so { "yes".to_owned() } else { String::new() };
    let pairs = [
        ("scopes", provider.scopes.clone()),
        ("group_claim", provider.group_claim.clone().unwrap_or_default()),
        ("email_domains", provider.email_domains.clone()),
        ("ca_pem", provider.ca_pem.clone().unwrap_or_default()),
        ("just_in_time", check(provider.just_in_time)),
        ("links_directory", check(provider.links_directory)),
    ];
    Fields(HashMap::from(pairs.map(|(name, value)| (name.to_owned(), value))))
}

fn edit_form(provider: &AuthProvider, fields: &Fields) -> Form {
    let has_secret = provider.client_secret_sealed.is_some();
    let hint = if has_secret { "Empty: the one that is set stays." } else { "Empty: a public client." };
    let mut all = settings_fields(fields, hint);
    if has_secret {
        let none = Field::new("no_secret", "Without a secret, as a public client", Input::Check);
        all.insert(1, none.value(fields.get("no_secret")));
    }
    let back = format!("/admin/providers/{}", provider.id);
    Form::new(format!("{back}/edit"), "Save", all).or_back(back)
}

fn edit_page(visitor: &Visitor, provider: &AuthProvider) -> Page {
    Page::new(visitor, "settings", &format!("Change {}", provider.name))
        .below("Back to the provider", format!("/admin/providers/{}", provider.id))
        .lead("It counts from the next sign-in on. Sessions stay.")
}

pub(super) async fn edit(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    visitor.must_own(ONLY_OWNERS)?;
    let provider = portal.store.auth_provider(id).await?;
    let form = edit_form(&provider, &filled(&provider));
    Ok(edit_page(&visitor, &provider).block(Block::Form(form)).answer())
}

/// What the form wants changed; a secret only if something was filled in.
fn read(fields: &Fields) -> ProviderChange {
    let secret = match (fields.get("client_secret"), fields.has("no_secret")) {
        ("", false) => None,
        (secret, _) => Some(secret.to_owned()),
    };
    ProviderChange {
        client_secret: secret,
        scopes: Some(fields.get("scopes").to_owned()),
        group_claim: Some(fields.get("group_claim").to_owned()),
        email_domains: Some(words(fields.get("email_domains"))),
        ca_pem: Some(fields.get("ca_pem").to_owned()),
        links_directory: Some(fields.has("links_directory")),
        just_in_time: Some(fields.has("just_in_time")),
        enabled: None,
    }
}

async fn save(portal: &Portal, visitor: &Visitor, id: Uuid, wanted: ProviderChange) -> Result<(), Wrong> {
    let mut provider = portal.store.auth_provider(id).await?;
    wanted.apply(portal, &mut provider)?;
    let mut change = portal.store.change(&visitor.by()).await?;
    change.update_auth_provider(&provider).await?;
    Ok(change.commit().await?)
}

pub(super) async fn update(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    visitor.must_own(ONLY_OWNERS)?;
    let provider = portal.store.auth_provider(id).await?;
    match save(&portal, &visitor, id, read(&fields)).await {
        Ok(()) => Ok(go(format!("/admin/providers/{id}"))),
        Err(wrong) => again(wrong, edit_page(&visitor, &provider), |error| {
            edit_form(&provider, &fields).with_error(error)
        }),
    }
}

async fn set_enabled(
    portal: &Portal,
    visitor: &Visitor,
    id: Uuid,
    is_enabled: bool,
) -> Result<Response, Refusal> {
    visitor.must_own(ONLY_OWNERS)?;
    let mut provider = portal.store.auth_provider(id).await?;
    provider.enabled = is_enabled;
    let mut change = portal.store.change(&visitor.by()).await?;
    change.update_auth_provider(&provider).await?;
    change.commit().await?;
    Ok(go(format!("/admin/providers/{id}")))
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

/// Says who is signed out, and what else is taken away from whom.
async fn confirm(
    portal: &Portal,
    visitor: &Visitor,
    (id, removal): (Uuid, Removal),
    verb: (&str, &str),
    lead: &str,
) -> Result<Response, Refusal> {
    visitor.must_own(ONLY_OWNERS)?;
    let provider = portal.store.auth_provider(id).await?;
    let now_ms = clock::now_ms();
    let used = portal.store.provider_use(id, now_ms).await?;
    let impact = portal.store.impact(removal, now_ms).await?;
    let back = format!("/admin/providers/{id}");
    let is_used = used.people + used.browsers + used.devices > 0;
    let mut text = if is_used {
        let people = count(used.people, "user");
        format!("{people} can no longer sign in with it. {} end at once.", sessions(&used))
    } else {
        "Nobody has signed in with it.".to_owned()
    };
    if visitor.is_signed_in_with(&provider.name) {
        text.push_str(" Yours is one of them.");
    }
    if used.groups > 0 && matches!(removal, Removal::Provider(_)) {
        text.push_str(&format!(" {} of its own will be empty.", count(used.groups, "group")));
    }
    let tone = if is_used { Tone::Bad } else { Tone::Plain };
    let page = Page::new(visitor, "settings", &format!("{} {}?", verb.0, provider.name))
        .lead(lead)
        .below("Back to the provider", back.clone())
        .block(Block::Note(tone, "Who signs in with it.".to_owned(), text));
    let submit = format!("{} the provider", verb.0);
    let form = Form::new(format!("{back}/{}", verb.1), &submit, Vec::new()).or_back(back);
    if is_used && impact.losses.is_empty() && impact.leases.is_empty() {
        // That nobody loses access would be said too soon.
        return Ok(page.block(Block::Form(Form { tone: Tone::Bad, ..form })).answer());
    }
    Ok(confirmation(page, &impact, form).answer())
}

pub(super) async fn confirm_disable(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let lead = "Nobody can sign in with it until it is enabled again. Its groups and their members stay.";
    confirm(&portal, &visitor, (id, Removal::SignIns(id)), ("Disable", "disable"), lead).await
}

pub(super) async fn confirm_delete(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let lead =
        "Who its people are is forgotten, and its groups are emptied. People, groups and policies stay.";
    confirm(&portal, &visitor, (id, Removal::Provider(id)), ("Delete", "delete"), lead).await
}

pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    visitor.must_own(ONLY_OWNERS)?;
    let mut change = portal.store.change(&visitor.by()).await?;
    change.delete_auth_provider(id).await?;
    change.commit().await?;
    Ok(go("/admin/settings"))
}
