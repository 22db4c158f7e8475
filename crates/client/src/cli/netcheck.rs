//! `adit netcheck`: what the network lets through, and what that means for connections.

use std::fmt::Write as _;
use std::time::Duration;

use adit_client_ipc::{
    Attempt, Failure, FailureKind, FamilyReport, FrontEnd, Mapping, NetcheckReport, RelayReport, Request,
    Response,
};

use super::exit;
use super::progress::Progress;
use super::render;

/// Longer than everything that the daemon waits for.
const LIMIT: Duration = Duration::from_secs(20);

/// A clock that is further off than this breaks certificates and one-time codes sooner or later.
const MOST_SKEW_MS: u64 = 30_000;

/// What tunnels need at least; see `adit_tunnel`'s path MTU.
const LEAST_MTU: u16 = 1_280;

/// Asks the daemon, and shows what it found; fails if no relay and no portal can be reached.
pub(super) async fn netcheck(daemon: &mut FrontEnd, json: bool) -> Result<(), exit::Failure> {
    let progress = Progress::start(json, "Trying portal and relays");
    let answer = daemon.call(Request::Netcheck {}, LIMIT).await;
    drop(progress);
    let report = match answer? {
        Response::Netcheck(report) => report,
        other => return Err(exit::Failure::unexpected(&other)),
    };
    super::print(&if json { render::json(&*report)? } else { text(&report) })?;
    if meanings(&report).iter().any(|meaning| meaning.is_bad) { Err(exit::Failure::found()) } else { Ok(()) }
}

fn text(report: &NetcheckReport) -> String {
    let mut text = String::new();
    line(&mut text, "Portal", &format!("{}: {}", report.portal_url, attempt(&report.portal)));
    for (name, family) in [("IPv4", &report.ipv4), ("IPv6", &report.ipv6)] {
        if let Some(family) = family {
            line(&mut text, name, &describe(family));
        }
    }
    for relay in &report.relays {
        line(&mut text, "Relay", &ways(relay));
    }
    for meaning in meanings(report) {
        line(&mut text, if meaning.is_bad { "BAD" } else { "Note" }, &meaning.text);
    }
    text
}

/// Columns of a terminal.
const COLUMNS: usize = 80;

/// Columns in front of what is said.
const INDENT: usize = 8;

/// A name and what is said of it, folded between words.
fn line(text: &mut String, name: &str, value: &str) {
    text.push_str(name);
    let mut column = name.chars().count();
    for (index, word) in value.split(' ').enumerate() {
        let width = word.chars().count() + 1;
        if index > 0 && column + width > COLUMNS {
            text.push('\n');
            column = 0;
        }
        let padding = if column < INDENT { INDENT - column } else { 1 };
        // Writing to a string cannot fail.
        let _ = write!(text, "{:padding$}{word}", "");
        column += padding + width - 1;
    }
    text.push('\n');
}

fn attempt(attempt: &Attempt) -> String {
    match attempt {
        Attempt::WorkedInMs(ms) => format!("{ms:.1} ms"),
        Attempt::Failed(failure) => match failure.kind {
            FailureKind::Refused => "refused".to_owned(),
            FailureKind::NoAnswer => "no answer".to_owned(),
            FailureKind::Unreachable => "no way there".to_owned(),
            FailureKind::Certificate => "certificate refused".to_owned(),
            FailureKind::Other => failure.detail.clone(),
        },
    }
}

fn describe(family: &FamilyReport) -> String {
    let Some(public) = family.public else { return "no relay answers over UDP".to_owned() };
    let mapping = match family.mapping {
        Some(Mapping::None) => ", not translated",
        Some(Mapping::Independent) => ", translated, the same for all",
        Some(Mapping::Dependent) => ", translated, different for each",
        None => "",
    };
    let mtu = family.path_mtu.map_or_else(String::new, |mtu| format!(", packets up to {} bytes", mtu.bytes));
    format!("seen as {public}{mapping}{mtu}")
}

fn ways(relay: &RelayReport) -> String {
    let mut text = format!("{}  UDP {}", relay.address, attempt(&relay.udp));
    for (name, way) in [("TCP", &relay.tcp), ("TLS", &relay.tls)] {
        if let Some(way) = way {
            let _ = write!(text, ", {name} {}", attempt(way));
        }
    }
    text
}

/// What a finding means for whoever uses the tunnel.
struct Meaning {
    is_bad: bool,
    text: String,
}

fn bad(text: impl Into<String>) -> Meaning {
    Meaning { is_bad: true, text: text.into() }
}

fn note(text: impl Into<String>) -> Meaning {
    Meaning { is_bad: false, text: text.into() }
}

fn meanings(report: &NetcheckReport) -> Vec<Meaning> {
    let families = [("IPv4", &report.ipv4), ("IPv6", &report.ipv6)];
    let families = families.into_iter().filter_map(|(name, family)| Some((name, family.as_ref()?)));
    portal(&report.portal)
        .into_iter()
        .chain(clock(report.clock_ahead_ms))
        .chain(relays(&report.relays))
        .chain(
            families.flat_map(|(name, family)| translated(family).into_iter().chain(path_mtu(name, family))),
        )
        .collect()
}

fn portal(attempt: &Attempt) -> Option<Meaning> {
    let Attempt::Failed(Failure { kind, detail }) = attempt else { return None };
    Some(match kind {
        FailureKind::Certificate => bad(format!(
            "The portal's certificate is not believed ({detail}): the wrong CA (--ca), a wrong clock, or somebody in between."
        )),
        _ => bad(format!("The portal cannot be reached: {detail}.")),
    })
}

