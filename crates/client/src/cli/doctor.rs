//! `adit doctor`: finds what keeps the client from working, and says what to do.
//!
//! Each check looks at one thing and comes to one finding. Those of the host need no daemon; a daemon that runs
//! adds what it knows.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use adit_client_ipc::{CallError, Collision, FrontEnd, Reason, State, Status};
use serde::Serialize;

use super::exit::Failure;
use super::progress::Progress;
use super::render;

/// How long the portal may take to accept a connection.
const PORTAL_WITHIN: Duration = Duration::from_secs(5);

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Good,
    Warning,
    Bad,
}

/// What one check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    /// What was found.
    cause: String,
    /// What to do; nothing if all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Serialize)]
struct Findings {
    findings: Vec<Finding>,
}

impl Finding {
    fn good(check: &'static str, cause: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, cause: cause.into(), fix: None }
    }

    fn not_good(check: &'static str, verdict: Verdict, cause: impl Into<String>, fix: &str) -> Self {
        Self { check, verdict, cause: cause.into(), fix: Some(fix.to_owned()) }
    }
}

/// Runs all checks; fails if one came to something bad.
pub(super) async fn doctor(socket: &Path, json: bool) -> Result<(), Failure> {
    let mut findings = vec![tun_device(Path::new("/dev/net/tun"))];
    findings.extend(reverse_path_filters(Path::new("/proc/sys/net/ipv4/conf")));
    let progress = Progress::start(json, "Asking the daemon");
    let (finding, status) = daemon(socket).await;
    findings.push(finding);
    if let Some(status) = &status {
        findings.push(session(status));
        findings.push(resolver(status));
        findings.extend(collisions(status));
        progress.stage("Trying the portal");
        findings.push(portal(status).await);
    }
    drop(progress);
    let is_bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
    super::print(&if json { render::json(&Findings { findings })? } else { text(&findings) })?;
    if is_bad { Err(Failure::found()) } else { Ok(()) }
}

fn text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "note",
            Verdict::Bad => "BAD",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{mark:<5} {:<16} {}", finding.check, finding.cause);
        if let Some(fix) = &finding.fix {
            let _ = writeln!(text, "{:22} {fix}", "");
        }
    }
    text
}

fn tun_device(path: &Path) -> Finding {
    const CHECK: &str = "tun device";
    if path.exists() {
        return Finding::good(CHECK, format!("{} is there", path.display()));
    }
    let fix = "Load the module `tun` (modprobe tun), or give /dev/net/tun to the container.";
    Finding::not_good(CHECK, Verdict::Bad, format!("{} is missing", path.display()), fix)
}

/// Strict filters drop what comes back through another interface than it left by, as with an exit resource.
fn reverse_path_filters(directory: &Path) -> Vec<Finding> {
    const CHECK: &str = "reverse path";
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_strict =
        |path: &Path| std::fs::read_to_string(path.join("rp_filter")).is_ok_and(|value| value.trim() == "1");
    let mut strict: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_strict(path))
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .filter(|name| !matches!(name.as_str(), "default" | "lo"))
        .collect();
    strict.sort();
    if strict.is_empty() {
        return vec![Finding::good(CHECK, "no strict filter")];
    }
    let fix = "The daemon loosens the way out while the tunnel is up and restores it; nothing to do.";
    vec![Finding::not_good(CHECK, Verdict::Warning, format!("strict on {}", strict.join(", ")), fix)]
}

async fn daemon(socket: &Path) -> (Finding, Option<Status>) {
    const CHECK: &str = "daemon";
    let mut daemon = match FrontEnd::connect(socket).await {
        Ok(daemon) => daemon,
        Err(error) => {
            let fix = match &error {
                CallError::Incompatible { .. } => "Install the same version of adit and aditd.",
                _ => "systemctl start aditd; journalctl -u aditd says why it does not run.",
            };
            return (Finding::not_good(CHECK, Verdict::Bad, error.to_string(), fix), None);
        }
    };
    match super::fetch_status(&mut daemon).await {
        Ok(status) => (Finding::good(CHECK, format!("aditd {} runs", status.version)), Some(status)),
        Err(failure) => {
            let fix = "adit log tail says what it does.";
            (Finding::not_good(CHECK, Verdict::Bad, failure.message().to_owned(), fix), None)
        }
    }
}

fn session(status: &Status) -> Finding {
    const CHECK: &str = "session";
    let Some(reason) = status.reason else {
        if status.is_sign_in_too_old {
            let cause = "the sign-in is too old for something that you may reach";
            return Finding::not_good(CHECK, Verdict::Warning, cause, "`adit login` signs in again.");
        }
        if status.is_expiring {
            let fix = "`adit login` renews it without interruption.";
            return Finding::not_good(CHECK, Verdict::Warning, "the session ends soon", fix);
        }
        let who = status.actor.as_deref().unwrap_or("nobody yet");
        return Finding::good(CHECK, format!("{}, {who}", render::state_name(status.state)));
    };
    let is_passing = matches!(status.state, State::Degraded | State::WaitingBrowser);
    let verdict = if is_passing { Verdict::Warning } else { Verdict::Bad };
    Finding::not_good(CHECK, verdict, format!("{} ({})", reason.cause(), reason.code()), reason.fix())
}

