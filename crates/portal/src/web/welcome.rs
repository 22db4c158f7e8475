//! The link with which somebody sets password and authenticator, once.
//!
//! An administrator makes it for a person, in the pages or with the API; on the portal's own
//! machine it is made for anybody (`bootstrap`, `admin-link`). Whoever holds it becomes that person, so
//! only owners make one for somebody who has a role. It lasts an hour, and only a
//! keyed hash of it is stored. The authenticator's secret is derived from the link, so that the
//! page shows the same one however often it is loaded, and nothing is stored before it is used.

use adit_policy::ActorId;
use askama::Template;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use serde::Deserialize;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::page::{Refusal, page};
use super::password;
use super::session;
use super::sign_in::{LOCAL, recovery_hash, seal_totp};
use super::totp::TotpSecret;
use crate::api::{Failure, Remote};
use crate::clock;
use crate::credential::{self, NoRandomness, Secrets};
use crate::portal::{Portal, SharedPortal};
use crate::store::{Actor, By, Change, LocalCredential, WelcomeLink};

/// How long a link can be used: one hour.
pub(crate) const LINK_LIFETIME_MS: i64 = 60 * 60 * 1000;

/// Recovery codes that are made, of 80 bits each.
const RECOVERY_CODES: usize = 10;

/// Of recovery codes: nothing that is taken for something else.
const RECOVERY_ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

#[derive(Template)]
#[template(path = "welcome.html")]
struct WelcomePage<'a> {
    token: &'a str,
    name: &'a str,
    secret: &'a str,
    picture: &'a str,
    shortest: usize,
    error: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "recovery.html")]
struct RecoveryPage<'a> {
    codes: &'a [String],
}

#[derive(Deserialize)]
pub(super) struct Link {
    #[serde(default)]
    token: String,
}

#[derive(Deserialize)]
pub(super) struct WelcomeForm {
    token: String,
    password: String,
    again: String,
    code: String,
}

/// A new link for an actor: what its address ends with, and what is stored.
pub(crate) fn new_link(
    secrets: &Secrets,
    actor: Uuid,
    expires_ms: i64,
) -> Result<(String, WelcomeLink), NoRandomness> {
    let id = Uuid::now_v7();
    let secret = URL_SAFE_NO_PAD.encode(credential::random_bytes()?);
    let hash = hash(secrets, id, &secret).to_vec();
    let path = format!("/welcome?token={}.{secret}", id.simple());
    Ok((path, WelcomeLink { id, actor_id: actor, hash, expires_ms }))
}

/// Makes a link for a person: what its address ends with, and when it ends.
pub(crate) async fn make_link(
    portal: &Portal,
    change: &mut Change,
    actor: ActorId,
) -> Result<(String, i64), Failure> {
    if !change.is_enabled_person(actor).await? {
        return Err(Failure::invalid("only people who are not disabled choose a password"));
    }
    let expires_ms = change.at_ms() + LINK_LIFETIME_MS;
    let (path, link) = new_link(&portal.secrets, actor.as_uuid(), expires_ms)?;
    change.create_welcome_link(&link).await?;
    Ok((path, expires_ms))
}

fn hash(secrets: &Secrets, id: Uuid, secret: &str) -> [u8; 32] {
    secrets.tag("welcome link", &[id.as_bytes(), secret.as_bytes()])
}

/// `GET /welcome`
pub(super) async fn form(
    State(portal): State<SharedPortal>,
    Query(link): Query<Link>,
) -> Result<Response, Refusal> {
    let welcome = Welcome::open(&portal, &link.token).await?;
    welcome.page(StatusCode::OK, None)
}

/// `POST /welcome`
pub(super) async fn submit(
    State(portal): State<SharedPortal>,
    remote: Remote,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    session::check_origin(&portal, &headers).await?;
    let form: WelcomeForm = session::read_form(request, &portal).await?;
    let welcome = Welcome::open(&portal, &form.token).await?;
    if let Some(error) = unfit(&form, &welcome.actor.name) {
        return welcome.page(StatusCode::UNPROCESSABLE_ENTITY, Some(error));
    }
    let Some(step) = welcome.totp.step_of(&form.code, clock::now_ms()) else {
        let error = "The code is wrong. Is the clock of this device right?";
        return welcome.page(StatusCode::UNPROCESSABLE_ENTITY, Some(error));
    };
    let address = remote.0.ip().to_string();
    let codes = welcome.take(&portal, form.password, step, &address).await?;
    let mut response = page(StatusCode::OK, &RecoveryPage { codes: &codes });
    session::begin(&portal, &welcome.actor, LOCAL, (&headers, &address), &mut response).await?;
    Ok(response)
}

