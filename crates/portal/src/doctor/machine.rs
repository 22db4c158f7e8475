//! What lies outside the database: files, disk, certificate, and the way to the portal.

use std::path::Path;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use url::Url;

use super::Check;
use crate::clock;
use crate::data_dir::DataDir;

/// With less, a database soon cannot grow.
const LITTLE_SPACE: u64 = 1024 * 1024 * 1024;

/// With less, it soon fails.
const NO_SPACE: u64 = 64 * 1024 * 1024;

/// A certificate that is valid for less should have been replaced.
const SOON: i64 = 14 * 24 * 60 * 60;

/// How long the portal has to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Whether the secrets can be read by their owner alone.
#[cfg(unix)]
pub(super) fn permissions(directory: &DataDir) -> Check {
    use std::os::unix::fs::PermissionsExt as _;
    const NAME: &str = "files";
    let mut open = Vec::new();
    for name in directory.files().filter(|name| name.starts_with("secrets/") || name.ends_with(".key")) {
        match std::fs::metadata(directory.path(name)) {
            Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => open.push(name),
            Ok(_) => {}
            Err(error) => return Check::failed(NAME, format!("cannot read {name}: {error}")),
        }
    }
    if let Err(error) = directory.secrets() {
        return Check::failed(NAME, format!("{error:#}"));
    }
    if open.is_empty() {
        Check::ok(NAME, "secrets are there and can be read by their owner alone")
    } else {
        Check::failed(NAME, format!("others can read {}; `chmod 600` them", open.join(", ")))
    }
}

#[cfg(not(unix))]
pub(super) fn permissions(directory: &DataDir) -> Check {
    match directory.secrets() {
        Ok(_) => Check::ok("files", "secrets are there"),
        Err(error) => Check::failed("files", format!("{error:#}")),
    }
}

/// Whether there is room to grow.
#[cfg(unix)]
pub(super) fn disk(path: &Path) -> Check {
    const NAME: &str = "disk";
    match nix::sys::statvfs::statvfs(path) {
        Ok(stat) => judge_space(stat.blocks_available().saturating_mul(stat.fragment_size())),
        Err(error) => Check::failed(NAME, format!("cannot look at {}: {error}", path.display())),
    }
}

#[cfg(not(unix))]
pub(super) fn disk(_: &Path) -> Check {
    Check::skipped("disk", "not looked at on this system")
}

#[cfg_attr(not(unix), expect(dead_code, reason = "the disk is not looked at there"))]
fn judge_space(bytes: u64) -> Check {
    let detail = format!("{} MiB free", bytes / (1024 * 1024));
    match bytes {
        0..NO_SPACE => Check::failed("disk", detail),
        NO_SPACE..LITTLE_SPACE => Check::warning("disk", detail),
        _ => Check::ok("disk", detail),
    }
}

/// How long the certificate is still valid.
pub(super) fn certificate(path: &Path) -> Check {
    const NAME: &str = "certificate";
    let end = CertificateDer::from_pem_file(path).map_err(|error| error.to_string()).and_then(|der| {
        let parsed = x509_parser::parse_x509_certificate(&der).map_err(|error| error.to_string())?;
        Ok(parsed.1.validity().not_after.timestamp())
    });
    match end {
        Ok(end) => judge_validity(end - clock::now_ms() / 1000),
        Err(error) => Check::failed(NAME, format!("cannot read {}: {error}", path.display())),
    }
}

fn judge_validity(left: i64) -> Check {
    const NAME: &str = "certificate";
    let days = left / (24 * 60 * 60);
    match left {
        ..=0 => Check::failed(NAME, "expired; no peer can connect"),
        1..SOON => Check::warning(NAME, format!("valid for {days} days only")),
        _ => Check::ok(NAME, format!("valid for {days} days")),
    }
}

/// Whether the portal answers where peers look for it.
pub(super) async fn reachability(url: Option<&Url>, directory: &DataDir) -> Check {
    const NAME: &str = "reachable";
    let Some(url) = url else { return Check::skipped(NAME, "no URL is known; give --url") };
    match ask(url, directory).await {
        Ok(200) => Check::ok(NAME, format!("{url} answers")),
        Ok(status) => Check::failed(NAME, format!("{url} answers with status {status}")),
        Err(error) => Check::failed(NAME, format!("{url} does not answer: {error:#}")),
    }
}

async fn ask(url: &Url, directory: &DataDir) -> anyhow::Result<u16> {
    let mut client = reqwest::Client::builder().timeout(ANSWER_TIME);
    if let Ok(authority) = std::fs::read(directory.tls("ca.pem")) {
        client = client.tls_certs_merge([reqwest::Certificate::from_pem(&authority)?]);
    }
    let answer = client.build()?.get(url.join("/healthz")?).send().await?;
    Ok(answer.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn space_and_time_run_out_in_steps() {
        assert_eq!(judge_space(10 * LITTLE_SPACE).state, State::Ok);
        assert_eq!(judge_space(LITTLE_SPACE - 1).state, State::Warning);
        assert_eq!(judge_space(0).state, State::Failed);
        assert_eq!(judge_validity(SOON).state, State::Ok);
        assert_eq!(judge_validity(SOON - 1).state, State::Warning);
        assert_eq!(judge_validity(0).state, State::Failed);
    }
}
