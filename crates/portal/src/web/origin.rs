//! Whether a request that changes something was made by one of our own pages.
//!
//! Browsers say so in `Sec-Fetch-Site`, older ones in `Origin`. A request that says neither is
//! not from a browser that anybody signs in with, and is refused.

use axum::http::{HeaderMap, Method, header};
use url::Url;

/// Whether a method only reads.
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// Whether a request comes from a page of this portal. `public_url` is how it is reached, if
/// that is laid down: a proxy may have changed `Host`.
pub(super) fn is_our_own(headers: &HeaderMap, public_url: Option<&str>) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site == "same-origin";
    }
    let Some(origin) = headers.get(header::ORIGIN).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let Ok(origin) = Url::parse(origin) else { return false };
    let is_public = public_url
        .and_then(|url| Url::parse(url).ok())
        .is_some_and(|url| url.origin() == origin.origin() && url.origin().is_tuple());
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    is_public || host.is_some_and(|host| Some(host) == authority(&origin).as_deref())
}

fn authority(origin: &Url) -> Option<String> {
    let host = origin.host_str()?;
    Some(match origin.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// A path of this portal to go on to; anything else leads to `/`.
///
/// Browsers read `//host`, `/\host` and control characters in ways of their own.
pub(crate) fn local_path(next: Option<&str>) -> &str {
    let is_local = |next: &&str| {
        next.starts_with('/')
            && !next.starts_with("//")
            && next.len() <= 2048
            && next.bytes().all(|byte| (b'!'..=b'~').contains(&byte) && byte != b'\\')
    };
    next.filter(is_local).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_our_own_pages_may_change_something() {
        for (pairs, expected) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (
                &[("sec-fetch-site", "same-site"), ("origin", "https://adit.corp"), ("host", "adit.corp")],
                false,
            ),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "https://adit.corp"), ("host", "adit.corp")], true),
            (&[("origin", "https://adit.corp:8443"), ("host", "adit.corp:8443")], true),
            (&[("origin", "https://adit.corp:8443"), ("host", "adit.corp")], false),
            (&[("origin", "https://adit.corp.evil"), ("host", "adit.corp")], false),
            (&[("origin", "null"), ("host", "adit.corp")], false),
            (&[("origin", "https://portal.example"), ("host", "backend:8080")], true),
            (&[("host", "adit.corp")], false),
            (&[], false),
        ] {
            assert_eq!(is_our_own(&headers(pairs), Some("https://portal.example")), expected, "{pairs:?}");
        }
    }

    #[test]
    fn nobody_is_sent_elsewhere_after_signing_in() {
        assert_eq!(local_path(Some("/devices?page=2")), "/devices?page=2");
        for elsewhere in [
            "",
            "devices",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "/a\nb",
            "/\t/evil",
            "javascript:alert(1)",
            "/ü",
        ] {
            assert_eq!(local_path(Some(elsewhere)), "/", "{elsewhere}");
        }
        assert_eq!(local_path(None), "/");
    }
}
