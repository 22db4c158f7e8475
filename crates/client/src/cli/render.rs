//! What `adit` prints.

use std::fmt::Write as _;

use adit_client_ipc::{
    Collision, Connection, PathKind, PingReport, Reason, RelayTransport, ResourceState, ResourceStatus,
    RouteReport, SCHEMA, State, Status,
};
use anyhow::Context as _;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::{Value, json};

/// What a command without a result prints with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Done {
    pub(super) ok: bool,
}

/// What `adit help` says of a code with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    pub(super) code: &'static str,
    pub(super) cause: &'static str,
    pub(super) fix: &'static str,
}

/// What `adit log path` prints with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct LogPath {
    pub(super) directory: String,
}

/// What `adit log level` prints with `--json`.
#[derive(Debug, Serialize)]
pub(super) struct LogLevel {
    pub(super) level: String,
}

/// The most collisions that `adit status` shows to people.
const COLLISIONS_SHOWN: usize = 5;

/// One line of JSON that names its schema.
pub(super) fn json(value: &impl Serialize) -> anyhow::Result<String> {
    let mut object = json!({"schema": SCHEMA});
    if let (Value::Object(object), Value::Object(fields)) =
        (&mut object, serde_json::to_value(value).context("cannot write JSON")?)
    {
        object.extend(fields);
    }
    Ok(format!("{object}\n"))
}

/// One line of JSON with a list under `name`.
pub(super) fn json_list(name: &str, list: &[impl Serialize]) -> anyhow::Result<String> {
    let list = serde_json::to_value(list).context("cannot write JSON")?;
    Ok(format!("{}\n", json!({"schema": SCHEMA, name: list})))
}

pub(super) const fn state_name(state: State) -> &'static str {
    match state {
        State::SignedOut => "signed out",
        State::WaitingBrowser => "waiting for the browser",
        State::ConnectingPortal => "connecting to the portal",
        State::Configuring => "configuring the interface",
        State::Online => "online",
        State::Degraded => "degraded",
        State::WaitingNetwork => "waiting for a network",
        State::Blocked => "blocked",
    }
}

const fn resource_state_name(state: ResourceState) -> &'static str {
    match state {
        ResourceState::NoActivity => "not used yet",
        ResourceState::Connecting => "connecting",
        ResourceState::Connected => "connected",
        ResourceState::Offline => "gateway offline",
        ResourceState::Forbidden => "forbidden",
    }
}

const fn path_name(path: PathKind) -> &'static str {
    match path {
        PathKind::Direct => "direct",
        PathKind::Relayed => "relayed",
    }
}

/// The state of the client for people.
pub(super) fn status(status: &Status) -> String {
    let mut text = String::new();
    if let Some(profile) = &status.profile {
        line(&mut text, "Profile", profile);
    }
    line(&mut text, "State", state_name(status.state));
    if let Some(reason) = status.reason {
        line(&mut text, "Reason", &format!("{} ({})", reason.cause(), reason.code()));
        line(&mut text, "To do", reason.fix());
    }
    if let Some(detail) = &status.detail {
        line(&mut text, "Detail", detail);
    }
    line(&mut text, "Portal", &status.portal);
    if let Some(actor) = &status.actor {
        line(&mut text, "Signed in", &signed_in(actor, status));
    }
    if status.is_sign_in_too_old {
        line(&mut text, "", "`adit login` again reaches more: something asks for a fresh sign-in");
    } else if status.is_expiring {
        line(&mut text, "", "ends soon; `adit login` renews it without interruption");
    }
    if let Some(login) = &status.login {
        line(&mut text, "Open", &login.url);
        if let Some(user_code) = &login.user_code {
            line(&mut text, "Code", user_code);
        }
    }
    if let (Some(ipv4), Some(ipv6)) = (status.ipv4, status.ipv6) {
        line(&mut text, "Addresses", &format!("{ipv4}, {ipv6}"));
    }
    if let Some(resolver) = &status.resolver {
        line(&mut text, "Names", &format!("through {resolver}"));
    }
    for connection in &status.connections {
        line(&mut text, "Gateway", &describe(connection));
    }
    for one in status.collisions.iter().take(COLLISIONS_SHOWN) {
        line(&mut text, "Collision", &format!("{} ({})", collision(one), one.reason.code()));
        line(&mut text, "To do", one.reason.fix());
    }
    if let Some(more @ 1..) = status.collisions.len().checked_sub(COLLISIONS_SHOWN) {
        line(&mut text, "", &format!("and {more} more collisions: `adit status --json` shows them"));
    }
    text
}

