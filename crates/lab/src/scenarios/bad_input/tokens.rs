//! Tokens that are wrong, expired or revoked: a clear message, the documented exit code, and no second try.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::stranger::Stranger;
use crate::probe::http;
use crate::process::{Finished, Process, Spawn};
use crate::scenario::{Context, Target};
use crate::stage::{MONTH, Stage};
use crate::system::{self, Client, Portal, Programs};

/// Exit code of every program for a token that the portal refuses.
const REFUSED: i32 = 4;

const LIMIT: Duration = Duration::from_secs(10);

/// Shortest lifetime of a token, and a time after which it is surely over.
const SHORT: Duration = Duration::from_secs(1);
const OVER: Duration = Duration::from_millis(1_500);

/// In this time nobody may come back with a refused token.
const QUIET: Duration = Duration::from_secs(1);

pub(super) fn present(stage: &Stage, stranger: &Stranger, context: &mut Context) -> Result<()> {
    let programs = context.programs.clone();
    let site = stage.portal.create_site("elsewhere")?;
    let bench = Bench { stage, stranger, programs: &programs, site };
    for kind in [Kind::Gateway, Kind::Relay] {
        for (fate, word) in [("wrong", "not know"), ("expired", "expired"), ("revoked", "revoked")] {
            let token = bench.token(kind, fate)?;
            let finished = stranger.finish(&bench.command_line(kind, &token)?, LIMIT)?;
            require_refused(&finished, word)
                .with_context(|| format!("{} with {fate} token", kind.program()))?;
            let name = format!("{}: {fate} token to exit", kind.program());
            context.record_time(&name, finished.took, Target::AtMost(5_000.0));
        }
        let took = bench.revoked_while_running(kind)?;
        let name = format!("{}: token revoked to exit", kind.program());
        context.record_time(&name, took, Target::AtMost(5_000.0));
    }
    bench.client(context).context("aditd")
}

/// Status, one line, and the word that tells the cause.
fn require_refused(finished: &Finished, word: &str) -> Result<()> {
    ensure!(finished.status.code() == Some(REFUSED), "{}: {}", finished.status, finished.complaint());
    let lines: Vec<&str> = finished.stderr.lines().collect();
    ensure!(lines.len() == 1 && lines[0].contains(word), "wanted one line with `{word}`: {lines:?}");
    Ok(())
}

/// Programs that end when their token is refused.
#[derive(Clone, Copy)]
enum Kind {
    Gateway,
    Relay,
}

impl Kind {
    const fn program(self) -> &'static str {
        match self {
            Self::Gateway => "adit-gateway",
            Self::Relay => "adit-relay",
        }
    }
}

struct Bench<'a> {
    stage: &'a Stage,
    stranger: &'a Stranger,
    programs: &'a Programs,
    site: String,
}

