//! The log of a whole program: the test starts itself as a child that logs, panics or runs out of disk, and
//! reads the files as `jq` would.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use adit_telemetry::Config;
use serde_json::Value;

const ROLE: &str = "ADIT_TEST_ROLE";
const DIRECTORY: &str = "ADIT_TEST_DIRECTORY";

/// Runs the test binary again in a role of [`child`]; `shell` is put in front of it.
fn run(role: &str, directory: &Path, shell: &str) -> Output {
    let binary = std::env::current_exe().expect("path");
    Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$0\" --exact child --nocapture")])
        .arg(binary)
        .env(ROLE, role)
        .env(DIRECTORY, directory)
        .output()
        .expect("starts")
}

#[test]
fn child() {
    let (Ok(role), Some(directory)) = (std::env::var(ROLE), std::env::var_os(DIRECTORY)) else { return };
    let directory = std::path::PathBuf::from(directory);
    let base = Config { log_dir: Some(directory), level: "debug".to_owned(), ..Config::new("probe") };
    match role.as_str() {
        "speak" => speak(base),
        "panic" => panic_twice(base),
        "levels" => change_levels(base),
        "disk" => fill_the_disk(base),
        "console" => console(base),
        other => panic!("no role {other}"),
    }
}

fn speak(config: Config) {
    let _guard = adit_telemetry::init(config).expect("starts");
    let outer =
        tracing::info_span!("connection", peer = "gateway \"1\"", epoch = 7, late = tracing::field::Empty);
    let _outer = outer.enter();
    outer.record("late", true);
    let _inner = tracing::debug_span!("handshake").entered();
    let error = std::io::Error::other("line one\nline two");
    tracing::warn!(error = &error as &dyn std::error::Error, count = 3u64, ratio = f64::NAN, "it\tbroke");
    tracing::error!(name = "x", big = u128::MAX);
    tracing::trace!("not at this level");
}

fn panic_twice(config: Config) {
    let _guard = adit_telemetry::init(config).expect("starts");
    let thread = std::thread::Builder::new().name("worker".to_owned());
    let worker = thread.spawn(|| panic!("in \"{}\"\nthread", 1)).expect("starts");
    assert!(worker.join().is_err());
    tracing::info!("still here");
    std::process::abort();
}

fn change_levels(config: Config) {
    let guard = adit_telemetry::init(Config { level: "warn".to_owned(), ..config }).expect("starts");
    tracing::info!("hidden");
    guard.level().set("info").expect("a level");
    assert_eq!(guard.level().get(), "info");
    tracing::info!("shown");
    assert!(guard.level().set("loud").is_err());
    tracing::info!("still shown");
    assert!(matches!(
        adit_telemetry::init(Config::new("probe")),
        Err(adit_telemetry::InitError::AlreadyInstalled)
    ));
}

fn fill_the_disk(config: Config) {
    let guard = adit_telemetry::init(config).expect("starts");
    for number in 0..400 {
        tracing::info!(number, "filling");
        assert!(guard.flush(Duration::from_secs(5)));
    }
    assert!(guard.lost_lines() > 0);
}

fn console(config: Config) {
    let guard =
        adit_telemetry::init(Config { log_dir: None, stdout: true, stderr: true, ..config }).expect("starts");
    tracing::info!("both");
    drop(guard);
}

/// The lines of all files in name order; each must be an object with exactly our keys in our order.
fn lines(directory: &Path) -> Vec<Value> {
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).expect("lists").map(|entry| entry.expect("entry").path()).collect();
    paths.sort_unstable();
    assert!(paths.iter().all(|path| path.extension().is_some_and(|end| end == "log")), "{paths:?}");
    let text: String = paths.iter().map(|path| std::fs::read_to_string(path).expect("utf-8")).collect();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(check_line).collect()
}