/// Which addresses are in use twice, in what.
pub(super) fn collision(one: &Collision) -> String {
    let claimant = match &one.resource {
        Some(resource) => format!("{resource} ({})", one.claimed),
        None => format!("the tunnel's own {}", one.claimed),
    };
    let what = match one.reason {
        Reason::RouterHidden => "the router",
        Reason::ResolverHidden => "the name server",
        _ => "the network",
    };
    let on = one.interface.as_ref().map(|interface| format!(" on {interface}")).unwrap_or_default();
    format!("{what} {}{on} is in use by {claimant} too", one.network)
}

/// Who, since when, and until when, in the time of the machine.
fn signed_in(actor: &str, status: &Status) -> String {
    let mut text = actor.to_owned();
    let times = [("since", status.authenticated_at_ms), ("until", status.session_expires_at_ms)];
    for (word, at) in times {
        if let Some(at) = at.and_then(local_time) {
            let _ = write!(text, ", {word} {at}");
        }
    }
    text
}

/// Such as `2026-11-28 08:50`; nothing for a time that no calendar knows.
fn local_time(at_ms: u64) -> Option<String> {
    let time = Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
    Some(time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string())
}

fn line(text: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name:<10} {value}");
}

fn describe(connection: &Connection) -> String {
    let Some(path) = connection.path else {
        return format!("{}, connecting", connection.name);
    };
    let mut text = format!("{}, {}", connection.name, path_name(path));
    if let Some(remote) = &connection.remote {
        let _ = write!(text, " via {remote}");
    }
    match connection.relay_transport {
        Some(RelayTransport::Tcp) => text.push_str(" over TCP"),
        Some(RelayTransport::Tls) => text.push_str(" over TLS"),
        Some(RelayTransport::Udp) | None => {}
    }
    if let Some(round_trip) = connection.round_trip_ms {
        let _ = write!(text, ", {round_trip:.1} ms");
    }
    text
}

/// A reason, its cause and what to do about it.
pub(super) fn reason(reason: Reason) -> String {
    format!("{}\n\n{}\n{}\n", reason.code(), reason.cause(), reason.fix())
}

/// The resources as a table.
pub(super) fn resources(resources: &[ResourceStatus]) -> String {
    if resources.is_empty() {
        return "No resources: ask your administrator for access.\n".to_owned();
    }
    let name = widest("NAME", resources.iter().map(|resource| resource.name.as_str()), 24);
    let address = widest("ADDRESS", resources.iter().map(|resource| resource.address.as_str()), 30);
    let mut text = format!("{:name$}  {:address$}  STATE\n", "NAME", "ADDRESS");
    for resource in resources {
        let state = resource_state_name(resource.state);
        let _ = writeln!(text, "{:name$}  {:address$}  {state}", resource.name, resource.address);
    }
    text
}

fn widest<'a>(head: &str, values: impl Iterator<Item = &'a str>, limit: usize) -> usize {
    values.map(|value| value.chars().count()).fold(head.len(), usize::max).min(limit)
}

/// The path to a gateway in one line.
pub(super) fn ping(report: &PingReport) -> String {
    let mut text = format!("{} via {}: {}", report.resource, report.gateway, path_name(report.path));
    if let Some(round_trip) = report.round_trip_ms {
        let _ = write!(text, ", {round_trip:.1} ms");
    }
    if let Some(age) = report.handshake_age_s {
        let _ = write!(text, ", handshake {age:.0} s ago");
    }
    let _ = writeln!(text, " (connected in {:.0} ms)", report.connected_in_ms);
    text
}

/// Where a destination goes, and why, in one line.
pub(super) fn route(report: &RouteReport) -> String {
    let mut text = way(report);
    if let Some(one) = &report.collision {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "But {} ({}).\n{}", collision(one), one.reason.code(), one.reason.fix());
    }
    text
}