impl Bench<'_> {
    fn portal(&self) -> &Portal {
        &self.stage.portal
    }

    /// Makes a token; the id is for revoking it.
    fn create(&self, kind: Kind, lifetime: Duration) -> Result<(String, String)> {
        let mut command = vec!["token", "create"];
        match kind {
            Kind::Gateway => command.extend(["gateway", "--site", &self.site]),
            Kind::Relay => command.push("relay"),
        }
        self.created(&command, lifetime)
    }

    fn created(&self, command: &[&str], lifetime: Duration) -> Result<(String, String)> {
        let lifetime = format!("{}s", lifetime.as_secs());
        let made = self.portal().admin(&[command, &["--expires-in", &lifetime]].concat())?;
        Ok((system::text(&made, "id")?, system::text(&made, "token")?))
    }

    fn revoke(&self, id: &str) -> Result<()> {
        self.portal().admin(&["token", "revoke", id]).map(drop)
    }

    fn token(&self, kind: Kind, fate: &str) -> Result<String> {
        self.meet(fate, |lifetime| self.create(kind, lifetime))
    }

    /// A token that has met its fate.
    fn meet(&self, fate: &str, create: impl Fn(Duration) -> Result<(String, String)>) -> Result<String> {
        let (id, token) = create(if fate == "expired" { SHORT } else { MONTH })?;
        match fate {
            "expired" => std::thread::sleep(OVER),
            "revoked" => self.revoke(&id)?,
            _ => return Ok(forged(&token)),
        }
        Ok(token)
    }

    fn command_line(&self, kind: Kind, token: &str) -> Result<Vec<String>> {
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let host = &self.stranger.host;
        let token = self.stranger.state.write_secret("token", token)?;
        let state = self.stranger.state.of(kind.program())?;
        let mut line = vec![
            text(&self.programs.path(kind.program())),
            "--portal".into(),
            self.portal().peer_url(),
            "--ca".into(),
            text(self.portal().ca_file()),
            "--token-file".into(),
            text(&token),
            "--state-dir".into(),
            text(&state),
            "--health".into(),
            system::health().to_string(),
            "--log-dir".into(),
            text(&host.log_dir()?),
            "--name".into(),
            "stranger".into(),
        ];
        if matches!(kind, Kind::Relay) {
            line.extend(["--public-ipv4".into(), self.stranger.address.v4.to_string()]);
        }
        Ok(line)
    }

    /// A program with a good token runs; the token is revoked; the time until the program has ended.
    fn revoked_while_running(&self, kind: Kind) -> Result<Duration> {
        let (id, token) = self.create(kind, MONTH)?;
        let line = self.command_line(kind, &token)?;
        let spawn = Spawn::new(&format!("{}-revoked", kind.program()), &line[0]).args(&line[1..]);
        let mut process: Process = self.stranger.host.spawn(&spawn)?;
        process.wait_healthy(system::health(), "/readyz", LIMIT)?;
        self.revoke(&id)?;
        let revoked = Instant::now();
        let status = process.wait(LIMIT)?;
        let output = process.output();
        ensure!(status.code() == Some(REFUSED) && output.contains("revoked"), "{status}: {output}");
        Ok(revoked.elapsed())
    }

    /// The daemon stays, and says why it cannot go on.
    fn client(&self, context: &mut Context) -> Result<()> {
        let stranger = self.stranger;
        let client = Client::start_on(&stranger.host, self.portal(), self.programs, &stranger.state)?;
        let create = |lifetime| {
            let command = ["token", "create", "client", "--actor", &self.stage.access.actor];
            self.created(&command, lifetime)
        };
        for (fate, word) in [("wrong", "not know"), ("expired", "expired"), ("revoked", "ended")] {
            let token = self.meet(fate, create)?;
            let finished = self.sign_in(&client, &token)?;
            require_refused(&finished, word).with_context(|| format!("{fate} token"))?;
            context.record_time(&format!("adit up: {fate} token"), finished.took, Target::AtMost(5_000.0));
            self.require_blocked(&client, fate)?;
        }
        let (id, token) = create(MONTH)?;
        let finished = self.sign_in(&client, &token)?;
        ensure!(finished.success(), "a good token after bad ones: {}", finished.complaint());
        self.revoke(&id)?;
        let (_, took) = client.wait_for("blocked", LIMIT, |status| status.state == "blocked")?;
        context.record_time("aditd: token revoked to blocked", took, Target::AtMost(5_000.0));
        self.require_blocked(&client, "revoked")?;
        client.stop().map(drop)
    }

    fn sign_in(&self, client: &Client, token: &str) -> Result<Finished> {
        let file = self.stranger.state.write_secret("client.token", token)?;
        client.try_adit(&["up", "--token-file", &file.to_string_lossy(), "--wait"])
    }

    /// Requires that the status tells the fate, and that the portal hears nothing more from this daemon.
    fn require_blocked(&self, client: &Client, fate: &str) -> Result<()> {
        let status = client.status()?;
        let wanted = match fate {
            "wrong" => "invalid_token",
            "expired" => "expired_token",
            _ => "revoked_token",
        };
        ensure!(status.state == "blocked" && status.reason.as_deref() == Some(wanted), "{status:?}");
        let before = self.refusals()?;
        std::thread::sleep(QUIET);
        let again = self.refusals()? - before;
        ensure!(again == 0.0, "came back {again} times within {QUIET:?} with a {fate} token");
        Ok(())
    }

    /// Requests that the portal has refused so far.
    fn refusals(&self) -> Result<f64> {
        let host = self.portal().process().context("the portal does not run")?.host();
        let page = http::get(host, system::health(), "/metrics")?;
        let errors = page.body.lines().filter(|line| line.starts_with("adit_portal_http_errors_total"));
        Ok(errors.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum())
    }
}

/// The same token with another secret.
fn forged(token: &str) -> String {
    let last = if token.ends_with('A') { 'B' } else { 'A' };
    let mut forged: Vec<char> = token.chars().collect();
    // Not the very last: some of its bits may mean nothing.
    let at = forged.len().saturating_sub(8);
    if let Some(character) = forged.get_mut(at) {
        *character = if *character == last { 'C' } else { last };
    }
    forged.into_iter().collect()
}
