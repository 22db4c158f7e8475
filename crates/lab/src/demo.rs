//! The whole system at work, step by step, for a person to watch.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::link::Profile;
use crate::logs::{self, Expectations};
use crate::stage::{MONTH, PRIVATE_NAME, PRIVATE_NETWORK, Stage};
use crate::steps::Steps;
use crate::system::Programs;
use crate::topology::Options;

const LIMIT: Duration = Duration::from_secs(30);

/// What to show and where to put the logs.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The programs to show.
    pub programs: Programs,
    /// Directory for all logs; a subdirectory for each pass.
    pub log_dir: PathBuf,
    /// Leave the first pass running at its end, until Ctrl-C.
    pub keep: bool,
}

/// Shows direct paths, then the relay; the steps tell whether all went well.
///
/// With `keep` the first pass ends before anything is revoked or stopped, and its stage is returned as well.
pub fn run(plan: &Plan) -> (Steps, Option<Stage>) {
    let mut steps = Steps::new();
    steps.heading("Direct: client and gateway meet through their NATs");
    let kept = match pass(&mut steps, plan, false) {
        // What went wrong was shown as a failed step.
        Err(_) => None,
        Ok(Some(stage)) => Some(stage),
        Ok(None) => {
            steps.heading("Relayed: the same with direct paths blocked");
            pass(&mut steps, plan, true).unwrap_or_default()
        }
    };
    (steps, kept)
}

/// One pass; the stage when it is to be kept.
fn pass(steps: &mut Steps, plan: &Plan, relayed: bool) -> Result<Option<Stage>> {
    let log_dir = plan.log_dir.join(if relayed { "relayed" } else { "direct" });
    let link = Some(Profile::delay_ms(10));
    let options = Options { client_link: link, gateway_link: link, ..Options::default() };
    let mut stage = steps.run("world raised, portal bootstrapped", || {
        let stage = Stage::raise(&options, &plan.programs, &log_dir)?;
        if relayed {
            stage.topology.direct_paths.block()?;
        }
        Ok((stage, "client and gateway are 40 ms apart, there and back".to_owned()))
    })?;
    bring_up(steps, &mut stage)?;
    show_traffic(steps, &stage, if relayed { "relayed" } else { "direct" })?;
    show_restart(steps, &mut stage)?;
    if plan.keep {
        return Ok(Some(stage));
    }
    show_revocation(steps, &stage)?;
    steps.run("everything stopped, nothing left behind", || Ok((stage.close()?, String::new())))?;
    steps.run("logs are JSON without warnings", || {
        let report = logs::check(&log_dir, &Expectations::none())?;
        report.require_clean()?;
        Ok(((), format!("{} lines in {} files", report.lines, report.files)))
    })?;
    Ok(None)
}

fn bring_up(steps: &mut Steps, stage: &mut Stage) -> Result<()> {
    steps.run("portal up", || Ok((stage.portal.start()?, stage.portal.admin_url())))?;
    steps.run("relay up", || Ok((stage.start_relays()?, String::new())))?;
    steps.run("site, resources, policies made", || {
        Ok((stage.grant_access()?, format!("{PRIVATE_NETWORK} and {PRIVATE_NAME}")))
    })?;
    steps.run("gateway up", || Ok((stage.start_gateways()?, String::new())))?;
    steps.run("client daemon up", || Ok((stage.start_clients()?, String::new())))?;
    steps.run("signed in and online", || Ok((stage.sign_in(MONTH)?, String::new())))
}

fn show_traffic(steps: &mut Steps, stage: &Stage, kind: &str) -> Result<()> {
    for (name, url) in [
        ("private page by address, cold", stage.page_by_address()),
        ("private page by name", stage.page_by_name()),
    ] {
        steps.run(name, || Ok((stage.open_page(&url)?, url.clone())))?;
    }
    steps.run(&format!("path is {kind}"), || {
        let (status, _) = stage.client().wait_for_path(kind, LIMIT)?;
        let remote = status.connections.first().and_then(|connection| connection.remote.clone());
        Ok(((), remote.unwrap_or_default()))
    })
}

fn show_restart(steps: &mut Steps, stage: &mut Stage) -> Result<()> {
    steps.run("gateway stopped with SIGTERM", || {
        let took = stage.gateways[0].stop()?;
        Ok(((), format!("exit 0 after {} ms", took.as_millis())))
    })?;
    steps
        .run("client knows at once", || Ok((stage.client().wait_for_no_connection(LIMIT)?, String::new())))?;
    steps.run("gateway started again", || Ok((stage.gateways[0].start()?, String::new())))?;
    steps.run("private page again", || {
        let url = stage.page_by_address();
        Ok((stage.open_page(&url)?, url))
    })?;
    Ok(())
}

fn show_revocation(steps: &mut Steps, stage: &Stage) -> Result<()> {
    let probe = steps.run("200 datagrams a second flow", || {
        let probe = stage.probe(200)?;
        let first = probe.wait_for_reply_after(Instant::now(), LIMIT)?;
        Ok((probe, format!("first reply after {} ms", first.as_millis())))
    })?;
    let called = Instant::now();
    steps.run("access revoked", || {
        for policy in &stage.access.policies {
            stage.portal.delete_policy(policy)?;
        }
        Ok(((), String::new()))
    })?;
    steps.run("packets stopped", || {
        probe.wait_for_silence(Duration::from_secs(1), LIMIT)?;
        let last = stage.echo.last_received().map(|(at, _)| at.saturating_duration_since(called));
        Ok(((), format!("last one {} ms after the call", last.unwrap_or_default().as_millis())))
    })?;
    steps.run("peer removed", || {
        stage.client().wait_for_no_connection(LIMIT)?;
        ensure!(stage.portal.authorizations()?.is_empty(), "authorizations are left");
        Ok(((), String::new()))
    })
}

/// Says how to use what runs, and waits for Ctrl-C, which takes it down.
pub fn keep(stage: &Stage) -> ! {
    let client = stage.client().host().namespace();
    println!("\nIt keeps running until Ctrl-C. From another terminal, as root:\n");
    println!("  ip netns exec {client} curl http://{PRIVATE_NAME}/");
    println!("  ip netns exec {client} curl {}", stage.page_by_address());
    println!("  ip netns exec {client} {} status", stage.client().command_line());
    println!("  ip netns exec {} \\", stage.topology.portal.host.namespace());
    println!("      {} authorization list \\", stage.portal.program().display());
    println!("      --url {} --ca {} \\", stage.portal.admin_url(), stage.portal.ca_file().display());
    println!("      --token {}", stage.portal.admin_token());
    println!("\nLogs: {}", stage.topology.world.log_dir().display());
    loop {
        std::thread::park();
    }
}
