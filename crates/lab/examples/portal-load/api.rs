//! The administrator's requests.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::Method;
use serde_json::{Value, json};

use crate::installation::Installation;

/// Requests under way at a time while an installation is filled.
const AT_ONCE: usize = 64;

/// The API of one portal.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    admin: String,
    base: String,
}

impl Api {
    pub(crate) fn new(installation: &Installation, address: SocketAddr) -> Result<Self> {
        let authority = reqwest::Certificate::from_pem(&installation.authority)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority])
            .timeout(Duration::from_secs(60))
            .build()?;
        Ok(Self { http, admin: installation.admin.clone(), base: format!("https://{address}/api/v1") })
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let mut request = self.http.request(method, format!("{}/{path}", self.base)).bearer_auth(&self.admin);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str) -> Result<()> {
        self.call(Method::PUT, path, None).await.map(drop)
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    /// Reads a page: how many items it has, and how long it took.
    pub(crate) async fn page(&self, path: &str) -> Result<(usize, Duration)> {
        let begun = Instant::now();
        let page = self.call(Method::GET, path, None).await?;
        let took = begun.elapsed();
        Ok((page["items"].as_array().context("a list")?.len(), took))
    }

    /// Posts many bodies, and picks a field of each answer.
    pub(crate) async fn post_many(&self, path: &str, bodies: Vec<Value>, field: &str) -> Result<Vec<String>> {
        let one = |body| async move {
            let made = self.post(path, body).await?;
            text(&made, field)
        };
        stream::iter(bodies).map(one).buffered(AT_ONCE).try_collect().await
    }

    pub(crate) async fn create(&self, path: &str, body: Value) -> Result<String> {
        text(&self.post(path, body).await?, "id")
    }

    /// Tokens for clients of an actor.
    pub(crate) async fn client_tokens(&self, actor: &str, count: u32) -> Result<Vec<String>> {
        let bodies = (0..count).map(|_| json!({ "kind": "client", "actor": actor })).collect();
        self.post_many("tokens", bodies, "token").await
    }
}

fn text(made: &Value, field: &str) -> Result<String> {
    Ok(made[field].as_str().with_context(|| format!("no {field} in {made}"))?.to_owned())
}
