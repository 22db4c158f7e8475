//! `resolv.conf` control: what the host had comes back, whatever happened in between.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use adit_platform::dns_control::{DnsControl as _, DnsControlError, DnsSettings, ResolvConf};
use futures_util::FutureExt as _;

const ORIGINAL: &str = "# by the administrator\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver 2001:db8::53\nsearch corp.example lan\noptions ndots:2 edns0\n";

/// What a call that never waits comes to.
trait Now: Future + Sized {
    fn now(self) -> Self::Output {
        self.now_or_never().expect("files need no waiting")
    }
}

impl<F: Future> Now for F {}

struct Host {
    _directory: tempfile::TempDir,
    path: PathBuf,
    state: PathBuf,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("temporary directory");
        fs::create_dir(directory.path().join("etc")).expect("makes");
        let path = directory.path().join("etc/resolv.conf");
        Self { path, state: directory.path().join("state"), _directory: directory }
    }

    fn with_file(text: &str) -> Self {
        let host = Self::new();
        fs::write(&host.path, text).expect("writes");
        host
    }

    fn control(&self) -> ResolvConf {
        ResolvConf::new(&self.path, &self.state)
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).expect("reads")
    }

    fn nothing_is_left(&self) {
        let in_etc: Vec<_> = fs::read_dir(self.path.parent().expect("parent")).expect("lists").collect();
        assert!(in_etc.len() <= 1, "{in_etc:?}");
        assert_eq!(fs::read_dir(&self.state).map(Iterator::count).unwrap_or(0), 0);
    }
}

fn settings() -> DnsSettings {
    DnsSettings {
        servers: vec!["100.64.0.53".parse().expect("address"), "fd00:ad17::53".parse().expect("address")],
        search: vec!["internal.example".to_owned(), "lan".to_owned()],
    }
}

fn upstreams() -> Vec<IpAddr> {
    vec!["192.0.2.53".parse().expect("address"), "2001:db8::53".parse().expect("address")]
}

#[test]
fn a_file_is_replaced_and_comes_back_with_its_mode() {
    let host = Host::with_file(ORIGINAL);
    fs::set_permissions(&host.path, fs::Permissions::from_mode(0o640)).expect("chmod");
    let mut control = host.control();
    assert_eq!(control.upstreams().now(), upstreams());
    control.apply(&settings()).now().expect("applies");
    let text = host.text();
    assert!(text.contains("nameserver 100.64.0.53\nnameserver fd00:ad17::53\n"), "{text}");
    assert!(text.contains("search internal.example lan corp.example\n"), "{text}");
    assert!(text.contains("options ndots:2 edns0\n"), "{text}");
    assert!(!text.contains("192.0.2.53"), "{text}");
    assert_eq!(control.upstreams().now(), upstreams(), "the host's own servers stay known");
    control.clear().now().expect("clears");
    assert_eq!(host.text(), ORIGINAL);
    assert_eq!(fs::metadata(&host.path).expect("metadata").permissions().mode() & 0o777, 0o640);
    host.nothing_is_left();
    control.clear().now().expect("clears nothing");
}

#[test]
fn a_symbolic_link_comes_back_as_a_link_and_its_target_is_never_written() {
    let host = Host::new();
    let target = host.path.parent().expect("parent").parent().expect("root").join("run-resolv.conf");
    fs::write(&target, ORIGINAL).expect("writes");
    symlink("../run-resolv.conf", &host.path).expect("links");
    let mut control = host.control();
    control.apply(&settings()).now().expect("applies");
    assert_eq!(fs::read_to_string(&target).expect("reads"), ORIGINAL);
    assert_eq!(control.upstreams().now(), upstreams());
    control.clear().now().expect("clears");
    assert_eq!(fs::read_link(&host.path).expect("a link"), PathBuf::from("../run-resolv.conf"));
    host.nothing_is_left();
}

#[test]
fn a_crash_is_repaired_by_the_next_run() {
    let host = Host::with_file(ORIGINAL);
    host.control().apply(&settings()).now().expect("applies");
    let mut next = host.control();
    assert_eq!(next.upstreams().now(), upstreams());
    next.recover().now().expect("recovers");
    assert_eq!(host.text(), ORIGINAL);
    host.nothing_is_left();
}

#[test]
fn a_second_run_without_recovery_keeps_the_first_original() {
    let host = Host::with_file(ORIGINAL);
    host.control().apply(&settings()).now().expect("applies");
    let mut next = host.control();
    next.apply(&DnsSettings { search: Vec::new(), ..settings() }).now().expect("applies");
    next.clear().now().expect("clears");
    assert_eq!(host.text(), ORIGINAL);
}

#[test]
fn a_torn_file_is_repaired() {
    for torn in ["", "# Made by Adit while its tunnel is up.\n# The orig"] {
        let host = Host::with_file(ORIGINAL);
        host.control().apply(&settings()).now().expect("applies");
        fs::write(&host.path, torn).expect("tears");
        host.control().recover().now().expect("recovers");
        assert_eq!(host.text(), ORIGINAL);
    }
}

#[test]
fn what_another_program_wrote_meanwhile_wins() {
    let host = Host::with_file(ORIGINAL);
    let mut control = host.control();
    control.apply(&settings()).now().expect("applies");
    let newer = "nameserver 198.51.100.1\n";
    fs::write(&host.path, newer).expect("another program writes");
    assert_eq!(control.upstreams().now(), ["198.51.100.1".parse::<IpAddr>().expect("address")]);
    control.apply(&settings()).now().expect("asserts again");
    assert!(host.text().contains("100.64.0.53"));
    control.clear().now().expect("clears");
    assert_eq!(host.text(), newer);
    fs::write(&host.path, newer).expect("writes");
    control.apply(&settings()).now().expect("applies");
    fs::write(&host.path, ORIGINAL).expect("another program writes");
    control.clear().now().expect("clears");
    assert_eq!(host.text(), ORIGINAL);
    host.nothing_is_left();
}

#[test]
fn a_host_without_the_file_is_without_it_again() {
    let host = Host::new();
    let mut control = host.control();
    assert!(control.upstreams().now().is_empty());
    control.apply(&settings()).now().expect("applies");
    assert!(host.text().contains("100.64.0.53"));
    control.clear().now().expect("clears");
    assert!(!host.path.exists());
    host.nothing_is_left();
}

#[test]
fn a_deleted_file_does_not_lose_the_original() {
    let host = Host::with_file(ORIGINAL);
    let mut control = host.control();
    control.apply(&settings()).now().expect("applies");
    fs::remove_file(&host.path).expect("removes");
    control.apply(&settings()).now().expect("asserts again");
    fs::remove_file(&host.path).expect("removes");
    control.clear().now().expect("clears");
    assert_eq!(host.text(), ORIGINAL);
    host.nothing_is_left();
}

#[test]
fn no_servers_is_refused_and_changes_nothing() {
    let host = Host::with_file(ORIGINAL);
    let refused = host.control().apply(&DnsSettings::default()).now();
    assert!(matches!(refused, Err(DnsControlError::NoServers)));
    assert_eq!(host.text(), ORIGINAL);
    host.nothing_is_left();
}
