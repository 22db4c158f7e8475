//! Fetching pages: with `curl` as a user would, and with a bare request where only an answer is wanted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::world::Host;

/// Longest wait for each step of a bare request.
const STEP_LIMIT: Duration = Duration::from_secs(2);

/// A page fetched with `curl`.
#[derive(Clone, Debug)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// Body; bytes that are not UTF-8 replaced.
    pub body: String,
    /// Address the page came from.
    pub remote: String,
    /// Until the name was resolved.
    pub name_lookup: Duration,
    /// Until the connection stood.
    pub connect: Duration,
    /// Until the last byte.
    pub total: Duration,
}

#[derive(Deserialize)]
struct CurlTimes {
    http_code: u16,
    remote_ip: String,
    time_namelookup: f64,
    time_connect: f64,
    time_total: f64,
}

#[derive(Deserialize)]
struct CurlTotals {
    size_download: u64,
    time_total: f64,
}

/// Fetches `url` on `host`, through its resolver.
///
/// # Errors
/// When nothing came within `limit`; an HTTP error status is a page.
pub fn fetch(host: &Host, url: &str, limit: Duration) -> Result<Page> {
    let seconds = limit.as_secs_f64().to_string();
    let command =
        ["curl", "--silent", "--show-error", "--max-time", &seconds, "--write-out", "\n%{json}", url];
    let finished = host.finish(&command, limit + Duration::from_secs(5))?;
    if !finished.success() {
        bail!("{}: {url}: {}", host.name(), finished.complaint());
    }
    let (body, times) = finished.stdout.rsplit_once('\n').context("curl wrote no times")?;
    let times: CurlTimes = serde_json::from_str(times).context("reading curl's times")?;
    Ok(Page {
        status: times.http_code,
        body: body.to_owned(),
        remote: times.remote_ip,
        name_lookup: Duration::from_secs_f64(times.time_namelookup),
        connect: Duration::from_secs_f64(times.time_connect),
        total: Duration::from_secs_f64(times.time_total),
    })
}

/// Bytes fetched with `curl` and thrown away.
#[derive(Clone, Copy, Debug)]
pub struct Download {
    /// Bytes of the body.
    pub bytes: u64,
    /// Until the last byte.
    pub total: Duration,
}

impl Download {
    /// Millions of bits in a second.
    pub fn megabits_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e6 / self.total.as_secs_f64().max(1e-6)
    }
}

/// Fetches `url` on `host` without keeping it.
///
/// # Errors
/// When not all of it came within `limit`, or the HTTP status is an error.
pub fn download(host: &Host, url: &str, limit: Duration) -> Result<Download> {
    let seconds = limit.as_secs_f64().to_string();
    let command = ["curl", "--silent", "--show-error", "--fail", "--max-time", &seconds];
    let command = [&command[..], &["--output", "/dev/null", "--write-out", "%{json}", url]].concat();
    let finished = host.finish(&command, limit + Duration::from_secs(5))?;
    if !finished.success() {
        bail!("{}: {url}: {}", host.name(), finished.complaint());
    }
    let totals: CurlTotals = serde_json::from_str(&finished.stdout).context("reading curl's totals")?;
    Ok(Download { bytes: totals.size_download, total: Duration::from_secs_f64(totals.time_total) })
}

/// An answer to a bare request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Body; bytes that are not UTF-8 replaced.
    pub body: String,
}

/// `GET path` from `server` on `host`'s network, without TLS or redirects: for health endpoints.
///
/// # Errors
/// When the connection fails or the answer is not HTTP.
pub fn get(host: &Host, server: SocketAddr, path: &str) -> Result<Response> {
    let mut stream = host.enter(|| TcpStream::connect_timeout(&server, STEP_LIMIT))??;
    stream.set_read_timeout(Some(STEP_LIMIT))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    Ok(Response { status: status.context("no HTTP status")?, body: body.to_owned() })
}
