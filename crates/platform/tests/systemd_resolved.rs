//! systemd-resolved, the real one: names go through the tunnel while ours are in force, and only then.

mod managers;
#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod namespace;

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use adit_platform::dns_control::{
    Automatic, DnsControl as _, DnsControlError, DnsSettings, Manager, Resolved,
};
use adit_platform::tun::{self, Tun};
use managers::{LIMIT, Machine, ask, know_user, overlay, serve_names, settings, unpacked, wait_for};
use namespace::{ip, isolated};

const STUB: &str = "127.0.0.53";
const OURS: &str = "100.64.0.53";
const THEIRS: &str = "192.0.2.53";

/// A host with resolved, a network that brings a name server, and the tunnel's interface.
async fn start() -> Option<(Machine, Tun)> {
    let root = unpacked("systemd-resolved")?;
    let mut machine = Machine::start();
    overlay("/etc", &[], &machine.path("etc"));
    std::fs::write("/etc/resolv.conf", "nameserver 127.0.0.53\n").expect("in the overlay");
    know_user(&machine.path(""), "systemd-resolve");
    ip("link add up0 type veth peer name up1");
    for interface in ["up0", "up1"] {
        ip(&format!("link set {interface} up"));
    }
    ip(&format!("addr add {THEIRS}/24 dev up0"));
    let config = tun::Config { name: "adit0".to_owned(), mtu: 1280, offload: tun::Offload::None };
    let tun = Tun::create(&config).expect("a tunnel interface");
    ip("link set adit0 up");
    ip(&format!("addr add {OURS}/32 dev adit0"));
    machine.start_daemon(&root, "lib/systemd/systemd-resolved", &[]);
    wait_for("the stub", || std::net::UdpSocket::bind((STUB, 53)).is_err());
    // It listens before it is on the bus.
    let host = Automatic::new("adit0", Path::new("/etc/resolv.conf"), &machine.path("state"), machine.bus());
    let begin = Instant::now();
    while host.detect().await != Manager::Resolved {
        assert!(begin.elapsed() < LIMIT, "it does not come to the bus");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Some((machine, tun))
}

/// What DHCP's client would do for the network.
async fn network_brings_a_server(machine: &Machine) {
    let mut network = Resolved::new("up0", machine.bus());
    let theirs = DnsSettings { servers: vec![THEIRS.parse().expect("address")], search: Vec::new() };
    network.apply(&theirs).await.expect("applies");
}

#[test]
fn names_go_to_us_until_we_leave() {
    isolated(|| async {
        let Some((machine, _tun)) = start().await else { return };
        serve_names(OURS, [10, 9, 8, 7]);
        let mut control = Resolved::new("adit0", machine.bus());
        assert_eq!(ask(STUB, "git.corp.example"), None, "nobody to ask");
        control.apply(&settings()).await.expect("applies");
        assert_eq!(ask(STUB, "git.corp.example"), Some([10, 9, 8, 7]));
        control.apply(&settings()).await.expect("asserts again");
        control.clear().await.expect("clears");
        assert_eq!(ask(STUB, "git.corp.example"), None, "not even from a cache");
        control.clear().await.expect("clears nothing");
    });
}

#[test]
fn our_own_servers_are_no_upstreams() {
    isolated(|| async {
        let Some((machine, _tun)) = start().await else { return };
        network_brings_a_server(&machine).await;
        let theirs: Vec<IpAddr> = vec![THEIRS.parse().expect("address")];
        let mut control = Resolved::new("adit0", machine.bus());
        assert_eq!(control.upstreams().await, theirs);
        control.apply(&settings()).await.expect("applies");
        assert_eq!(control.upstreams().await, theirs);
    });
}

#[test]
fn a_crash_of_ours_leaves_nothing_behind() {
    isolated(|| async {
        let Some((machine, tun)) = start().await else { return };
        serve_names(OURS, [10, 9, 8, 7]);
        Resolved::new("adit0", machine.bus()).apply(&settings()).await.expect("applies");
        assert_eq!(ask(STUB, "git.corp.example"), Some([10, 9, 8, 7]));
        drop(tun);
        wait_for("the end of our link", || ask(STUB, "other.corp.example").is_none());
        let mut next = Resolved::new("adit0", machine.bus());
        next.recover().await.expect("nothing to recover");
        let gone = next.apply(&settings()).await;
        assert!(matches!(gone, Err(DnsControlError::NoInterface(_))), "{gone:?}");
    });
}

#[test]
fn it_is_found_and_its_death_is_an_error_and_no_wait() {
    isolated(|| async {
        let Some((mut machine, _tun)) = start().await else { return };
        let file = machine.path("resolv.conf");
        std::fs::write(&file, "nameserver 127.0.0.53\noptions edns0 trust-ad\n").expect("writes");
        let mut control = Automatic::new("adit0", &file, &machine.path("state"), machine.bus());
        control.recover().await.expect("nothing to recover");
        assert_eq!(control.detect().await, Manager::Resolved);
        control.apply(&settings()).await.expect("applies");
        assert_eq!(control.name(), "systemd-resolved");
        machine.kill_newest();
        let started = Instant::now();
        let outcome = control.apply(&settings()).await;
        assert!(matches!(outcome, Err(DnsControlError::Service { .. })), "{outcome:?}");
        assert!(started.elapsed().as_secs() < 5);
        control.clear().await.expect("it has forgotten us with its life");
        assert_eq!(control.detect().await, Manager::ResolvConf);
    });
}
