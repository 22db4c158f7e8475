//! The HTTP client of the ACME library: ours, with bounds.

use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::body::{self, Body, Bytes};
use axum::http::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

use super::Options;

/// An answer of the authority comes within this time.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// The largest answer: a chain of certificates has a few kilobytes.
const LARGEST_ANSWER: usize = 1024 * 1024;

/// Speaks to the authority.
pub(super) struct Client(reqwest::Client);

impl Client {
    pub(super) fn new(options: &Options) -> Result<Self> {
        let mut client = reqwest::Client::builder().timeout(ANSWER_TIME).https_only(true);
        if let Some(path) = &options.authority_ca {
            let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            client = client.tls_certs_merge([reqwest::Certificate::from_pem(&pem)?]);
        }
        Ok(Self(client.build()?))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = body::to_bytes(Body::new(body), usize::MAX)
                .await
                .map_err(|error| Error::Other(Box::new(error)))?;
            let request = reqwest::Request::try_from(Request::from_parts(parts, body)).map_err(other)?;
            answer(client.execute(request).await.map_err(other)?).await
        })
    }
}

async fn answer(mut answer: reqwest::Response) -> Result<BytesResponse, Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(other)? {
        if body.len() + chunk.len() > LARGEST_ANSWER {
            return Err(Error::Str("the answer of the authority is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    let (parts, ()) = response.into_parts();
    Ok(BytesResponse { parts, body: Box::new(Bytes::from(body)) })
}

fn other(error: reqwest::Error) -> Error {
    Error::Other(Box::new(error))
}
