//! Everything that a TURN server must refuse: our relay's codes and coturn's, beside those of the RFCs.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::ground::{Ground, Machine};
use super::turn_servers::{Options, SECRET, Server, Servers, Transport};
use crate::process;
use crate::scenario::{Context, Target};
use crate::world::Host;

/// Allocations of one user, and of all together: few, so that limits are soon reached.
const QUOTA: &str = "4";
const CAPACITY: usize = 40;

const LIMIT: Duration = Duration::from_secs(90);

/// A case, and what came of it.
#[derive(Clone, Debug, Deserialize)]
struct Answer {
    case: String,
    expected: u16,
    section: String,
    /// 0 is success; nothing is no answer.
    answer: Option<u16>,
    /// Why it could not even be asked.
    failure: Option<String>,
}

pub(crate) fn turn_errors(context: &mut Context) -> Result<()> {
    let ground = Ground::raise(["adit", "coturn", "client", "peer"], context.log_dir())?;
    let [adit, coturn, client, peer] = &ground.machines;
    let [first, last] = [50_000, 50_000 + CAPACITY - 1].map(|port| port.to_string());
    let ports = ["--min-port", &first, "--max-port", &last];
    let ours = [&ports[..], &["--max-allocations-per-user", QUOTA]].concat();
    let theirs = [&ports[..], &["--user-quota", QUOTA]].concat();
    let options = Options { adit: &ours, coturn: &theirs };
    let servers = Servers::start([adit, coturn], &context.programs, options)?;
    let ask = |server: &Machine| ask(&client.host, server, peer, context);
    let (ours, theirs) = (ask(adit)?, ask(coturn)?);
    ensure!(ours.len() == theirs.len(), "not the same cases");
    let wrong = ours.iter().filter(|answer| answer.answer != Some(answer.expected)).count();
    show(&ours, &theirs);
    context.record("cases", ours.len() as f64, "requests", Target::AtLeast(20.0));
    context.record("adit-relay: other codes than the RFCs'", wrong as f64, "requests", Target::AtMost(0.0));
    let wrong = theirs.iter().filter(|answer| answer.answer != Some(answer.expected)).count();
    context.record("coturn: other codes than the RFCs'", wrong as f64, "requests", Target::Shown);
    servers.adit.stop().map(drop)
}

fn ask(client: &Host, server: &Machine, peer: &Machine, context: &Context) -> Result<Vec<Answer>> {
    let mut command = client.command(context.programs.example("turn-errors"));
    command
        .args(["--server", &server.v4(Transport::Udp.port()).to_string(), "--secret", SECRET])
        .args(["--peer", &peer.address.v4.to_string(), "--other-peer", &peer.address.v6.to_string()])
        .args(["--quota", QUOTA, "--capacity", &CAPACITY.to_string()]);
    let finished = process::finish(command, LIMIT)?;
    serde_json::from_str(&finished.stdout).with_context(|| format!("turn-errors: {}", finished.complaint()))
}

/// Every case; where the two differ, a mark.
fn show(ours: &[Answer], theirs: &[Answer]) {
    let code = |answer: &Answer| match (answer.answer, &answer.failure) {
        (Some(0), _) => "granted".to_owned(),
        (Some(code), _) => code.to_string(),
        (None, Some(_)) => "not asked".to_owned(),
        (None, None) => "silence".to_owned(),
    };
    let (adit, coturn) = (Server::Adit.name(), Server::Coturn.name());
    println!("  {:<46} {:<12} {:>4} {adit:>10} {coturn:>8}", "request", "RFC, section", "code");
    for (our, their) in ours.iter().zip(theirs) {
        let mark = if our.answer == their.answer { "" } else { "  differ" };
        println!(
            "  {:<46} {:<12} {:>4} {:>10} {:>8}{mark}",
            our.case,
            our.section,
            our.expected,
            code(our),
            code(their)
        );
        for failure in [&our.failure, &their.failure].into_iter().flatten() {
            println!("      {failure}");
        }
    }
}
