//! The endpoints that devices ask: a device code, and a token for a code.
//!
//! Requests are forms, answers JSON, errors those of RFC 6749, section 5.2, and RFC 8628, section
//! 3.5. How often one address may ask is limited like the API; codes that are wrong are counted
//! like failed sign-ins.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_protocol::sign_in::{
    CLIENT_ID, DeviceCode, DeviceRequest, GRANT_CODE, GRANT_DEVICE_CODE, IssuedToken, SignInError,
    SignInFailure, TokenRequest, VERIFY_PATH,
};
use aws_lc_rs::digest;
use axum::Json;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::super::address::browser_url;
use super::user_code;
use crate::api::{Failure, Remote};
use crate::clock;
use crate::credential::{self, NoRandomness, PresentedToken, Secrets};
use crate::portal::{Portal, SharedPortal};
use crate::presentable::device_name;
use crate::store::{
    Approval, By, Change, CodeState, DEVICE_CODE_MS, INTERVAL_MS, NewDeviceCode, SignInSetting, StoreError,
    TokenKind,
};

/// A verifier has 43 to 128 characters (RFC 7636, section 4.1).
const VERIFIER: std::ops::RangeInclusive<usize> = 43..=128;

/// An answer that is no token.
pub(super) enum No {
    /// In the words of the standards.
    Said(SignInError, &'static str),
    /// Too often; the caller is told when to come back.
    TooOften(Duration),
    /// The portal failed.
    Failed(Failure),
}

use SignInError::{
    AccessDenied, AuthorizationPending, ExpiredToken, InvalidClient, InvalidGrant, InvalidRequest, SlowDown,
    UnsupportedGrantType,
};

impl From<StoreError> for No {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<NoRandomness> for No {
    fn from(error: NoRandomness) -> Self {
        Self::Failed(error.into())
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        let said = |status: StatusCode, error, description: &str| {
            let failure = SignInFailure { error, error_description: Some(description.to_owned()) };
            (status, [(header::CACHE_CONTROL, "no-store")], Json(failure)).into_response()
        };
        match self {
            Self::Said(error, description) => said(StatusCode::BAD_REQUEST, error, description),
            Self::TooOften(after) => {
                let description = "Too many requests; come back later";
                let mut response = said(StatusCode::TOO_MANY_REQUESTS, SlowDown, description);
                let seconds = HeaderValue::from(after.as_secs().max(1));
                response.headers_mut().insert(header::RETRY_AFTER, seconds);
                response
            }
            Self::Failed(failure) => failure.into_response(),
        }
    }
}

/// Under which the secret of a code is stored, whichever grant it is for.
pub(super) fn code_hash(secrets: &Secrets, id: Uuid, secret: &str) -> [u8; 32] {
    secrets.tag("sign-in code", &[id.as_bytes(), secret.as_bytes()])
}

async fn read<T: DeserializeOwned>(portal: &SharedPortal, from: IpAddr, request: Request) -> Result<T, No> {
    portal.limit.request_from(Instant::now(), from).map_err(No::TooOften)?;
    match axum::Form::<T>::from_request(request, portal).await {
        Ok(axum::Form(form)) => Ok(form),
        Err(_) => Err(No::Said(InvalidRequest, "A form with the fields of the grant is needed")),
    }
}

fn check_client(id: &str) -> Result<(), No> {
    if id == CLIENT_ID { Ok(()) } else { Err(No::Said(InvalidClient, "This portal knows no such program")) }
}

/// `POST /v1/sign-in/device`
pub(super) async fn device(
    State(portal): State<SharedPortal>,
    remote: Remote,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, No> {
    let address = remote.0.ip();
    let asked: DeviceRequest = read(&portal, address, request).await?;
    check_client(&asked.client_id)?;
    let (id, user_code) = (Uuid::now_v7(), user_code::new()?);
    let secret = URL_SAFE_NO_PAD.encode(credential::random_bytes()?);
    let device_name = device_name(&asked.device_name);
    let by = By { who: device_name.clone(), address: address.to_string() };
    let new = NewDeviceCode {
        id,
        code_hash: code_hash(&portal.secrets, id, &secret),
        user_code_hash: portal.secrets.tag("user code", &[user_code.as_bytes()]),
        device_name: &device_name,
        address: &by.address,
        network: &super::super::limit::network(address).to_string(),
    };
    let mut change = portal.store.change(&by).await?;
    if !change.begin_device_code(&new).await? {
        return Err(No::TooOften(Duration::from_secs(60)));
    }
    change.commit().await?;
    let verification_uri = browser_url(&portal, &headers).await? + VERIFY_PATH;
    let user_code = user_code::shown(&user_code);
    Ok(answer(&DeviceCode {
        device_code: format!("{}.{secret}", id.simple()),
        verification_uri_complete: Some(format!("{verification_uri}?code={user_code}")),
        user_code,
        verification_uri,
        expires_in: DEVICE_CODE_MS.unsigned_abs() / 1000,
        interval: INTERVAL_MS.unsigned_abs() / 1000,
    }))
}

fn answer(body: &impl serde::Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")], Json(body)).into_response()
}

/// `POST /v1/sign-in/token`
pub(super) async fn token(
    State(portal): State<SharedPortal>,
    remote: Remote,
    request: Request,
) -> Result<Response, No> {
    let address = remote.0.ip();
    let asked: TokenRequest = read(&portal, address, request).await?;
    check_client(&asked.client_id)?;
    let (kind, code) = match asked.grant_type.as_str() {
        GRANT_CODE => ("loopback", &asked.code),
        GRANT_DEVICE_CODE => ("device", &asked.device_code),
        _ => return Err(No::Said(UnsupportedGrantType, "There is no such grant")),
    };
    let code = code.as_deref().ok_or(No::Said(InvalidRequest, "The code is missing"))?;
    let tried = portal.secrets.tag("sign-in code tried", &[code.as_bytes()]);
    portal.sign_in.codes.allows(Instant::now(), &tried, address).map_err(No::TooOften)?;
    let answered = exchange(&portal, address, kind, code, &asked).await;
    if matches!(answered, Err(No::Said(InvalidGrant, _))) {
        portal.sign_in.codes.failed(Instant::now(), &tried, address);
    }
    answered
}

/// A token for a code; the code is used up by whatever comes of it, except by waiting.
async fn exchange(
    portal: &Portal,
    address: IpAddr,
    kind: &str,
    code: &str,
    asked: &TokenRequest,
) -> Result<Response, No> {
    let unknown = || No::Said(InvalidGrant, "The code is unknown, or was used");
    let (id, secret) = code.split_once('.').ok_or_else(unknown)?;
    let id = Uuid::try_parse(id).map_err(|_| unknown())?;
    let setting = portal.store.sign_in_setting().await?;
    let renews = renewed(portal, asked).await?;
    let by = By { who: "device".to_owned(), address: address.to_string() };
    let mut change = portal.store.change(&by).await?;
    let state = change.take_code(id, kind, &code_hash(&portal.secrets, id, secret)).await?;
    let refused = match state {
        CodeState::Approved(approval) => {
            match grant(portal, &mut change, &approval, asked, &setting, renews).await? {
                Ok(issued) => {
                    change.commit().await?;
                    metrics::counter!("adit_portal_devices_signed_in_total", "grant" => kind.to_owned())
                        .increment(1);
                    return Ok(answer(&issued));
                }
                Err(refused) => {
                    change.spend_code(id, None).await?;
                    refused
                }
            }
        }
        CodeState::Unknown => return Err(unknown()),
        CodeState::UsedAgain => (InvalidGrant, "The code was used before; what it gave is revoked"),
        CodeState::Expired if kind == "device" => (ExpiredToken, "The code has ended; begin again"),
        CodeState::Expired => (InvalidGrant, "The code has ended; begin again"),
        CodeState::Pending => (AuthorizationPending, "Nobody has decided yet"),
        CodeState::TooSoon => (SlowDown, "Ask less often"),
        CodeState::Denied => (AccessDenied, "The sign-in was refused"),
    };
    change.commit().await?;
    Err(No::Said(refused.0, refused.1))
}

type Refused = (SignInError, &'static str);

/// Gives an approved device its token: the one that it has, or a new one.
async fn grant(
    portal: &Portal,
    change: &mut Change,
    approval: &Approval,
    asked: &TokenRequest,
    setting: &SignInSetting,
    renews: Option<PresentedToken>,
) -> Result<Result<IssuedToken, Refused>, No> {
    if let Err(refused) = check_proof(approval, asked) {
        return Ok(Err(refused));
    }
    let Some(actor) = change.approver(approval).await? else {
        return Ok(Err((AccessDenied, "The account is disabled")));
    };
    let expires_ms = change.at_ms() + setting.device_session_ms();
    if let (Some(token), Some(text)) = (renews, &asked.renews)
        && change.renew_device_token(approval, token.id, expires_ms).await?
    {
        return Ok(Ok(issued(text.clone(), expires_ms, actor)));
    }
    if !change.has_room_for_device(approval.actor, setting.devices_per_user).await? {
        return Ok(Err((
            AccessDenied,
            "Too many devices are signed in; end the session of another one on the portal's start page",
        )));
    }
    let minted = portal.secrets.mint(TokenKind::Client)?;
    change.issue_device_token(approval, (minted.id, minted.hash), expires_ms).await?;
    Ok(Ok(issued(minted.text, expires_ms, actor)))
}

/// What an authorization code is bound to (RFC 6749, section 4.1.3; RFC 7636, section 4.6).
fn check_proof(approval: &Approval, asked: &TokenRequest) -> Result<(), Refused> {
    let Some(challenge) = &approval.sign_in.challenge else { return Ok(()) };
    if asked.redirect_uri != approval.sign_in.redirect_uri {
        return Err((InvalidGrant, "`redirect_uri` is not the one that the code was sent to"));
    }
    let verifier = asked.code_verifier.as_deref().unwrap_or_default();
    let hash = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()));
    let is_right = bool::from(hash.as_bytes().ct_eq(challenge.as_bytes()));
    if is_right && VERIFIER.contains(&verifier.len()) {
        Ok(())
    } else {
        Err((InvalidGrant, "`code_verifier` is not what the challenge was made of"))
    }
}

/// The token that a device wants to keep, if it is one of ours. Whose it is, and whether it is
/// still good, is looked at when it is renewed.
async fn renewed(portal: &Portal, asked: &TokenRequest) -> Result<Option<PresentedToken>, No> {
    let presented = asked.renews.as_deref().and_then(PresentedToken::parse);
    let Some(presented) = presented.filter(|token| token.kind == TokenKind::Client) else { return Ok(None) };
    let stored = portal.store.token(presented.id).await?;
    Ok(stored.filter(|stored| portal.secrets.verify(&presented, &stored.hash)).map(|_| presented))
}

fn issued(access_token: String, expires_ms: i64, actor_name: String) -> IssuedToken {
    IssuedToken {
        access_token,
        token_type: "Bearer".to_owned(),
        expires_in: Some(clock::until(expires_ms).as_secs()),
        actor_name,
    }
}
