//! What a provider says of itself (OpenID Connect Discovery 1.0), kept for an hour, and its keys. Every question has a time
//! limit, every answer a largest size, and no redirect is followed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use openidconnect::core::CoreJsonWebKeySet;
use reqwest::{Certificate, Client, RequestBuilder, redirect};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use url::Url;
use uuid::Uuid;

use super::is_acceptable;
use super::trouble::Trouble;
use crate::store::AuthProvider;

/// Longest answer of a provider: key sets and the groups of one person are far smaller.
const LARGEST: usize = 512 * 1024;
/// From a question to the end of its answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long documents and keys are good for.
const GOOD_FOR: Duration = Duration::from_secs(3600);
/// Keys are not fetched anew more often, whatever tokens claim to be signed with.
const BETWEEN_KEYS: Duration = Duration::from_secs(10);
/// Questions at the same time.
const MOST_AT_ONCE: usize = 32;

/// What is known of one provider.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) authorization_endpoint: Url,
    pub(super) token_endpoint: Url,
    pub(super) user_info_endpoint: Option<Url>,
    /// Whether the secret is sent in the body: the only way that the provider takes it.
    pub(super) secret_in_body: bool,
    /// Whether every answer through the browser names its issuer (RFC 9207).
    pub(super) says_issuer: bool,
    pub(super) keys: Arc<CoreJsonWebKeySet>,
    jwks_uri: Url,
    http: Http,
    changed_ms: i64,
    since: Instant,
    keys_since: Option<Instant>,
}

/// How a provider is asked.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client,
    at_once: Arc<Semaphore>,
}

/// The part of a provider's document that matters here.
#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    userinfo_endpoint: Option<Url>,
    jwks_uri: Url,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

/// What is known of all providers.
#[derive(Debug)]
pub(in crate::web) struct Remotes {
    known: Mutex<HashMap<Uuid, Arc<Known>>>,
    at_once: Arc<Semaphore>,
}

impl Remotes {
    /// Nothing yet.
    pub(in crate::web) fn new() -> Self {
        Self { known: Mutex::default(), at_once: Arc::new(Semaphore::new(MOST_AT_ONCE)) }
    }

    /// What is known of a provider; it is asked when that is nothing, or old.
    pub(super) async fn known(&self, provider: &AuthProvider) -> Result<Arc<Known>, Trouble> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&provider.id).cloned();
        let is_good =
            |known: &Known| known.changed_ms == provider.changed_ms && known.since.elapsed() < GOOD_FOR;
        if let Some(known) = known.filter(|known| is_good(known)) {
            return Ok(known);
        }
        let found = discover(provider, Arc::clone(&self.at_once)).await?;
        Ok(self.keep(provider.id, found))
    }

    /// The keys of a provider who has perhaps made new ones since.
    pub(super) async fn newer_keys(
        &self,
        provider: &AuthProvider,
        known: &Known,
    ) -> Result<Arc<CoreJsonWebKeySet>, Trouble> {
        if known.keys_since.is_some_and(|since| since.elapsed() < BETWEEN_KEYS) {
            return Err(Trouble::Signature);
        }
        let keys = Arc::new(known.http.get(&known.jwks_uri).await?);
        let newer = Known {
            authorization_endpoint: known.authorization_endpoint.clone(),
            token_endpoint: known.token_endpoint.clone(),
            user_info_endpoint: known.user_info_endpoint.clone(),
            keys: Arc::clone(&keys),
            jwks_uri: known.jwks_uri.clone(),
            http: known.http.clone(),
            keys_since: Some(Instant::now()),
            ..*known
        };
        self.keep(provider.id, newer);
        Ok(keys)
    }

    /// At most as many are kept as an account may have providers, and a few that are gone.
    fn keep(&self, id: Uuid, known: Known) -> Arc<Known> {
        let known = Arc::new(known);
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, known| known.since.elapsed() < GOOD_FOR);
        all.insert(id, Arc::clone(&known));
        known
    }
}

async fn discover(provider: &AuthProvider, at_once: Arc<Semaphore>) -> Result<Known, Trouble> {
    let http = Http { client: client(provider)?, at_once };
    let issuer = provider.issuer.trim_end_matches('/');
    let url = Url::parse(&format!("{issuer}/.well-known/openid-configuration"))
        .map_err(|_| Trouble::Answer("the issuer is no address"))?;
    let document: Document = http.get(&url).await?;
    // Discovery 1.0, 4.3: exactly the same, or it is the document of somebody else.
    if document.issuer != provider.issuer {
        return Err(Trouble::Answer("its document names another issuer"));
    }
    if !is_acceptable(&document.authorization_endpoint) {
        return Err(Trouble::Answer("its document names an address without TLS"));
    }
    let keys = Arc::new(http.get(&document.jwks_uri).await?);
    let methods = document.token_endpoint_auth_methods_supported;
    Ok(Known {
        authorization_endpoint: document.authorization_endpoint,
        token_endpoint: document.token_endpoint,
        user_info_endpoint: document.userinfo_endpoint,
        // Absent means `client_secret_basic` (Discovery 1.0, 3).
        secret_in_body: methods
            .is_some_and(|methods| !methods.iter().any(|way| way == "client_secret_basic")),
        says_issuer: document.authorization_response_iss_parameter_supported,
        keys,
        jwks_uri: document.jwks_uri,
        http,
        changed_ms: provider.changed_ms,
        since: Instant::now(),
        keys_since: None,
    })
}

fn client(provider: &AuthProvider) -> Result<Client, Trouble> {
    let mut client = Client::builder()
        .timeout(ANSWER_TIME)
        .connect_timeout(ANSWER_TIME / 2)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("adit-portal/", env!("CARGO_PKG_VERSION")));
    if let Some(pem) = &provider.ca_pem {
        let wrong = |_| Trouble::Answer("the certificate of its authority cannot be read");
        client = client.tls_certs_merge(Certificate::from_pem_bundle(pem.as_bytes()).map_err(wrong)?);
    }
    client.build().map_err(|_| Trouble::Answer("no client can be made for it"))
}

impl Known {
    /// How the provider is asked.
    pub(super) const fn http(&self) -> &Http {
        &self.http
    }
}

impl Http {
    async fn get<T: DeserializeOwned>(&self, url: &Url) -> Result<T, Trouble> {
        self.ask(url, self.client.get(url.clone())).await
    }

    /// A request that posts something.
    pub(super) fn post(&self, url: &Url) -> RequestBuilder {
        self.client.post(url.clone())
    }

    /// A request that carries an access token.
    pub(super) fn get_with(&self, url: &Url, access_token: &str) -> RequestBuilder {
        self.client.get(url.clone()).bearer_auth(access_token)
    }

    /// Asks for JSON.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        url: &Url,
        request: RequestBuilder,
    ) -> Result<T, Trouble> {
        if !is_acceptable(url) {
            return Err(Trouble::Answer("its document names an address without TLS"));
        }
        let _turn = self.at_once.try_acquire().map_err(|_| Trouble::Busy)?;
        let mut response =
            request.header("accept", "application/json").send().await.map_err(|_| Trouble::Silent)?;
        if !response.status().is_success() {
            return Err(Trouble::Answer("an error"));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| Trouble::Silent)? {
            if body.len() + chunk.len() > LARGEST {
                return Err(Trouble::Answer("too long"));
            }
            body.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&body).map_err(|_| Trouble::Answer("not the JSON that is expected"))
    }
}
