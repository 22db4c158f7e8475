//! NetworkManager, the real one, where it writes `/etc/resolv.conf` itself.

#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod managers;
#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod namespace;

use std::net::IpAddr;
use std::path::Path;

use adit_platform::dns_control::{Automatic, DnsControl as _, Manager, NetworkManager};
use managers::{Machine, overlay, settings, unpacked, wait_for};
use namespace::{ip, isolated};
use nix::mount::{MsFlags, mount};

const FILE: &str = "/etc/resolv.conf";

const CONFIGURATION: &str = "[main]\nplugins=keyfile\ndns=default\nrc-manager=file\n[keyfile]\nunmanaged-devices=interface-name:adit0;interface-name:up1\n";

const CONNECTION: &str = "[connection]\nid=up0\nuuid=6d0b3f6a-6a6e-4f0b-9d0e-1f2a3b4c5d6e\ntype=ethernet\n\
    interface-name=up0\n[ipv4]\nmethod=manual\naddress1=192.0.2.10/24\ndns=192.0.2.53;\n[ipv6]\nmethod=disabled\n";

fn text() -> String {
    std::fs::read_to_string(FILE).unwrap_or_default()
}

/// A host whose one connection brings a name server.
fn start() -> Option<Machine> {
    let root = unpacked("network-manager")?;
    let mut machine = Machine::start();
    overlay("/etc", &[], &machine.path("etc"));
    overlay("/var/lib", &[], &machine.path("var-lib"));
    overlay("/usr/lib", &[&root.join("usr/lib")], &machine.path("usr-lib"));
    // It waits for udev unless /sys says that this is a container.
    mount(Some("none"), "/sys", Some("sysfs"), MsFlags::MS_RDONLY, None::<&str>).expect("mounts");
    ip("link add up0 type veth peer name up1");
    ip("link set up1 up");
    let connections = Path::new("/etc/NetworkManager/system-connections");
    std::fs::create_dir_all(connections).expect("in the overlay");
    std::fs::write("/etc/NetworkManager/NetworkManager.conf", CONFIGURATION).expect("writes");
    let connection = connections.join("up0.nmconnection");
    std::fs::write(&connection, CONNECTION).expect("writes");
    private(&connection);
    run(&mut machine, &root);
    Some(machine)
}

fn run(machine: &mut Machine, root: &Path) {
    machine.start_daemon(root, "usr/sbin/NetworkManager", &["--debug"]);
    wait_for("the connection", || text().contains("NetworkManager") && text().contains("192.0.2.53"));
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
}

fn ours(machine: &Machine) -> NetworkManager {
    NetworkManager::new("adit0", &machine.path("state"), machine.bus())
}

#[test]
fn its_global_configuration_is_ours_until_we_leave() {
    isolated(|| async {
        let Some(machine) = start() else { return };
        let mut control = ours(&machine);
        let theirs: Vec<IpAddr> = vec!["192.0.2.53".parse().expect("address")];
        assert_eq!(control.upstreams().await, theirs);
        control.apply(&settings()).await.expect("applies");
        wait_for("our server", || text().contains("100.64.0.53") && !text().contains("192.0.2.53"));
        assert!(text().contains("internal.example"), "{}", text());
        assert_eq!(control.upstreams().await, theirs);
        control.apply(&settings()).await.expect("asserts again");
        control.clear().await.expect("clears");
        wait_for("their server", || text().contains("192.0.2.53") && !text().contains("100.64.0.53"));
        control.clear().await.expect("clears nothing");
    });
}

#[test]
fn what_a_crash_left_is_taken_back() {
    isolated(|| async {
        let Some(mut machine) = start() else { return };
        let control = Automatic::new("adit0", Path::new(FILE), &machine.path("state"), machine.bus());
        assert_eq!(control.detect().await, Manager::NetworkManager);
        ours(&machine).apply(&settings()).await.expect("applies");
        wait_for("our server", || text().contains("100.64.0.53"));
        ours(&machine).recover().await.expect("recovers");
        wait_for("their server", || text().contains("192.0.2.53") && !text().contains("100.64.0.53"));
        machine.kill_newest();
        ours(&machine).recover().await.expect("nothing is left to recover");
    });
}
