//! The style, the scripts and the icon, compiled into the program.
//!
//! The name of each holds a digest of its content, so that browsers may keep it for ever.
//! `htmx-2.min.js` is htmx 2.0.11 as npm's package `htmx.org` has it, under the Zero-Clause BSD
//! licence in `htmx-LICENSE`.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};

/// A file that pages refer to.
#[derive(Debug)]
pub(super) struct Asset {
    path: String,
    kind: &'static str,
    content: &'static [u8],
}

impl Asset {
    fn new(stem: &str, ending: &str, kind: &'static str, content: &'static [u8]) -> Self {
        let digest = Sha256::digest(content);
        let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { path: format!("/assets/{stem}-{digest}.{ending}"), kind, content }
    }

    /// Where it is served.
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

const SCRIPT_KIND: &str = "text/javascript; charset=utf-8";

/// How the pages look.
pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("style", "css", "text/css; charset=utf-8", include_bytes!("../../assets/style.css"))
});

/// What the pages do beyond links and forms.
pub(super) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("script", "js", SCRIPT_KIND, include_bytes!("../../assets/script.js")));

/// Searching and suggestions while somebody types.
pub(super) static HTMX: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("htmx", "js", SCRIPT_KIND, include_bytes!("../../assets/htmx-2.min.js")));

/// The mark.
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../../assets/icon.svg")));

/// Answers with an asset. They hold nothing secret and need no session.
pub(super) async fn serve(Path(name): Path<String>) -> Response {
    let all = [&STYLE, &SCRIPT, &HTMX, &ICON];
    let Some(asset) = all.iter().find(|asset| asset.path.strip_prefix("/assets/") == Some(&name)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers =
        [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, asset.content).into_response()
}
