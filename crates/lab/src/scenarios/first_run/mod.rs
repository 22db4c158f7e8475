//! From nothing to a page through the tunnel, as somebody does it who has just installed the packages: one command for
//! the portal, everything else in the browser, and the two commands that its pages say for a gateway and for a device.
//!
//! The browser is a script that knows only what the pages show. Commands are taken from the pages; what systemd would do
//! with them, the lab does: it starts the program with the variables that the command writes into the service's file.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::probe::http;
use crate::probe::web::WebServer;
use crate::process::{Process, Spawn};
use crate::scenario::{Context, Target};
use crate::stage::{PRIVATE_NETWORK, PRIVATE_PAGE};
use crate::system::{Programs, StateDir, health};
use crate::topology::{Options, Topology};
use crate::world::Host;

const SCRIPT: &str = include_str!("browser.py");

/// Longest wait for a program, and for the page.
const LIMIT: Duration = Duration::from_secs(20);

/// Commands that a person types or copies: portal, gateway, device.
const COMMANDS: f64 = 3.0;

pub(super) fn run(context: &mut Context) -> Result<()> {
    let topology = Topology::raise(&Options { relays: 0, ..Options::lan() }, context.log_dir())?;
    let (site, client) = (&topology.sites[0], &topology.clients[0].host);
    let _web = WebServer::start(&site.web, 80, PRIVATE_PAGE)?;
    let state = StateDir::create()?;
    let machines = Machines { programs: &context.programs, state: &state };

    let begin = Instant::now();
    let (_portal, link) = machines.portal(&topology.portal.host, topology.portal.address.v4.into())?;
    let ca = state.of("portal")?.join("data/tls/ca.pem");
    let mut admin = Browser::start(client, &link, &ca, context.log_dir())?;
    admin.expect("admin_page")?;
    let admin_page = begin.elapsed();
    let command = admin.expect("gateway")?;
    let _gateway = machines.service("adit-gateway", &site.gateways[0].host, &command)?;
    let command = admin.expect("device")?;
    ensure!(command.trim_end().ends_with("adit login"), "the page says to run {command}");
    let _daemon = machines.service("aditd", client, &command)?;
    machines.log_in(client, &mut admin)?;
    let address = SocketAddr::new(site.web_address.v4.into(), 80);
    let page = http::fetch(client, &format!("http://{address}/"), LIMIT)?;
    let first_packet = begin.elapsed();
    ensure!(page.body == PRIVATE_PAGE, "another page came: {}", page.body);

    context.record_time("admin_page_ms", admin_page, Target::AtMost(10_000.0));
    context.record_time("first_packet_ms", first_packet, Target::AtMost(60_000.0));
    context.record("commands", COMMANDS, "commands", Target::AtMost(3.0));
    Ok(())
}

/// Machines on which the packages are installed.
struct Machines<'a> {
    programs: &'a Programs,
    state: &'a StateDir,
}

impl Machines<'_> {
    /// The first command; also the link that it prints.
    fn portal(&self, host: &Host, address: IpAddr) -> Result<(Process, String)> {
        let spawn = Spawn::new("adit-portal", self.programs.path("adit-portal"))
            .args(["serve", "--bootstrap", &format!("https://{address}"), "--listen", "0.0.0.0:443"])
            .arg("--data-dir")
            .arg(self.state.of("portal")?.join("data"))
            .args(["--health", &health().to_string(), "--log-dir"])
            .arg(host.log_dir()?);
        let mut process = host.spawn(&spawn)?;
        process.wait_healthy(health(), "/readyz", LIMIT)?;
        let output = process.output();
        let link = output.lines().map(str::trim).find(|line| line.contains("/welcome?"));
        let link = link.context("the portal prints no link")?.to_owned();
        Ok((process, link))
    }

    /// What systemd does when a service's file was written and the service enabled.
    fn service(&self, name: &str, host: &Host, command: &str) -> Result<Process> {
        let (_, file) = command.split_once("<<'X'\n").context("the command writes no file")?;
        let (file, _) = file.split_once("\nX\n").context("the file has no end")?;
        let directory = self.state.of(host.name())?;
        let mut spawn = Spawn::new(name, self.programs.path(name))
            .args(["--name", host.name(), "--health", &health().to_string(), "--state-dir"])
            .arg(&directory)
            .arg("--log-dir")
            .arg(host.log_dir()?);
        if name == "aditd" {
            // Never by the bus of the machine outside, whose resolver is none of our business.
            spawn =
                spawn.args(["--dns-control", "resolv-conf", "--socket"]).arg(directory.join("aditd.sock"));
        }
        for line in file.lines() {
            let (variable, value) = line.split_once('=').with_context(|| format!("no variable: {line}"))?;
            spawn = spawn.env(variable, value);
        }
        let mut process = host.spawn(&spawn)?;
        process.wait_healthy(health(), "/healthz", LIMIT)?;
        Ok(process)
    }

    /// The end of the third command: what `adit login` says is opened in the browser.
    fn log_in(&self, host: &Host, admin: &mut Browser) -> Result<()> {
        let socket = self.state.of(host.name())?.join("aditd.sock");
        let mut login = host
            .command(self.programs.path("adit"))
            .arg("--socket")
            .arg(socket)
            .args(["login", "--device-code"])
            .stdout(Stdio::piped())
            .spawn()
            .context("adit login")?;
        let output = login.stdout.take().context("no output")?;
        let mut lines = BufReader::new(output).lines();
        let page = lines.by_ref().map_while(Result::ok).find(|line| line.contains("/device?code="));
        admin.type_line(page.context("adit login names no page")?.trim())?;
        admin.expect("approved")?;
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let status = login.wait()?;
        ensure!(status.success(), "adit login ended with {status}: {}", rest.join("\n"));
        Ok(())
    }
}

/// The administrator.
struct Browser {
    process: Child,
    input: ChildStdin,
    output: std::io::Lines<BufReader<ChildStdout>>,
}

/// What the script says.
#[derive(Deserialize)]
struct Said {
    step: String,
    #[serde(default)]
    command: String,
}

impl Browser {
    fn start(host: &Host, link: &str, ca: &Path, log_dir: &Path) -> Result<Self> {
        let complaints = std::fs::File::create(log_dir.join("browser.stderr"))?;
        let mut process = host
            .command("python3")
            .args(["-c", SCRIPT, link])
            .arg(ca)
            .arg(PRIVATE_NETWORK)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .context("python3")?;
        let input = process.stdin.take().context("no input")?;
        let output = process.stdout.take().context("no output")?;
        Ok(Self { process, input, output: BufReader::new(output).lines() })
    }

    /// Waits until the script says that it has done this, and returns the command that it found.
    fn expect(&mut self, step: &str) -> Result<String> {
        let Some(line) = self.output.next().transpose()? else {
            bail!("the browser gave up before `{step}`; see browser.stderr");
        };
        let said: Said = serde_json::from_str(&line).with_context(|| line.clone())?;
        ensure!(said.step == step, "the browser said {line} when `{step}` was expected");
        Ok(said.command)
    }

    fn type_line(&mut self, line: &str) -> Result<()> {
        Ok(writeln!(self.input, "{line}")?)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
