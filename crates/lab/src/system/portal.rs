//! The portal: bootstrapped on SQLite, served, and administered with its own subcommands.

use std::ffi::OsStr;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Programs, READY_LIMIT, STOP_LIMIT, StateDir, health, text};
use crate::process::{Process, Signal, Spawn};
use crate::world::Host;

const PORT: u16 = 443;

/// Longest time an administrative command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(20);

/// A bootstrapped portal and its administrator.
#[derive(Debug)]
pub struct Portal {
    program: PathBuf,
    host: Host,
    data_dir: PathBuf,
    address: SocketAddr,
    admin_token: String,
    relay_token: String,
    ca_file: PathBuf,
    process: Option<Process>,
}

impl Portal {
    /// Creates the account, tokens and certificates; nothing runs yet.
    ///
    /// # Errors
    /// When `adit-portal bootstrap` fails or prints something unexpected.
    pub fn bootstrap(host: &Host, address: IpAddr, programs: &Programs, state: &StateDir) -> Result<Self> {
        let program = programs.path("adit-portal");
        let data_dir = state.of("portal")?;
        let address = SocketAddr::new(address, PORT);
        let url = format!("https://{address}");
        let printed = run_json(
            host,
            &program,
            [
                "bootstrap".as_ref(),
                "--data-dir".as_ref(),
                data_dir.as_os_str(),
                "--url".as_ref(),
                url.as_ref(),
                "--json".as_ref(),
            ],
        )?;
        Ok(Self {
            program,
            host: host.clone(),
            data_dir,
            address,
            admin_token: text(&printed, "admin_token")?,
            relay_token: text(&printed, "relay_token")?,
            ca_file: text(&printed, "ca_file")?.into(),
            process: None,
        })
    }

    /// Serves, and waits until it is ready; returns the time that took.
    ///
    /// # Errors
    /// When it ends or does not become ready.
    pub fn start(&mut self) -> Result<Duration> {
        let any: IpAddr = if self.address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let spawn = Spawn::new("adit-portal", &self.program)
            .args(["serve", "--data-dir"])
            .arg(&self.data_dir)
            .args(["--listen", &SocketAddr::new(any, PORT).to_string(), "--health", &health().to_string()])
            .arg("--log-dir")
            .arg(self.host.log_dir()?);
        let mut process = self.host.spawn(&spawn)?;
        let took = process.wait_healthy(health(), "/readyz", READY_LIMIT)?;
        self.process = Some(process);
        Ok(took)
    }

    /// Stops it with SIGTERM and requires exit status 0.
    ///
    /// # Errors
    /// When it does not run, or does not stop in order.
    pub fn stop(&mut self) -> Result<Duration> {
        self.process.take().context("the portal does not run")?.stop(STOP_LIMIT)
    }

    /// The running program.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// The program, for a person to type.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Address of its API and of the control connections.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What peers are told: `wss://…`.
    pub fn peer_url(&self) -> String {
        format!("wss://{}", self.address)
    }

    /// What administrators are told: `https://…`.
    pub fn admin_url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Certificate of the authority that signed the portal's own.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Token for relays.
    pub fn relay_token(&self) -> &str {
        &self.relay_token
    }

    /// Token of the first administrator.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// Runs an administrative subcommand, such as `["site", "create", "--name", "lab"]`, and returns its JSON.
    ///
    /// # Errors
    /// When the command fails; its message is passed on.
    pub fn admin(&self, command: &[&str]) -> Result<Value> {
        let url = self.admin_url();
        let mut arguments: Vec<&OsStr> = command.iter().map(OsStr::new).collect();
        let connection = ["--url", &url, "--token", &self.admin_token, "--json", "--ca"];
        arguments.extend(connection.iter().map(OsStr::new));
        arguments.push(self.ca_file.as_os_str());
        run_json(&self.host, &self.program, arguments)
    }