fn way(report: &RouteReport) -> String {
    let (Some(resource), Some(address)) = (&report.resource, &report.address) else {
        if let Some(one) = &report.collision {
            let range = &one.claimed;
            return format!(
                "{} goes into the tunnel, because {range} is the tunnel's own.\n",
                report.destination
            );
        }
        return format!("{} goes outside the tunnel, because no resource covers it.\n", report.destination);
    };
    let mut text = format!("{} goes to {resource}", report.destination);
    if let Some(gateway) = &report.gateway {
        let _ = write!(text, " through {gateway}");
    }
    if let Some(path) = report.path {
        let _ = write!(text, ", {}", path_name(path));
    }
    if let Some(round_trip) = report.round_trip_ms {
        let _ = write!(text, ", {round_trip:.1} ms");
    }
    let _ = write!(text, ", because {address} covers it best");
    if let Some(state @ (ResourceState::Offline | ResourceState::Forbidden)) = report.state {
        let _ = write!(text, "; now: {}", resource_state_name(state));
    }
    text.push_str(".\n");
    text
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn json_names_its_schema() {
        let report = PingReport {
            resource: "wiki".to_owned(),
            gateway: "gateway-1".to_owned(),
            path: PathKind::Relayed,
            round_trip_ms: Some(12.25),
            handshake_age_s: None,
            connected_in_ms: 80.0,
        };
        let text = json(&report).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["schema"], 1);
        assert_eq!(value["path"], "relayed");
        assert_eq!(ping(&report), "wiki via gateway-1: relayed, 12.2 ms (connected in 80 ms)\n");
    }

    #[test]
    fn a_route_says_where_and_why() {
        let outside = RouteReport {
            destination: "192.0.2.1".to_owned(),
            resource: None,
            address: None,
            site: None,
            state: None,
            gateway: None,
            path: None,
            round_trip_ms: None,
            collision: None,
        };
        assert_eq!(route(&outside), "192.0.2.1 goes outside the tunnel, because no resource covers it.\n");
        let inside = RouteReport {
            resource: Some("wiki".to_owned()),
            address: Some("*.corp".to_owned()),
            state: Some(ResourceState::Connected),
            gateway: Some("gw-1".to_owned()),
            path: Some(PathKind::Direct),
            round_trip_ms: Some(4.04),
            destination: "wiki.corp".to_owned(),
            ..outside
        };
        let expected =
            "wiki.corp goes to wiki through gw-1, direct, 4.0 ms, because *.corp covers it best.\n";
        assert_eq!(route(&inside), expected);
        let offline = RouteReport { state: Some(ResourceState::Offline), ..inside };
        assert!(route(&offline).ends_with("covers it best; now: gateway offline.\n"));
        let nobodys = RouteReport { resource: None, collision: Some(taken()), ..offline };
        let text = route(&nobodys);
        assert!(
            text.starts_with("wiki.corp goes into the tunnel, because 100.96.0.0/11 is the tunnel's own.\n")
        );
        assert!(
            text.contains("(E-TUNNEL-RANGE-TAKEN)") && text.ends_with(&format!("{}\n", taken().reason.fix()))
        );
    }

    fn taken() -> Collision {
        Collision {
            reason: Reason::TunnelRangeTaken,
            addresses: "100.100.7.0/24".to_owned(),
            network: "100.100.7.0/24".to_owned(),
            interface: Some("eth0".to_owned()),
            claimed: "100.96.0.0/11".to_owned(),
            resource: None,
        }
    }

    #[test]
    fn many_collisions_do_not_bury_the_status() {
        let mut one: Status = serde_json::from_value(
            json!({"schema": 1, "state": "online", "version": "", "portal": "", "connections": []}),
        )
        .unwrap();
        one.collisions = vec![taken(); COLLISIONS_SHOWN];
        assert_eq!(status(&one).matches("E-TUNNEL-RANGE-TAKEN").count(), COLLISIONS_SHOWN);
        assert!(!status(&one).contains("more collisions"));
        one.collisions.extend(vec![taken(); 2]);
        assert_eq!(status(&one).matches("E-TUNNEL-RANGE-TAKEN").count(), COLLISIONS_SHOWN);
        assert!(status(&one).contains("and 2 more collisions"));
    }

    #[test]
    fn the_table_fits_its_widest_entry() {
        let resource = ResourceStatus {
            id: Uuid::nil(),
            name: "payroll".to_owned(),
            address: "*.pay.corp".to_owned(),
            site: "hq".to_owned(),
            state: ResourceState::Connected,
            gateway: None,
        };
        let text = resources(&[resource]);
        assert_eq!(text, "NAME     ADDRESS     STATE\npayroll  *.pay.corp  connected\n");
    }
}
