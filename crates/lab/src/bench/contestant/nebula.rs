//! Nebula: certificates of a throwaway authority, the gateway as lighthouse, the resource as an unsafe route.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{MTU, READY_LIMIT, Side, sides};
use crate::bench::affinity;
use crate::bench::ground::{self, Ground};
use crate::bench::implementation::Implementation;
use crate::process::{self, Process, Spawn};
use crate::system::StateDir;

const PEER: Implementation = Implementation::Nebula;

/// Longest wait for a tool that only computes.
const TOOL_LIMIT: Duration = Duration::from_secs(10);

/// Socket buffers in bytes, as its documentation recommends for speed.
const BUFFER: u32 = 8 << 20;

pub(super) fn start(ground: &Ground, program: &Path, state: &StateDir) -> Result<[Process; 2]> {
    let directory = state.of(PEER.name())?;
    let sides = sides(PEER, ground);
    let [client, gateway] = &sides;
    certify(program, &directory, client, gateway)?;
    let role = Role { name: "gateway", gateway: None };
    let mut gateway_end = launch(gateway, &role, program, &directory)?;
    wait_for_interface(&mut gateway_end, gateway)?;
    let role = Role { name: "client", gateway: Some(gateway) };
    let mut client_end = launch(client, &role, program, &directory)?;
    wait_for_interface(&mut client_end, client)?;
    Ok([client_end, gateway_end])
}

fn certify(program: &Path, directory: &Path, client: &Side<'_>, gateway: &Side<'_>) -> Result<()> {
    let tool = program.with_file_name("nebula-cert");
    let (client_network, gateway_network) = (format!("{}/24", client.inner), format!("{}/24", gateway.inner));
    let resource = format!("{}/32", ground::resource_address(PEER));
    let commands: [&[&str]; 3] = [
        &["ca", "-name", "bench"],
        &["sign", "-name", "client", "-ip", &client_network],
        &["sign", "-name", "gateway", "-ip", &gateway_network, "-subnets", &resource],
    ];
    for arguments in commands {
        let mut command = std::process::Command::new(&tool);
        command.args(arguments).current_dir(directory);
        let finished =
            process::finish(command, TOOL_LIMIT).with_context(|| format!("starting {}", tool.display()))?;
        if !finished.success() {
            bail!("nebula-cert {}: {}", arguments.join(" "), finished.complaint());
        }
    }
    Ok(())
}

/// What the two configurations differ in.
struct Role<'a> {
    name: &'static str,
    /// The gateway as the client knows it; `None` on the gateway itself.
    gateway: Option<&'a Side<'a>>,
}

impl Role<'_> {
    /// The lighthouse is the gateway. Neither end offers tunnels of others as a way to reach it.
    fn discovery(&self, side: &Side<'_>) -> String {
        let (map, hosts) = self.gateway.map_or_else(Default::default, |gateway| {
            let inner = gateway.inner;
            (format!("\"{inner}\": [\"{}\"]", side.other), format!("\"{inner}\""))
        });
        let is_lighthouse = self.gateway.is_none();
        let allowed = "local_allow_list: {interfaces: {'adit.*': false, 'tunnel.*': false}}";
        format!(
            "static_host_map: {{{map}}}
lighthouse: {{am_lighthouse: {is_lighthouse}, interval: 60, hosts: [{hosts}], {allowed}}}
"
        )
    }

    fn routes(&self) -> String {
        let resource = ground::resource_address(PEER);
        self.gateway.map_or_else(String::new, |gateway| {
            let via = gateway.inner;
            format!("{{route: \"{resource}/32\", via: \"{via}\", mtu: {MTU}}}")
        })
    }
}

fn launch(side: &Side<'_>, role: &Role<'_>, program: &Path, directory: &Path) -> Result<Process> {
    let file = directory.join(format!("{}.yml", role.name));
    fs::write(&file, configuration(side, role, directory))
        .with_context(|| format!("writing {}", file.display()))?;
    let spawn = Spawn::new(PEER.name(), program).arg("-config").arg(file);
    affinity::on(side.processor, || side.host.spawn(&spawn))
}

fn configuration(side: &Side<'_>, role: &Role<'_>, directory: &Path) -> String {
    let (directory, name) = (directory.display(), role.name);
    format!(
        "pki: {{ca: {directory}/ca.crt, cert: {directory}/{name}.crt, key: {directory}/{name}.key}}
{discovery}listen: {{host: 0.0.0.0, port: {port}, batch: 64, read_buffer: {BUFFER}, write_buffer: {BUFFER}}}
cipher: aes
punchy: {{punch: true}}
tun: {{dev: {interface}, mtu: {MTU}, tx_queue: 1000, unsafe_routes: [{routes}]}}
logging: {{level: error, format: text}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any, local_cidr: 0.0.0.0/0}}]
",
        discovery = role.discovery(side),
        routes = role.routes(),
        port = side.port,
        interface = side.interface,
    )
}

/// It brings the interface up and addresses it by itself.
fn wait_for_interface(process: &mut Process, side: &Side<'_>) -> Result<()> {
    let command = ["ip", "-4", "address", "show", "dev", &side.interface, "up"];
    process.wait_until("its interface", READY_LIMIT, |_| {
        side.host.run(&command).is_ok_and(|shown| shown.contains("inet "))
    })?;
    Ok(())
}