fn resolver(status: &Status) -> Finding {
    const CHECK: &str = "names";
    match (&status.resolver, status.reason) {
        (_, Some(Reason::DnsNotControlled)) => Finding::not_good(
            CHECK,
            Verdict::Bad,
            "the system does not ask the tunnel for names",
            Reason::DnsNotControlled.fix(),
        ),
        (Some(resolver), _) if resolver == "off" => Finding::not_good(
            CHECK,
            Verdict::Warning,
            "names are left alone (--dns-control off)",
            "Resources with names are reached only after `--dns-control auto`.",
        ),
        (Some(resolver), _) => Finding::good(CHECK, format!("through {resolver}")),
        (None, _) => Finding::good(CHECK, "as without the tunnel, which is not up"),
    }
}

/// The portal's name resolves and somebody answers there. What is said then is the daemon's business.
async fn portal(status: &Status) -> Finding {
    const CHECK: &str = "portal";
    let fix = "Check network, firewall and proxy on the way to the portal.";
    let bad = |cause: String| Finding::not_good(CHECK, Verdict::Bad, cause, fix);
    let Some((host, port)) = host_and_port(&status.portal) else {
        return bad(format!("{} is no address of a portal", status.portal));
    };
    let connecting = tokio::net::TcpStream::connect((host.as_str(), port));
    match tokio::time::timeout(PORTAL_WITHIN, connecting).await {
        Ok(Ok(_)) => Finding::good(CHECK, format!("{host} answers on port {port}")),
        Ok(Err(error)) => bad(format!("{host}, port {port}: {error}")),
        Err(_) => bad(format!("{host}, port {port}: no answer in {} s", PORTAL_WITHIN.as_secs())),
    }
}

fn host_and_port(portal: &str) -> Option<(String, u16)> {
    let url = url::Url::parse(portal).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some((host, url.port_or_known_default()?))
}

/// Addresses that are in use both in the tunnel and in networks of this device.
fn collisions(status: &Status) -> Vec<Finding> {
    const CHECK: &str = "addresses";
    if status.interface.is_none() {
        return Vec::new();
    }
    if status.collisions.is_empty() {
        return vec![Finding::good(CHECK, "none is in use both in the tunnel and outside")];
    }
    let finding = |one: &Collision| {
        let verdict = match one.reason {
            // What these carry works all the same.
            Reason::RouterHidden | Reason::ResolverHidden => Verdict::Warning,
            _ => Verdict::Bad,
        };
        let cause = format!("{} ({})", render::collision(one), one.reason.code());
        Finding::not_good(CHECK, verdict, cause, one.reason.fix())
    };
    status.collisions.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(more: &serde_json::Value) -> Status {
        let mut status = serde_json::json!({"schema": 1, "state": "online", "version": "", "portal": "", "connections": []});
        status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_sign_in_that_wants_renewal_is_a_warning() {
        let judged = |more: serde_json::Value| session(&status(&more)).verdict;
        assert_eq!(judged(serde_json::json!({})), Verdict::Good);
        assert_eq!(judged(serde_json::json!({"is_expiring": true})), Verdict::Warning);
        assert_eq!(judged(serde_json::json!({"is_sign_in_too_old": true})), Verdict::Warning);
        let waiting = serde_json::json!({"state": "waiting_browser", "reason": "waiting_browser"});
        assert_eq!(judged(waiting), Verdict::Warning);
        let ended = serde_json::json!({"state": "blocked", "reason": "revoked_token"});
        assert_eq!(judged(ended), Verdict::Bad);
    }

    #[test]
    fn a_missing_device_is_named_with_what_to_do() {
        let finding = tun_device(Path::new("/nowhere/tun"));
        assert_eq!(finding.verdict, Verdict::Bad);
        assert!(text(&[finding]).contains("modprobe tun"));
    }

    #[test]
    fn strict_filters_are_found() {
        let directory = tempfile::tempdir().unwrap();
        for (interface, value) in [("eth0", "1\n"), ("wlan0", "2\n"), ("lo", "1\n"), ("default", "1\n")] {
            std::fs::create_dir(directory.path().join(interface)).unwrap();
            std::fs::write(directory.path().join(interface).join("rp_filter"), value).unwrap();
        }
        let findings = reverse_path_filters(directory.path());
        assert_eq!(findings[0].cause, "strict on eth0");
    }

    #[test]
    fn addresses_in_use_twice_fail_with_cause_and_fix() {
        let taken = |reason: &str| {
            serde_json::json!({"interface": "adit0", "collisions": [{"reason": reason, "addresses": "100.100.7.0/24",
                "network": "100.100.7.0/24", "interface": "eth0", "claimed": "100.96.0.0/11"}]})
        };
        let found = |more: serde_json::Value| collisions(&status(&more));
        assert_eq!(found(serde_json::json!({})), [], "no interface, no collision");
        assert_eq!(found(serde_json::json!({"interface": "adit0"}))[0].verdict, Verdict::Good);
        let [bad] = &found(taken("tunnel_range_taken"))[..] else { panic!("one finding") };
        assert_eq!(bad.verdict, Verdict::Bad);
        assert_eq!(
            bad.cause,
            "the network 100.100.7.0/24 on eth0 is in use by the tunnel's own 100.96.0.0/11 too (E-TUNNEL-RANGE-TAKEN)"
        );
        assert!(bad.fix.is_some());
        assert_eq!(found(taken("resolver_hidden"))[0].verdict, Verdict::Warning);
    }

    #[test]
    fn a_portal_has_a_host_and_a_port() {
        assert_eq!(host_and_port("wss://portal.example/"), Some(("portal.example".to_owned(), 443)));
        assert_eq!(host_and_port("wss://[2001:db8::1]:8443"), Some(("2001:db8::1".to_owned(), 8443)));
        assert_eq!(host_and_port("nonsense"), None);
    }
}