    /// As [`Portal::admin`] for a command that makes something; returns its id.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn create(&self, command: &[&str]) -> Result<String> {
        text(&self.admin(command)?, "id")
    }

    /// Makes a site.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn create_site(&self, name: &str) -> Result<String> {
        self.create(&["site", "create", name])
    }

    /// Makes a resource; the form of `address` says what kind it is: name pattern, address or network.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn create_resource(&self, site: &str, name: &str, address: &str) -> Result<String> {
        let kind = match (address.parse::<IpAddr>(), address.contains('/')) {
            (Ok(_), _) => "ip",
            (Err(_), true) => "cidr",
            (Err(_), false) => "dns",
        };
        self.create(&["resource", "create", name, "--type", kind, "--site", site, "--address", address])
    }

    /// Lets a group reach a resource.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn create_policy(&self, group: &str, resource: &str) -> Result<String> {
        self.create(&["policy", "create", "--group", group, "--resource", resource])
    }

    /// Makes a group.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn create_group(&self, name: &str) -> Result<String> {
        self.create(&["group", "create", name])
    }

    /// Makes a user who is in one group.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn create_actor(&self, name: &str, group: &str) -> Result<String> {
        let actor = self.create(&["actor", "create", name])?;
        self.admin(&["membership", "add", "--group", group, "--actor", &actor])?;
        Ok(actor)
    }

    /// Makes a token with which gateways of a site connect.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn create_gateway_token(&self, site: &str) -> Result<String> {
        text(&self.admin(&["token", "create", "gateway", "--site", site, "--name", "lab"])?, "token")
    }

    /// Makes a token with which a user's client signs in.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn create_client_token(&self, actor: &str, lifetime: Duration) -> Result<String> {
        let lifetime = format!("{}s", lifetime.as_secs());
        let command =
            ["token", "create", "client", "--actor", actor, "--name", "lab", "--expires-in", &lifetime];
        text(&self.admin(&command)?, "token")
    }

    /// Authorizations in force, as the API lists them.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn authorizations(&self) -> Result<Vec<Value>> {
        let listed = self.admin(&["authorization", "list"])?;
        let items = listed.get("items").unwrap_or(&listed);
        items.as_array().cloned().with_context(|| format!("not a list: {listed}"))
    }

    /// Revokes every authorization in force and returns how many there were.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn revoke_all(&self) -> Result<usize> {
        let authorizations = self.authorizations()?;
        for authorization in &authorizations {
            self.admin(&["authorization", "revoke", &text(authorization, "id")?])?;
        }
        Ok(authorizations.len())
    }

    /// The id of the resource with this name.
    ///
    /// # Errors
    /// As [`Portal::admin`], or when there is none.
    pub fn resource_named(&self, name: &str) -> Result<String> {
        let listed = self.admin(&["resource", "list"])?;
        let items = listed.get("items").unwrap_or(&listed).as_array().cloned().unwrap_or_default();
        let found = items.iter().find(|item| item.get("name").and_then(Value::as_str) == Some(name));
        text(found.with_context(|| format!("no resource is called {name}"))?, "id")
    }

    /// The ids of all policies.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn policies(&self) -> Result<Vec<String>> {
        let listed = self.admin(&["policy", "list"])?;
        let items = listed.get("items").unwrap_or(&listed).as_array().cloned().unwrap_or_default();
        items.iter().map(|item| text(item, "id")).collect()
    }

    /// A call of the API as it goes over the wire, with the administrator's token.
    pub fn request(&self, method: &str, path: &str, body: &str) -> String {
        format!(
            "{method} {path} HTTP/1.1\r\nhost: portal\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.admin_token,
            body.len()
        )
    }

    /// Ends it without any chance to tell anybody.
    ///
    /// # Errors
    /// When it does not run.
    pub fn crash(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the portal does not run")?;
        process.signal(Signal::SIGKILL)?;
        process.wait(STOP_LIMIT).map(drop)
    }

    /// Removes a policy, and with it what it granted.
    ///
    /// # Errors
    /// As [`Portal::admin`].
    pub fn delete_policy(&self, policy: &str) -> Result<()> {
        self.admin(&["policy", "delete", policy]).map(drop)
    }
}

fn run_json<'a>(
    host: &Host,
    program: &Path,
    arguments: impl IntoIterator<Item = &'a OsStr>,
) -> Result<Value> {
    let mut command = host.command(program);
    command.args(arguments);
    let finished = crate::process::finish(command, COMMAND_LIMIT)?;
    if !finished.success() {
        bail!("adit-portal ended with {}: {}", finished.status, finished.complaint());
    }
    if finished.stdout.trim().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&finished.stdout).with_context(|| format!("not JSON: {}", finished.stdout))
}
