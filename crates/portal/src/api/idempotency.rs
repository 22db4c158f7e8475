//! `Idempotency-Key` on POST: a request that is repeated with the same key is answered as the first was, and done once.
//!
//! The key belongs to a token for a day, together with a digest of the request. The same key with another request is
//! refused (422), and so is a repetition while the first is still being worked on (409). Answers of the portal's own
//! failures are not kept, so that they can be tried again. Kept answers are encrypted: some hold the text of a new token.

use aws_lc_rs::digest;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::permission::Admin;
use super::{Failure, MAX_BODY};
use crate::portal::SharedPortal;
use crate::store::{Claim, Keyed};

/// The name of the header.
pub(super) const HEADER: &str = "idempotency-key";

/// The longest key.
const LONGEST_KEY: usize = 200;

/// The longest answer that is kept.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

/// Answers a repeated request without doing it again.
pub(super) async fn once(State(portal): State<SharedPortal>, request: Request, next: Next) -> Response {
    let is_keyed = request.method() == Method::POST && request.headers().contains_key(HEADER);
    if !is_keyed {
        return next.run(request).await;
    }
    // A task of its own: whoever hangs up in the middle finds the answer when asking again.
    let done = tokio::spawn(async move { keyed(&portal, request, next).await });
    match done.await {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => failure.into_response(),
        Err(error) => Failure::internal(error).into_response(),
    }
}

async fn keyed(portal: &SharedPortal, request: Request, next: Next) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let admin = parts.extensions.get::<Admin>().cloned();
    let admin = admin.ok_or_else(|| Failure::internal("an idempotency key of nobody"))?;
    let key = read_key(&parts.headers)?;
    let body = to_bytes(body, MAX_BODY).await;
    let body = body.map_err(|_| Failure::bad_request("the body is too long or was cut off"))?;
    let digest = digest_of(parts.uri.path_and_query().map_or("", |path| path.as_str()), &body);
    let keyed = Keyed { token: admin.token.token_id(), key: &key, digest: digest.as_ref() };
    match portal.store.claim(keyed).await? {
        Claim::New => {
            let response = next.run(Request::from_parts(parts, Body::from(body))).await;
            keep(portal, keyed, response).await
        }
        Claim::Answered(status, answer) => repeat(portal, status, &answer),
        Claim::Busy => Err(Failure::conflict("in_progress", "A request with this key is being worked on")),
        Claim::Different => Err(Failure::key_reused()),
        Claim::Full => {
            Err(Failure::conflict("too_many_keys", "The token has used too many keys within a day"))
        }
    }
}

fn read_key(headers: &axum::http::HeaderMap) -> Result<String, Failure> {
    let text = headers.get(HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if text.is_empty() || text.len() > LONGEST_KEY || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Failure::bad_request("an idempotency key has 1 to 200 visible ASCII characters"));
    }
    Ok(text.to_owned())
}

fn digest_of(path: &str, body: &Bytes) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(path.as_bytes());
    context.update(b"\n");
    context.update(body);
    context.finish()
}

/// Keeps what was answered and passes it on.
async fn keep(portal: &SharedPortal, keyed: Keyed<'_>, response: Response) -> Result<Response, Failure> {
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, LONGEST_ANSWER).await.map_err(Failure::internal)?;
    let text = String::from_utf8(body.to_vec()).ok().filter(|_| !parts.status.is_server_error());
    match text {
        Some(text) => {
            portal.store.remember(keyed, parts.status.as_u16(), portal.secrets.seal(&text)?).await?;
        }
        None => portal.store.forget(keyed).await?,
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn repeat(portal: &SharedPortal, status: i64, answer: &str) -> Result<Response, Failure> {
    let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
    let text = portal.secrets.open(answer);
    let (status, text) = status.zip(text).ok_or_else(|| Failure::internal("a kept answer cannot be read"))?;
    let media_type =
        if status.is_success() { "application/json" } else { adit_protocol::problem::MEDIA_TYPE };
    let mut response = (status, text).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    Ok(response)
}