/// What is wrong with a password that was chosen.
fn unfit(form: &WelcomeForm, name: &str) -> Option<&'static str> {
    if form.password != form.again {
        Some("The two passwords differ.")
    } else if form.password.chars().count() < password::SHORTEST {
        Some("The password is too short: at least 12 characters.")
    } else if form.password.len() > password::LONGEST {
        Some("The password is too long: at most 1024 bytes.")
    } else if form.password.to_lowercase().contains(&name.to_lowercase()) && name.len() > 2 {
        Some("The password must not contain the name.")
    } else {
        None
    }
}

/// A link that is good, and whose it is.
struct Welcome {
    token: String,
    link: WelcomeLink,
    actor: Actor,
    totp: TotpSecret,
}

impl Welcome {
    async fn open(portal: &Portal, token: &str) -> Result<Self, Refusal> {
        let used_up = || {
            let detail = "It was used, it is older than an hour, or a newer one was made. \
                          An administrator makes another, or `adit-portal admin-link` on the portal's machine.";
            Refusal::not_found("This link is not good any more", detail)
        };
        let (id, secret) = token.split_once('.').ok_or_else(used_up)?;
        let id = Uuid::try_parse(id).map_err(|_| used_up())?;
        let link = portal.store.welcome_link(id).await?.ok_or_else(used_up)?;
        let is_ours = bool::from(hash(&portal.secrets, id, secret).as_slice().ct_eq(&link.hash));
        let (now_ms, made_ms) = (clock::now_ms(), link.expires_ms - LINK_LIFETIME_MS);
        if !is_ours || link.expires_ms <= now_ms || clock::is_ahead(made_ms, now_ms) {
            return Err(used_up());
        }
        let actor = portal.store.actor(ActorId::from_uuid(link.actor_id)).await?;
        if !actor.enabled {
            return Err(used_up());
        }
        let totp = TotpSecret::new(&portal.secrets.tag("authenticator", &[id.as_bytes(), &link.hash]));
        Ok(Self { token: token.to_owned(), link, actor, totp })
    }

    fn page(&self, status: StatusCode, error: Option<&str>) -> Result<Response, Refusal> {
        let secret = self.totp.base32();
        let picture = picture(&self.actor.name, &secret)?;
        let (token, name, shortest) = (&*self.token, &*self.actor.name, password::SHORTEST);
        let template = WelcomePage { token, name, secret: &secret, picture: &picture, shortest, error };
        Ok(page(status, &template))
    }

    /// Uses the link up: the recovery codes come back, to be shown once.
    async fn take(
        &self,
        portal: &Portal,
        password: String,
        step: i64,
        address: &str,
    ) -> Result<Vec<String>, Refusal> {
        let credential = LocalCredential {
            password_hash: portal.sign_in.passwords.hash(password).await?,
            totp_sealed: seal_totp(&portal.secrets, &self.actor, &self.totp)?,
            totp_step: step,
        };
        let codes = (0..RECOVERY_CODES).map(|_| recovery_code()).collect::<Result<Vec<String>, _>>()?;
        let hashes: Vec<[u8; 32]> =
            codes.iter().map(|code| recovery_hash(&portal.secrets, &self.actor, code)).collect();
        let by = By { who: self.actor.name.clone(), address: address.to_owned() };
        let mut change = portal.store.change(&by).await?;
        if !change.take_welcome_link(self.link.id).await? {
            return Err(Refusal::not_found("This link is not good any more", "It was used a moment ago."));
        }
        change.set_local_credential(ActorId::from_uuid(self.actor.id), &credential, &hashes).await?;
        change.commit().await?;
        Ok(codes)
    }
}

/// 16 characters in four groups.
fn recovery_code() -> Result<String, NoRandomness> {
    let random = credential::random_bytes()?;
    let symbols: Vec<char> =
        random[..16].iter().map(|byte| char::from(RECOVERY_ALPHABET[usize::from(byte & 31)])).collect();
    Ok(symbols.chunks(4).map(String::from_iter).collect::<Vec<_>>().join("-"))
}

/// What an authenticator reads from the screen, as the address of a picture.
fn picture(name: &str, secret: &str) -> Result<String, Refusal> {
    let label: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let text = format!("otpauth://totp/Adit:{}?secret={secret}&issuer=Adit", label.replace('+', "%20"));
    let code = QrCode::with_error_correction_level(text, EcLevel::M).map_err(Refusal::internal)?;
    let picture = code.render::<svg::Color<'_>>().min_dimensions(220, 220).build();
    Ok(format!("data:image/svg+xml;base64,{}", STANDARD.encode(picture)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recovery_codes_are_long_and_never_the_same() {
        let (one, two) = (recovery_code().unwrap(), recovery_code().unwrap());
        assert_eq!(one.len(), 19);
        assert_ne!(one, two);
    }

    #[test]
    fn the_longest_name_fits_into_the_picture() {
        let name = "ü".repeat(100);
        assert!(picture(&name, &"A".repeat(32)).is_ok_and(|picture| picture.starts_with("data:image/svg")));
    }
}
