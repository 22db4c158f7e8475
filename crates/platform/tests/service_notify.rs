//! What a service manager hears: the test starts itself as a service with a notification socket.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use adit_platform::service;

const SERVICE: &str = "ADIT_TEST_SERVICE";

#[test]
fn the_service_manager_is_told_in_order() {
    if std::env::var_os(SERVICE).is_some() {
        service::notify_ready("2 connections");
        service::notify_alive();
        service::notify_stopping();
        assert_eq!(service::watchdog_interval(), Some(Duration::from_secs(5)));
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("binds");
    manager.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    let output = Command::new(std::env::current_exe().expect("path"))
        .args(["--exact", "the_service_manager_is_told_in_order"])
        .env(SERVICE, "1")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "10000000")
        .env_remove("WATCHDOG_PID")
        .output()
        .expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for expected in ["READY=1\nSTATUS=2 connections\n", "WATCHDOG=1\n", "STOPPING=1\n"] {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).expect("a message");
        assert_eq!(String::from_utf8_lossy(&buffer[..length]), expected);
    }
}

#[test]
fn without_a_service_manager_nothing_happens() {
    if std::env::var_os("NOTIFY_SOCKET").is_some() {
        eprintln!("skipped: this test itself runs under a service manager");
        return;
    }
    service::notify_ready("ready");
    service::notify_status("busy");
    assert_eq!(service::watchdog_interval(), None);
}
