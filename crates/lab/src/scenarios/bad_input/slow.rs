//! Visitors who connect and then say little or nothing, and for how long they are borne.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::portal::require_closed;
use super::stranger::Stranger;
use crate::probe::tls::Talk;
use crate::scenario::{Context, Target};
use crate::stage::Stage;

/// Connections without TLS.
const SILENT: usize = 100;

/// Limits of the portal (10 s for a handshake, 15 s for a request's head), and some.
const HANDSHAKE: Duration = Duration::from_secs(13);
const HEAD: Duration = Duration::from_secs(20);

/// Everybody who is still there.
#[derive(Debug)]
pub(super) struct Visitors {
    /// Half of them say nothing, half the beginning of a TLS handshake.
    without_tls: Vec<TcpStream>,
    /// With TLS: nothing, half a request, one request and then nothing.
    with_tls: Vec<(&'static str, Talk)>,
    since: Instant,
}

impl Visitors {
    pub(super) fn arrive(stage: &Stage, stranger: &Stranger) -> Result<Self> {
        let address = stage.portal.address();
        let mut without_tls = stranger
            .host
            .enter(|| (0..SILENT).map(|_| TcpStream::connect(address)).collect::<Result<Vec<_>, _>>())??;
        for stream in without_tls.iter_mut().step_by(2) {
            // A record of 512 bytes, of which few come.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1])?;
        }
        let said: [(&str, &[u8]); 3] = [
            ("nothing", b""),
            ("half a head", b"GET /v1/client HTTP/1.1\r\nHost: por"),
            ("one request", b"GET /healthz HTTP/1.1\r\nHost: portal\r\n\r\n"),
        ];
        let with_tls = said
            .into_iter()
            .map(|(name, said)| Ok((name, Talk::begin(&stranger.host, &stage.portal, said.to_vec())?)))
            .collect::<Result<_>>()?;
        Ok(Self { without_tls, with_tls, since: Instant::now() })
    }

    /// Requires that the portal has sent everybody away.
    pub(super) fn require_dismissed(mut self, context: &mut Context) -> Result<()> {
        for stream in &mut self.without_tls {
            let left = HANDSHAKE.saturating_sub(self.since.elapsed()).max(Duration::from_millis(300));
            require_closed(stream, left).context("a visitor without TLS")?;
        }
        for (name, talk) in &mut self.with_tls {
            let gone = talk.wait_closed(HEAD)?;
            gone.with_context(|| format!("a visitor who says {name} stays; heard: {}", talk.heard()))?;
        }
        let count = self.without_tls.len() + self.with_tls.len();
        context.record("slow visitors sent away", count as f64, "connections", Target::Shown);
        Ok(())
    }
}
