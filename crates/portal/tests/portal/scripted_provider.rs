//! A provider that says whatever a test wants, true or not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// How the ID token is signed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Signed {
    /// With the key that is published.
    Well,
    /// With another key, under the name of the one that is published.
    WithAnotherKey,
    /// Not at all, with `alg` `none`.
    Not,
    /// With the client's secret.
    WithTheSecret,
    /// Well, and then the claims were changed.
    ThenChanged,
}

/// What the token endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Answers,
    Fails,
    IsSilent,
    NeverStops,
}

pub(crate) struct Script {
    pub(crate) claims: Value,
    pub(crate) signed: Signed,
    pub(crate) mood: Mood,
    pub(crate) document: Value,
    pub(crate) key_fetches: usize,
    key: EcdsaKeyPair,
}

pub(crate) struct ScriptedProvider {
    pub(crate) issuer: String,
    pub(crate) script: Arc<Mutex<Script>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Drop for ScriptedProvider {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn new_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Script {
    fn token(&self) -> String {
        let alg = match self.signed {
            Signed::Not => "none",
            Signed::WithTheSecret => "HS256",
            Signed::Well | Signed::WithAnotherKey | Signed::ThenChanged => "ES256",
        };
        let head = encoded(&json!({ "alg": alg, "kid": "one" }));
        let text = format!("{head}.{}", encoded(&self.claims));
        let sign =
            |key: &EcdsaKeyPair| key.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec();
        let signature = match self.signed {
            Signed::Well | Signed::ThenChanged => sign(&self.key),
            Signed::WithAnotherKey => sign(&new_key()),
            Signed::Not => Vec::new(),
            Signed::WithTheSecret => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"secret"), text.as_bytes()).as_ref().to_vec()
            }
        };
        let mut text = text;
        if matches!(self.signed, Signed::ThenChanged) {
            let mut claims = self.claims.clone();
            claims["sub"] = "somebody-else".into();
            text = format!("{head}.{}", encoded(&claims));
        }
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

type Shared = State<Arc<Mutex<Script>>>;

async fn document(State(script): Shared) -> Response {
    axum::Json(script.lock().unwrap().document.clone()).into_response()
}

async fn keys(State(script): Shared) -> Response {
    let mut script = script.lock().unwrap();
    script.key_fetches += 1;
    let point = script.key.public_key().as_ref().to_vec();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    let key =
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "one", "x": x, "y": y });
    axum::Json(json!({ "keys": [key] })).into_response()
}

async fn token(State(script): Shared) -> Response {
    let mood = script.lock().unwrap().mood;
    match mood {
        Mood::Answers => {
            let token = script.lock().unwrap().token();
            axum::Json(json!({ "access_token": "secret access", "token_type": "Bearer", "id_token": token }))
                .into_response()
        }
        Mood::Fails => (StatusCode::INTERNAL_SERVER_ERROR, "secret detail").into_response(),
        Mood::IsSilent => std::future::pending().await,
        Mood::NeverStops => {
            let chunk = || std::future::ready(Some((Ok::<_, std::io::Error>(vec![b' '; 65536]), ())));
            Body::from_stream(futures_util::stream::unfold((), move |()| chunk())).into_response()
        }
    }
}

impl ScriptedProvider {
    pub(crate) async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let issuer = format!("http://{address}");
        let document_text = json!({
            "issuer": issuer,
            "authorization_endpoint": format!("{issuer}/authorize"),
            "token_endpoint": format!("{issuer}/token"),
            "jwks_uri": format!("{issuer}/keys"),
        });
        let script = Arc::new(Mutex::new(Script {
            claims: json!({}),
            signed: Signed::Well,
            mood: Mood::Answers,
            document: document_text,
            key_fetches: 0,
            key: new_key(),
        }));
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(document))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(Arc::clone(&script));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { issuer, script, serving }
    }

    /// Everything that a good token says, for the sign-in with this nonce.
    pub(crate) fn claims(&self, subject: &str, nonce: &str) -> Value {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        json!({
            "iss": self.issuer, "aud": "adit", "sub": subject, "nonce": nonce, "iat": now, "exp": now + 300,
            "preferred_username": subject,
        })
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    pub(crate) fn makes_a_new_key(&self) {
        self.set(|script| script.key = new_key());
    }
}
