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
    let mut gateway_end = launch(gateway, "gateway", program, &directory, &gateway_role(gateway))?;
    wait_for_interface(&mut gateway_end, gateway)?;
    let mut client_end = launch(client, "client", program, &directory, &client_role(client, gateway))?;
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

fn gateway_role(_gateway: &Side<'_>) -> String {
    "static_host_map: {}\nlighthouse: {am_lighthouse: true, interval: 60}\n".to_owned()
}

fn client_role(client: &Side<'_>, gateway: &Side<'_>) -> String {
    format!(
        "static_host_map: {{\"{inner}\": [\"{outer}\"]}}
lighthouse: {{am_lighthouse: false, interval: 60, hosts: [\"{inner}\"]}}
",
        inner = gateway.inner,
        outer = client.other,
    )
}

fn launch(side: &Side<'_>, name: &str, program: &Path, directory: &Path, role: &str) -> Result<Process> {
    let file = directory.join(format!("{name}.yml"));
    fs::write(&file, configuration(side, name, directory, role))
        .with_context(|| format!("writing {}", file.display()))?;
    let spawn = Spawn::new(PEER.name(), program).arg("-config").arg(file);
    affinity::on(side.processor, || side.host.spawn(&spawn))
}

fn configuration(side: &Side<'_>, name: &str, directory: &Path, role: &str) -> String {
    let directory = directory.display();
    let routes = if name == "client" {
        let (resource, last) = (ground::resource_address(PEER), side.inner.octets()[2]);
        format!(", unsafe_routes: [{{route: \"{resource}/32\", via: \"10.99.{last}.2\", mtu: {MTU}}}]")
    } else {
        String::new()
    };
    format!(
        "pki: {{ca: {directory}/ca.crt, cert: {directory}/{name}.crt, key: {directory}/{name}.key}}
{role}listen: {{host: 0.0.0.0, port: {port}, batch: 64, read_buffer: {BUFFER}, write_buffer: {BUFFER}}}
cipher: aes
punchy: {{punch: true}}
tun: {{dev: {interface}, mtu: {MTU}, tx_queue: 1000{routes}}}
logging: {{level: error, format: text}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any, local_cidr: 0.0.0.0/0}}]
",
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
