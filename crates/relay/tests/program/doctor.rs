//! `adit-relay doctor`.

use std::net::UdpSocket;

use adit_turn::Family;
use serde_json::Value;

use crate::driver::{Ended, Program, free_port, run};

fn report(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// The statuses of all findings of a check.
fn statuses<'a>(report: &'a Value, check: &str) -> Vec<&'a str> {
    let checks = report["checks"].as_array().expect("checks");
    let of = checks.iter().filter(|finding| finding["check"] == check);
    of.filter_map(|finding| finding["status"].as_str()).collect()
}

#[test]
fn a_fit_machine_is_called_fit() {
    let port = free_port().to_string();
    let arguments = [
        "doctor",
        "--public-ipv4",
        "127.0.0.1",
        "--port",
        &port,
        "--min-port",
        "20000",
        "--max-port",
        "29999",
    ];
    let ended = run(&[&arguments[..], &["--json"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = report(&ended);
    assert_eq!((&report["schema"], &report["ok"]), (&Value::from(1), &Value::from(true)));
    assert_eq!(statuses(&report, "udp-port"), ["ok"]);
    assert_eq!(statuses(&report, "segmentation"), ["ok"]);
    assert_eq!(statuses(&report, "request-priority"), ["ok"]);
    for finding in report["checks"].as_array().expect("checks") {
        let wants_advice = finding["status"] != "ok";
        assert_eq!(finding["advice"].is_string(), wants_advice, "{finding}");
    }
    let ended = run(&arguments);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("fit to be a relay: 0 failures"), "{}", ended.stdout);
}

#[test]
fn what_is_broken_is_named_with_a_remedy() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let port = taken.local_addr().expect("address").port().to_string();
    let arguments = [
        "doctor",
        "--json",
        "--public-ipv4",
        "127.0.0.1",
        "--port",
        &port,
        "--min-port",
        "20000",
        "--max-port",
        "20010",
    ];
    let more = [
        "--tls-port",
        "20011",
        "--tls-certificate",
        "/nonexistent",
        "--tls-key",
        "/nonexistent",
        "--portal",
        "ws://127.0.0.1:1",
    ];
    let ended = run(&[&arguments[..], &more].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report = report(&ended);
    assert_eq!(report["ok"], Value::from(false));
    for check in ["udp-port", "certificate", "portal"] {
        assert_eq!(statuses(&report, check), ["failure"], "{check}: {report}");
    }
    let ended = run(&["doctor"]);
    assert_eq!(ended.code, Some(1), "no address: {ended:?}");
    assert!(ended.stdout.contains("--public-ipv4"), "{}", ended.stdout);
    let ended = run(&["doctor", "--public-ipv4", "127.0.0.1", "--min-port", "3000"]);
    assert_eq!(ended.code, Some(2), "a contradiction: {ended:?}");
}

#[test]
fn a_relay_at_work_is_no_fault() {
    let program = Program::alone(&[]);
    let port = program.address(Family::V4).port().to_string();
    let health = program.health.to_string();
    let ended = run(&[
        "doctor",
        "--json",
        "--public-ipv4",
        "127.0.0.1",
        "--port",
        &port,
        "--tcp-port",
        &port,
        "--health",
        &health,
        "--min-port",
        "20000",
        "--max-port",
        "29999",
    ]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report = report(&ended);
    assert_eq!((statuses(&report, "udp-port"), statuses(&report, "tcp-port")), (vec!["ok"], vec!["ok"]));
    assert_eq!(statuses(&report, "health"), ["ok"]);
}

#[test]
fn what_is_said_of_xdp_is_what_will_happen() {
    let report_with = |more: &[&str]| {
        let ended = run(&[&["doctor", "--json", "--public-ipv4", "127.0.0.1"][..], more].concat());
        let report = report(&ended);
        let of_xdp =
            report["checks"].as_array().expect("checks").iter().find(|finding| finding["check"] == "xdp");
        let finding = of_xdp.unwrap_or_else(|| panic!("nothing of XDP: {report}"));
        (
            finding["status"].as_str().expect("status").to_owned(),
            finding["detail"].as_str().expect("detail").to_owned(),
        )
    };
    let (status, detail) = report_with(&[]);
    assert!(status == "ok" && detail.starts_with("off; "), "{status} {detail}");
    let (status, detail) = report_with(&["--xdp", "auto"]);
    assert!(status == "ok" && detail.contains("will do without"), "{status} {detail}");
    let (status, detail) = report_with(&["--xdp", "driver", "--max-bytes-per-second", "1000000"]);
    assert_eq!(status, "failure", "{detail}");
    if cfg!(feature = "xdp") {
        assert!(detail.contains("limited rates"), "{detail}");
        let (status, detail) = report_with(&["--xdp", "generic", "--xdp-interface", "nobody0"]);
        assert_eq!(status, "failure", "{detail}");
    } else {
        assert!(detail.contains("lacks the XDP program"), "{detail}");
    }
}
