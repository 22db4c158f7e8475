//! The ID token (OpenID Connect Core 1.0, 3.1.3.7).

use std::str::FromStr as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{CoreIdToken, CoreIdTokenVerifier, CoreJsonWebKeySet, CoreJwsSigningAlgorithm};
use openidconnect::{
    ClaimsVerificationError, ClientId, ClientSecret, IssuerUrl, Nonce, SignatureVerificationError,
};
use serde_json::{Map, Value};

use super::trouble::Trouble;
use crate::store::AuthProvider;

/// Signatures that are accepted: with a key that only the provider has. Not `none`, and not with the client's secret.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 9] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::RsaSsaPssSha384,
    CoreJwsSigningAlgorithm::RsaSsaPssSha512,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// How far the clocks of provider and portal may differ, in milliseconds.
const SKEW_MS: i64 = 5 * 60 * 1000;

/// The longest subject (Core 1.0, 2).
const LONGEST_SUBJECT: usize = 255;

/// What a token must say.
pub(super) struct Expected<'a> {
    pub(super) provider: &'a AuthProvider,
    pub(super) secret: Option<&'a str>,
    pub(super) nonce: &'a str,
    pub(super) now_ms: i64,
}

/// What a provider says of somebody.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    subject: String,
    authenticated_ms: Option<i64>,
    all: Map<String, Value>,
}

impl Claims {
    #[cfg(test)]
    pub(super) fn of(subject: &str, all: Value) -> Self {
        let Value::Object(all) = all else { panic!("claims are an object") };
        Self { subject: subject.to_owned(), authenticated_ms: None, all }
    }

    pub(super) fn subject(&self) -> &str {
        &self.subject
    }

    /// When the provider authenticated them, if it says.
    pub(super) const fn authenticated_ms(&self) -> Option<i64> {
        self.authenticated_ms
    }

    pub(super) fn get(&self, claim: &str) -> Option<&Value> {
        self.all.get(claim)
    }

    pub(super) fn text(&self, claim: &str) -> Option<&str> {
        self.get(claim).and_then(Value::as_str)
    }

    /// With what else is said of the same subject.
    pub(super) fn and(mut self, others: Map<String, Value>) -> Self {
        for (claim, value) in others {
            self.all.entry(claim).or_insert(value);
        }
        self
    }
}

/// Verifies signature, issuer, audience, times and nonce.
pub(super) fn verify(
    text: &str,
    keys: &CoreJsonWebKeySet,
    expected: &Expected<'_>,
) -> Result<Claims, Trouble> {
    let provider = expected.provider;
    let token = CoreIdToken::from_str(text).map_err(|_| Trouble::Token("it is none"))?;
    let issuer = IssuerUrl::new(provider.issuer.clone()).map_err(|_| Trouble::Token("issuer"))?;
    let client = ClientId::new(provider.client_id.clone());
    let verifier = match expected.secret {
        Some(secret) => CoreIdTokenVerifier::new_confidential_client(
            client.clone(),
            ClientSecret::new(secret.to_owned()),
            issuer,
            keys.clone(),
        ),
        None => CoreIdTokenVerifier::new_public_client(client.clone(), issuer, keys.clone()),
    };
    let verifier = verifier.set_allowed_algs(ALGORITHMS);
    let nonce = Nonce::new(expected.nonce.to_owned());
    let claims = token.claims(&verifier, &nonce).map_err(|error| reason(&error))?;
    if claims.authorized_party().is_some_and(|party| *party != client) {
        return Err(Trouble::Token("it is for another client"));
    }
    if claims.issue_time().timestamp_millis() > expected.now_ms + SKEW_MS {
        return Err(Trouble::Token("it is from the future"));
    }
    let subject = claims.subject().to_string();
    if subject.is_empty() || subject.len() > LONGEST_SUBJECT {
        return Err(Trouble::Token("subject"));
    }
    let authenticated_ms = claims.auth_time().map(|at| at.timestamp_millis());
    Ok(Claims { subject, authenticated_ms, all: payload(text)? })
}

fn reason(error: &ClaimsVerificationError) -> Trouble {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the library may add reasons")]
    match error {
        ClaimsVerificationError::Expired(_) => Trouble::Token("it has expired"),
        ClaimsVerificationError::InvalidAudience(_) => Trouble::Token("audience"),
        ClaimsVerificationError::InvalidIssuer(_) => Trouble::Token("issuer"),
        ClaimsVerificationError::InvalidNonce(_) => Trouble::Token("nonce"),
        ClaimsVerificationError::InvalidSubject(_) => Trouble::Token("subject"),
        ClaimsVerificationError::SignatureVerification(
            SignatureVerificationError::DisallowedAlg(_) | SignatureVerificationError::NoSignature,
        ) => Trouble::Token("its kind of signature is not accepted"),
        ClaimsVerificationError::SignatureVerification(_) => Trouble::Signature,
        _ => Trouble::Token("it cannot be verified"),
    }
}

/// All claims of a token that was verified: which of them matter, the owner says.
fn payload(text: &str) -> Result<Map<String, Value>, Trouble> {
    let part = text.split('.').nth(1).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Trouble::Token("it is none"))?;
    serde_json::from_slice(&bytes).map_err(|_| Trouble::Token("it is none"))
}