fn clock(ahead_ms: Option<i64>) -> Option<Meaning> {
    let ahead_ms = ahead_ms.filter(|ms| ms.unsigned_abs() > MOST_SKEW_MS)?;
    let (seconds, direction) =
        (ahead_ms.unsigned_abs() / 1000, if ahead_ms > 0 { "ahead of" } else { "behind" });
    Some(bad(format!("This clock is {seconds} s {direction} the portal's: set it, or run a time service.")))
}

fn relays(relays: &[RelayReport]) -> Option<Meaning> {
    let works = |way: &Attempt| matches!(way, Attempt::WorkedInMs(_));
    let over_udp = relays.iter().any(|relay| works(&relay.udp));
    let over_stream = relays.iter().any(|relay| relay.tcp.iter().chain(&relay.tls).any(works));
    if relays.is_empty() {
        return Some(note("No relay is known: sign in, or the portal has none."));
    }
    match (over_udp, over_stream) {
        (true, _) => None,
        (false, true) => {
            Some(note("UDP is blocked: connections go through relays over TCP or TLS, which is slower."))
        }
        (false, false) => {
            Some(bad("No relay can be reached: only gateways that this network reaches directly work."))
        }
    }
}

fn translated(family: &FamilyReport) -> Option<Meaning> {
    let hard = "The router gives every destination another port: direct connections to others behind such a router fail, and go through relays.";
    (family.mapping == Some(Mapping::Dependent)).then(|| note(hard))
}

fn path_mtu(name: &str, family: &FamilyReport) -> Option<Meaning> {
    let mtu = family.path_mtu?;
    if mtu.is_silent {
        let text = format!(
            "Over {name}, packets larger than {} bytes vanish and no router says so. Tunnels find that out by themselves; other programs may hang.",
            mtu.bytes
        );
        return Some(note(text));
    }
    (mtu.bytes < LEAST_MTU)
        .then(|| bad(format!("Over {name}, only packets up to {} bytes get through.", mtu.bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(kind: FailureKind) -> Attempt {
        Attempt::Failed(Failure { kind, detail: "because".to_owned() })
    }

    fn relay(udp: Attempt, tls: Option<Attempt>) -> RelayReport {
        RelayReport { relay: uuid::Uuid::nil(), address: ([192, 0, 2, 1], 3478).into(), udp, tcp: None, tls }
    }

    fn good() -> NetcheckReport {
        NetcheckReport {
            portal_url: "https://portal.example/".to_owned(),
            portal: Attempt::WorkedInMs(3.0),
            clock_ahead_ms: Some(-900),
            relays: vec![relay(Attempt::WorkedInMs(1.0), None)],
            ipv4: Some(FamilyReport {
                public: Some(([203, 0, 113, 5], 4711).into()),
                mapping: Some(Mapping::Independent),
                path_mtu: Some(adit_client_ipc::PathMtu { bytes: 1_500, is_silent: false }),
            }),
            ipv6: None,
        }
    }

    #[track_caller]
    fn assert_means(report: &NetcheckReport, is_bad: bool, words: &str) {
        let found = meanings(report);
        assert!(
            found.iter().any(|meaning| meaning.is_bad == is_bad && meaning.text.contains(words)),
            "{words}: {}",
            text(report)
        );
    }

    #[test]
    fn a_good_network_means_nothing() {
        assert!(meanings(&good()).is_empty(), "{}", text(&good()));
        assert!(text(&good()).lines().all(|line| line.chars().count() <= 80), "{}", text(&good()));
    }

    #[test]
    fn blocked_udp_is_named_and_no_way_at_all_is_bad() {
        let udp = || failed(FailureKind::NoAnswer);
        let blocked = NetcheckReport { relays: vec![relay(udp(), Some(Attempt::WorkedInMs(9.0)))], ..good() };
        assert_means(&blocked, false, "UDP is blocked");
        let nothing = NetcheckReport { relays: vec![relay(udp(), Some(udp()))], ..good() };
        assert_means(&nothing, true, "No relay can be reached");
        assert_means(&NetcheckReport { relays: Vec::new(), ..good() }, false, "No relay is known");
        assert!(text(&nothing).lines().all(|line| line.chars().count() <= 80), "{}", text(&nothing));
    }

    #[test]
    fn clock_certificate_and_portal_are_named() {
        assert_means(&NetcheckReport { clock_ahead_ms: Some(31_000), ..good() }, true, "31 s ahead of");
        assert_means(&NetcheckReport { clock_ahead_ms: Some(-90_000), ..good() }, true, "90 s behind");
        assert_means(&NetcheckReport { portal: failed(FailureKind::Certificate), ..good() }, true, "CA");
        assert_means(
            &NetcheckReport { portal: failed(FailureKind::Refused), ..good() },
            true,
            "cannot be reached",
        );
    }

    #[test]
    fn hard_nat_and_black_holes_are_named() {
        let family = |mapping, path_mtu| FamilyReport { public: None, mapping, path_mtu };
        let ipv4 = Some(family(Some(Mapping::Dependent), None));
        assert_means(&NetcheckReport { ipv4, ..good() }, false, "another port");
        let mtu = |bytes, is_silent| Some(adit_client_ipc::PathMtu { bytes, is_silent });
        assert_means(&NetcheckReport { ipv6: Some(family(None, mtu(1_400, true))), ..good() }, false, "IPv6");
    }
}
