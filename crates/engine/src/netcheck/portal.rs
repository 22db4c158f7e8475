//! The portal: whether it answers over HTTPS, and what time it has.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_control_client::connect_first;
use anyhow::{Context as _, bail};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::{Attempt, Trusted, timed};
use crate::PortalConfig;
use crate::dial::MarkedDial;

/// More than any header of ours.
const LONGEST_HEADER: usize = 8 << 10;

/// Asks for the portal's health; how far our clock is ahead of it in milliseconds, if it says the time.
pub(super) async fn probe(
    dial: MarkedDial,
    trusted: &Trusted,
    config: &PortalConfig,
) -> (Attempt, Option<i64>) {
    let mut clock_ahead_ms = None;
    let attempt = async {
        let header = header(dial, trusted, config).await?;
        clock_ahead_ms = date(&header).map(|portal_ms| now_ms().saturating_sub(portal_ms));
        Ok(())
    };
    let attempt = timed(attempt).await;
    (attempt, clock_ahead_ms)
}

async fn header(dial: MarkedDial, trusted: &Trusted, config: &PortalConfig) -> anyhow::Result<String> {
    let url = &config.url;
    let host = url.host_str().context("the portal's address has no host")?.trim_matches(['[', ']']);
    let is_plain = matches!(url.scheme(), "http" | "ws");
    let port = url.port_or_known_default().context("the portal's address has no port")?;
    let addresses =
        tokio::net::lookup_host((host, port)).await.with_context(|| format!("no address for {host}"))?;
    let stream = connect_first(&dial, addresses.collect()).await.context("TCP")?;
    let path = format!("{}/healthz", url.path().trim_end_matches('/'));
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    if is_plain {
        return ask(stream, &request).await;
    }
    let name = ServerName::try_from(host.to_owned()).context("the portal's host is no name")?;
    let connector = TlsConnector::from(std::sync::Arc::clone(trusted));
    ask(connector.connect(name, stream).await.context("TLS")?, &request).await
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> anyhow::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(1024);
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        if answer.len() > LONGEST_HEADER || stream.read_buf(&mut answer).await? == 0 {
            bail!("something answered that is no web server");
        }
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    if !text.starts_with("HTTP/1.") {
        bail!("something answered that is no web server");
    }
    Ok(text)
}

/// The time in a header (RFC 9110, 6.6.1), in Unix milliseconds: the middle of the second it names.
fn date(header: &str) -> Option<i64> {
    let field = header.lines().take_while(|line| !line.is_empty()).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("date").then_some(value.trim())
    })?;
    let time = jiff::fmt::rfc2822::parse(field).ok()?;
    Some(time.timestamp().as_millisecond().saturating_add(500))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_found_whatever_its_letters() {
        let header = "HTTP/1.1 200 OK\r\nServer: x\r\ndAtE: Sat, 28 Nov 2026 05:12:32 GMT\r\n\r\nDate: no";
        assert_eq!(date(header), Some(1_795_842_752_500));
        assert_eq!(date("HTTP/1.1 200 OK\r\nDate: yesterday\r\n\r\n"), None);
        assert_eq!(
            date("HTTP/1.1 200 OK\r\n\r\nDate: Sat, 28 Nov 2026 05:12:32 GMT"),
            None,
            "not in the body"
        );
    }
}
