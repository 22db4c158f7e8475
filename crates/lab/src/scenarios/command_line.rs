//! What people and scripts do with `adit`: wait, look where something goes, read the log, ask a doctor, gather what
//! helps.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::nearby;
use crate::scenario::{Context, Target};
use crate::stage::{PRIVATE_NAME, Stage};
use crate::system::Client;

const ROUNDS: usize = 5;

pub(super) fn run(context: &mut Context) -> Result<()> {
    let stage = Stage::complete(&nearby(), context)?;
    let client = stage.client();
    routes(client, &stage)?;
    network(client)?;
    waits(client)?;
    logs(client)?;
    helps(client)?;
    bundle(client, &stage)?;
    for _ in 0..ROUNDS {
        let took = client.adit(&["status"])?.took;
        context.record_time("status_ms", took, Target::AtMost(250.0));
    }
    stage.close()
}

/// A name, an address of the network, and something that is nobody's, before and after a connection stands.
fn routes(client: &Client, stage: &Stage) -> Result<()> {
    let inside = stage.echo_address().ip().to_string();
    let said = |destination: &str| Ok::<_, anyhow::Error>(client.adit(&["route", destination])?.stdout);
    ensure!(said(PRIVATE_NAME)?.contains("goes to app, because"), "{}", said(PRIVATE_NAME)?);
    ensure!(said("192.0.2.200")?.contains("outside the tunnel"), "{}", said("192.0.2.200")?);
    client.adit(&["ping", "office network"])?;
    let text = said(&inside)?;
    ensure!(text.contains("goes to office network through") && text.contains("direct"), "{text}");
    let report: Value = serde_json::from_str(&client.adit(&["route", &inside, "--json"])?.stdout)?;
    ensure!(report["schema"] == 1 && report["resource"] == "office network", "{report}");
    Ok(())
}

/// Everything answers, nothing is translated on the way to relays, and the clock is the portal's.
fn network(client: &Client) -> Result<()> {
    let report: Value = serde_json::from_str(&client.adit(&["netcheck", "--json"])?.stdout)?;
    let worked = |attempt: &Value| attempt["worked_in_ms"].as_f64().is_some();
    ensure!(report["schema"] == 1 && worked(&report["portal"]), "{report}");
    ensure!(report["clock_ahead_ms"].as_i64().is_some_and(|ms| ms.abs() <= 2_000), "{report}");
    let relays = report["relays"].as_array().context("no relays")?;
    ensure!(!relays.is_empty() && relays.iter().all(|relay| worked(&relay["udp"])), "{report}");
    ensure!(report["ipv4"]["path_mtu"]["bytes"].as_u64() >= Some(1_280), "{report}");
    let text = client.adit(&["netcheck"])?.stdout;
    ensure!(text.lines().all(|line| line.chars().count() <= 80) && !text.contains("BAD"), "{text}");
    Ok(())
}

fn waits(client: &Client) -> Result<()> {
    client.adit(&["wait", "--for", "online"])?;
    client.adit(&["wait", "--for", "resource=office network", "--timeout", "20"])?;
    let code = |arguments: &[&str]| Ok::<_, anyhow::Error>(client.try_adit(arguments)?.status.code());
    ensure!(code(&["wait", "--for", "disconnected", "--timeout", "1"])? == Some(7), "it is online");
    ensure!(code(&["wait", "--for", "resource=nobody's", "--timeout", "1"])? == Some(7), "there is none");
    ensure!(code(&["wait", "--for", "nonsense"])? == Some(2), "nobody can wait for that");
    Ok(())
}

fn logs(client: &Client) -> Result<()> {
    let directory = client.adit(&["log", "path"])?.stdout;
    let expected = client.host().log_dir()?;
    ensure!(directory.trim() == expected.to_string_lossy(), "{directory} is not {}", expected.display());
    ensure!(client.adit(&["log", "tail"])?.stdout.contains("the daemon is ready"), "the log has an end");
    client.adit(&["log", "level", "debug"])?;
    let level = client.adit(&["log", "level"])?.stdout;
    ensure!(level.trim() == "debug", "{level}");
    ensure!(!client.try_adit(&["log", "level", "loud"])?.success(), "there is no such level");
    client.adit(&["log", "level", "info"])?;
    Ok(())
}

fn helps(client: &Client) -> Result<()> {
    let doctor = client.adit(&["doctor"])?.stdout;
    ensure!(doctor.contains("ok    daemon") && doctor.contains("ok    session"), "{doctor}");
    ensure!(doctor.lines().all(|line| line.chars().count() <= 120), "{doctor}");
    let help = client.adit(&["help", "e-no-token"])?.stdout;
    ensure!(help.contains("E-NO-TOKEN") && help.contains("adit login"), "{help}");
    ensure!(client.adit(&["help", "route"])?.stdout.contains("DESTINATION"), "commands have help too");
    ensure!(client.try_adit(&["help", "nonsense"])?.status.code() == Some(2), "nothing to explain");
    for shell in ["bash", "zsh", "fish"] {
        ensure!(client.adit(&["completion", shell])?.stdout.contains("adit"), "{shell}");
    }
    Ok(())
}

/// The bundle has everything in it, and no name, no address, and no token.
fn bundle(client: &Client, stage: &Stage) -> Result<()> {
    let directory = client.host().log_dir()?;
    let file = directory.join("bundle.zip");
    let path = file.to_string_lossy();
    let preview = client.adit(&["debug", "bundle", "--preview"])?.stdout;
    client.adit(&["debug", "bundle", "--output", &path])?;
    let mut command = client.host().command("python3");
    command.args(["-m", "zipfile", "-e", &path]).arg(directory.join("bundle"));
    let unpacked = crate::process::finish(command, Duration::from_secs(20))?;
    ensure!(unpacked.success(), "{}", unpacked.stderr);
    std::fs::remove_file(&file)?;
    let inside = directory.join("bundle/adit-debug");
    let secrets = ["ana", "office network", &stage.echo_address().ip().to_string()].map(str::to_owned);
    for name in preview.lines().filter_map(|line| line.split_whitespace().nth(1)) {
        let text = std::fs::read_to_string(inside.join(name)).with_context(|| format!("no {name}"))?;
        for secret in secrets.iter().chain([&stage.access.gateway_token]) {
            let says = words(&text).any(|word| word == secret) || secret.len() > 6 && text.contains(secret);
            ensure!(!says, "{name} says {secret}");
        }
    }
    ensure!(inside.join("logs/aditd.log").is_file() && inside.join("routes.txt").is_file(), "{preview}");
    std::fs::remove_dir_all(directory.join("bundle"))?;
    Ok(())
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| character.is_whitespace() || "\"',=/<>".contains(character))
}
