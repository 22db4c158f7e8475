//! The token endpoint (RFC 6749, 4.1.3) and the UserInfo endpoint (OpenID Connect Core 1.0, 5.3).

use axum::http::header::CONTENT_TYPE;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::pending::Pending;
use super::remote::Known;
use super::token::Claims;
use super::trouble::Trouble;
use crate::credential::{NoRandomness, Secrets};
use crate::store::AuthProvider;

/// What the token endpoint gives.
#[derive(Deserialize)]
pub(super) struct Tokens {
    pub(super) id_token: String,
    pub(super) access_token: String,
}

/// Seals a client secret for the database, for this provider only.
pub(crate) fn seal(secrets: &Secrets, provider: uuid::Uuid, secret: &str) -> Result<String, NoRandomness> {
    secrets.seal(&format!("oidc secret {provider} {secret}"))
}

/// The client secret of a provider, if it has one.
pub(super) fn secret(secrets: &Secrets, provider: &AuthProvider) -> Result<Option<String>, Trouble> {
    let Some(sealed) = &provider.client_secret_sealed else { return Ok(None) };
    let text = secrets.open(sealed).ok_or(Trouble::Secret)?;
    let secret = text.strip_prefix(&format!("oidc secret {} ", provider.id)).ok_or(Trouble::Secret)?;
    Ok(Some(secret.to_owned()))
}

/// Gives the code away for tokens.
pub(super) async fn exchange(
    known: &Known,
    provider: &AuthProvider,
    secret: Option<&str>,
    pending: &Pending,
    code: &str,
    redirect_uri: &str,
) -> Result<Tokens, Trouble> {
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", redirect_uri),
        ("code_verifier", &pending.verifier),
    ];
    let mut request = known.http().post(&known.token_endpoint);
    match secret {
        Some(secret) if !known.secret_in_body => {
            // RFC 6749, 2.3.1: both are form-encoded before they become a user name and a password.
            let encoded =
                |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            request = request.basic_auth(encoded(&provider.client_id), Some(encoded(secret)));
        }
        Some(secret) => {
            fields.extend([("client_id", provider.client_id.as_str()), ("client_secret", secret)]);
        }
        None => fields.push(("client_id", &provider.client_id)),
    }
    let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form);
    known.http().ask(&known.token_endpoint, request).await
}

/// Adds what only the UserInfo endpoint says: some providers keep ID tokens short. What the ID token says counts first.
pub(super) async fn with_user_info(
    known: &Known,
    provider: &AuthProvider,
    claims: Claims,
    access_token: &str,
) -> Result<Claims, Trouble> {
    let has_groups = provider.group_claim.as_ref().is_none_or(|claim| claims.get(claim).is_some());
    let has_name = ["preferred_username", "email", "name"].iter().any(|claim| claims.get(claim).is_some());
    let Some(url) = known.user_info_endpoint.as_ref().filter(|_| !(has_groups && has_name)) else {
        return Ok(claims);
    };
    let http = known.http();
    let info: Map<String, Value> = http.ask(url, http.get_with(url, access_token)).await?;
    // Core 1.0, 5.3.2: otherwise it is about somebody else.
    if info.get("sub").and_then(Value::as_str) != Some(claims.subject()) {
        return Err(Trouble::Answer("its user information is about somebody else"));
    }
    Ok(claims.and(info))
}