fn check_line(line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let keys = ["\"time\":", "\"severity\":", "\"message\":", "\"target\":", "\"fields\":", "\"spans\":"];
    let mut rest = line;
    for key in keys {
        let at = rest.find(key).unwrap_or_else(|| panic!("{key} is missing or out of order: {line}"));
        rest = &rest[at + key.len()..];
    }
    assert_eq!(value.as_object().map(serde_json::Map::len), Some(keys.len()), "{line}");
    assert!(
        value["message"].is_string() && value["fields"].is_object() && value["spans"].is_array(),
        "{line}"
    );
    let time = value["time"].as_str().expect("time");
    assert_eq!((time.len(), &time[19..20], &time[29..]), (30, ".", "Z"), "{line}");
    assert!(
        ["DEBUG", "INFO", "WARNING", "ERROR"].contains(&value["severity"].as_str().expect("severity")),
        "{line}"
    );
    value
}

fn messages(values: &[Value]) -> Vec<&str> {
    values.iter().map(|value| value["message"].as_str().expect("message")).collect()
}

#[test]
fn events_spans_and_odd_values_become_one_line_each() {
    let directory = tempfile::tempdir().expect("temporary directory");
    assert!(run("speak", directory.path(), "").status.success());
    let lines = lines(directory.path());
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["severity"], "WARNING");
    assert_eq!(lines[0]["message"], "it\tbroke");
    assert_eq!(
        lines[0]["fields"],
        serde_json::json!({"error": "line one\nline two", "count": 3, "ratio": "NaN"})
    );
    assert_eq!(
        lines[0]["spans"],
        serde_json::json!([
            {"name": "connection", "peer": "gateway \"1\"", "epoch": 7, "late": true},
            {"name": "handshake"},
        ])
    );
    assert!(!lines[1]["message"].as_str().expect("message").is_empty());
    assert_eq!(lines[1]["fields"]["big"], u128::MAX.to_string());
}

#[test]
fn a_panic_is_a_line_and_what_was_logged_before_is_not_lost() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let output = run("panic", directory.path(), "");
    assert!(!output.status.success(), "it aborted");
    let lines = lines(directory.path());
    assert_eq!(lines[0]["message"], "panicked: in \"1\"\nthread");
    assert_eq!(lines[0]["severity"], "ERROR");
    assert_eq!(lines[0]["fields"]["thread"], "worker");
    assert!(lines[0]["fields"]["location"].as_str().expect("location").contains("program_logs.rs"));
    let on_stderr = String::from_utf8(output.stderr).expect("utf-8");
    assert_eq!(
        on_stderr.lines().map(check_line).count(),
        1,
        "the supervisor sees the panic too: {on_stderr}"
    );
}

#[test]
fn the_level_changes_while_running() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let output = run("levels", directory.path(), "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(messages(&lines(directory.path())), ["shown", "still shown"]);
}

#[test]
fn a_full_disk_loses_lines_but_never_halves_one() {
    let directory = tempfile::tempdir().expect("temporary directory");
    // A limit on the size of files fails writes midway, as a full disk does.
    let output = run("disk", directory.path(), "trap '' XFSZ; ulimit -f 16;");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let lines = lines(directory.path());
    assert!((10..400).contains(&lines.len()), "{}", lines.len());
    assert!(lines.iter().enumerate().all(|(at, line)| line["fields"]["number"] == at));
}

#[test]
fn console_lines_are_the_same_json() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let output = run("console", directory.path(), "");
    for stream in [output.stdout, output.stderr] {
        let text = String::from_utf8(stream).expect("utf-8");
        let ours: Vec<Value> = text.lines().filter(|line| line.starts_with('{')).map(check_line).collect();
        assert_eq!(messages(&ours), ["both"]);
    }
}

#[test]
fn the_documented_jq_line_works() {
    if Command::new("jq").arg("--version").output().is_err() {
        eprintln!("skipped: no jq here");
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    run("panic", directory.path(), "");
    let filter = r#"cat *.log | jq -r '"\(.time) \(.severity) \(.message)"'"#;
    let output =
        Command::new("sh").args(["-c", filter]).current_dir(directory.path()).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("ERROR panicked: in"));
}
