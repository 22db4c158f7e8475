//! From the engine's snapshot to what front ends show.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use adit_client_ipc::{
    Collision, Connection, DnsReport, PathKind, PingReport, Reason, RelayTransport, ResourceState,
    ResourceStatus, RouteReport, SCHEMA, Setting, SettingSource, State, Status, UpstreamSource,
};
use adit_control_client::FatalReason;
use adit_engine::client::{
    self as engine, CollisionKind, InterfaceState, PathStatus, PingResult, PortalState, Snapshot,
};
use adit_platform::settings::{self, Source};
use adit_policy::ResourceAddress;

use super::server::View;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What does not change while the daemon runs.
#[derive(Debug, Clone)]
pub(super) struct Constants {
    pub(super) profile: Option<String>,
    pub(super) portal: String,
    pub(super) interface: String,
    pub(super) log_directory: String,
}

impl Constants {
    /// What is shown while no engine runs.
    pub(super) fn idle(&self, reason: Reason) -> View {
        let status = self.status(State::SignedOut, Some(reason), None);
        View { status, resources: Vec::new(), last_login: None }
    }

    /// What is shown of a running engine.
    pub(super) fn running(&self, snapshot: &Snapshot) -> View {
        let (state, reason, detail) = state_of(snapshot);
        let mut status = self.status(state, reason, detail);
        status.actor.clone_from(&snapshot.actor);
        // A session that is over neither began nor ends.
        if !matches!(snapshot.portal, PortalState::Dead { .. }) {
            show_sign_in(&mut status, snapshot);
        }
        if let InterfaceState::Up { ipv4, ipv6, resolver, .. } = snapshot.interface {
            (status.ipv4, status.ipv6) = (Some(ipv4), Some(ipv6));
            status.resolver = Some(resolver.to_owned());
            status.interface = Some(self.interface.clone());
        }
        status.connections = snapshot.connections.iter().map(connection).collect();
        status.collisions = snapshot.collisions.iter().map(collision).collect();
        let resources =
            snapshot.resources.iter().map(|resource| self::resource(resource, snapshot)).collect();
        View { status, resources, last_login: None }
    }

    fn status(&self, state: State, reason: Option<Reason>, detail: Option<String>) -> Status {
        Status {
            schema: SCHEMA,
            state,
            reason,
            detail,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: self.profile.clone(),
            portal: self.portal.clone(),
            actor: None,
            ipv4: None,
            ipv6: None,
            interface: None,
            resolver: None,
            log_directory: self.log_directory.clone(),
            session_expires_at_ms: None,
            authenticated_at_ms: None,
            is_expiring: false,
            is_sign_in_too_old: false,
            login: None,
            connections: Vec::new(),
            collisions: Vec::new(),
        }
    }
}

fn show_sign_in(status: &mut Status, snapshot: &Snapshot) {
    status.session_expires_at_ms = snapshot.session_expires_at_ms;
    status.authenticated_at_ms = snapshot.sign_in.and_then(|sign_in| sign_in.authenticated_at_ms);
    status.is_sign_in_too_old = snapshot.sign_in.is_some_and(|sign_in| sign_in.is_too_old);
    status.is_expiring = is_expiring(now_ms(), status.authenticated_at_ms, status.session_expires_at_ms);
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Whether a session ends within a day, or is in the last quarter of a life that is shorter than four.
fn is_expiring(now: u64, began: Option<u64>, ends: Option<u64>) -> bool {
    let Some(ends) = ends else { return false };
    let life = began.map_or(u64::MAX, |began| ends.saturating_sub(began));
    ends.saturating_sub(now) < DAY_MS.min(life / 4)
}

fn state_of(snapshot: &Snapshot) -> (State, Option<Reason>, Option<String>) {
    if let PortalState::Dead { reason } = snapshot.portal {
        let reason = match reason {
            FatalReason::InvalidToken => Reason::InvalidToken,
            FatalReason::ExpiredToken => Reason::ExpiredToken,
            FatalReason::RevokedToken => Reason::RevokedToken,
        };
        return (State::Blocked, Some(reason), None);
    }
    let lost = match &snapshot.portal {
        PortalState::Lost { reason } => Some(reason.clone()),
        _ => None,
    };
    match &snapshot.interface {
        InterfaceState::Failed { reason } => {
            (State::Blocked, Some(Reason::InterfaceFailed), Some(reason.clone()))
        }
        InterfaceState::Waiting if snapshot.portal == PortalState::Connected => {
            (State::Configuring, None, None)
        }
        InterfaceState::Waiting => {
            (State::ConnectingPortal, lost.is_some().then_some(Reason::PortalUnreachable), lost)
        }
        InterfaceState::Up { .. } if lost.is_some() => {
            (State::Degraded, Some(Reason::PortalUnreachable), lost)
        }
        InterfaceState::Up { is_dns_controlled: false, .. } => {
            (State::Degraded, Some(Reason::DnsNotControlled), None)
        }
        InterfaceState::Up { .. } => (State::Online, None, None),
    }
}

fn connection(status: &engine::ConnectionStatus) -> Connection {
    Connection {
        gateway: status.gateway.as_uuid(),
        name: status.name.clone(),
        path: status.path.map(|path| kind(&path)),
        remote: status.path.map(|path| match path.relay {
            Some(relay) => relay.to_string(),
            None => path.remote.to_string(),
        }),
        relay_transport: status.path.and_then(|path| path.transport).map(transport),
        round_trip_ms: status.path.and_then(|path| milliseconds(&path)),
        handshake_age_s: None,
    }
}

fn collision(found: &engine::Collision) -> Collision {
    Collision {
        reason: match found.kind {
            CollisionKind::TunnelRange => Reason::TunnelRangeTaken,
            CollisionKind::LocalNetwork => Reason::LocalNetworkHidden,
            CollisionKind::Router => Reason::RouterHidden,
            CollisionKind::Resolver => Reason::ResolverHidden,
        },
        addresses: found.taken().to_string(),
        network: found.network.to_string(),
        interface: found.interface.clone(),
        claimed: found.claimed.to_string(),
        resource: found.resource.clone(),
    }
}

fn kind(path: &PathStatus) -> PathKind {
    if path.relay.is_some() { PathKind::Relayed } else { PathKind::Direct }
}

const fn transport(transport: engine::RelayTransport) -> RelayTransport {
    match transport {
        engine::RelayTransport::Udp => RelayTransport::Udp,
        engine::RelayTransport::Tcp => RelayTransport::Tcp,
        engine::RelayTransport::Tls => RelayTransport::Tls,
    }
}

fn milliseconds(path: &PathStatus) -> Option<f64> {
    path.round_trip_us.map(|micros| std::time::Duration::from_micros(micros).as_secs_f64() * 1000.0)
}

fn resource(status: &engine::ResourceStatus, snapshot: &Snapshot) -> ResourceStatus {
    let (state, gateway) = match &status.state {
        engine::ResourceState::NoActivity => (ResourceState::NoActivity, None),
        engine::ResourceState::Connecting => (ResourceState::Connecting, None),
        engine::ResourceState::Offline => (ResourceState::Offline, None),
        engine::ResourceState::Forbidden => (ResourceState::Forbidden, None),
        engine::ResourceState::Connected { gateway, .. } => {
            let connection = snapshot.connections.iter().find(|connection| connection.gateway == *gateway);
            (ResourceState::Connected, connection.map(|connection| connection.name.clone()))
        }
    };
    ResourceStatus {
        id: status.id.as_uuid(),
        name: status.name.clone(),
        address: match &status.address {
            ResourceAddress::Dns { pattern } => pattern.clone(),
            ResourceAddress::Ip { address } => address.to_string(),
            ResourceAddress::Cidr { network } => network.to_string(),
            ResourceAddress::Internet => "internet".to_owned(),
        },
        site: status.site.clone(),
        state,
        gateway,
    }
}

/// How names are resolved; nothing before the interface is up.
pub(super) fn dns(snapshot: &Snapshot) -> Option<DnsReport> {
    let InterfaceState::Up { is_dns_controlled, resolver, .. } = &snapshot.interface else { return None };
    let names = &snapshot.names;
    let pattern = |resource: &engine::ResourceStatus| match &resource.address {
        ResourceAddress::Dns { pattern } => Some(pattern.clone()),
        _ => None,
    };
    let mut match_domains: Vec<String> = snapshot.resources.iter().filter_map(pattern).collect();
    match_domains.sort_unstable();
    match_domains.dedup();
    Some(DnsReport {
        controller: (*resolver).to_owned(),
        is_controlled: *is_dns_controlled && *resolver != "off",
        resolvers: names.resolvers.clone(),
        upstreams: names.upstreams.clone(),
        upstreams_from: match (names.are_upstreams_of_portal, names.is_over_https) {
            (true, _) => UpstreamSource::Portal,
            (false, true) => UpstreamSource::Https,
            (false, false) => UpstreamSource::System,
        },
        search_domains: names.search_domains.clone(),
        match_domains,
    })
}

/// A setting for front ends.
pub(super) fn setting(setting: settings::Setting) -> Setting {
    Setting {
        name: setting.name,
        value: setting.value,
        source: match setting.source {
            Source::Flag => SettingSource::Flag,
            Source::Environment => SettingSource::Environment,
            Source::File => SettingSource::File,
            Source::Default => SettingSource::Default,
        },
    }
}

/// Where packets to `destination` go, and why.
pub(super) fn route(snapshot: &Snapshot, destination: &str) -> RouteReport {
    let mut report = RouteReport {
        destination: destination.to_owned(),
        resource: None,
        address: None,
        site: None,
        state: None,
        gateway: None,
        path: None,
        round_trip_ms: None,
        collision: destination.parse::<IpAddr>().ok().and_then(|address| {
            let found = snapshot.collisions.iter().find(|found| found.taken().contains(&address));
            found.map(collision)
        }),
    };
    if let engine::Route::Resource(found) = engine::route(&snapshot.resources, destination) {
        let shown = resource(found, snapshot);
        let by_name =
            |connection: &&engine::ConnectionStatus| Some(&connection.name) == shown.gateway.as_ref();
        let path = snapshot.connections.iter().find(by_name).and_then(|connection| connection.path);
        report.path = path.as_ref().map(kind);
        report.round_trip_ms = path.as_ref().and_then(milliseconds);
        report.resource = Some(shown.name);
        report.address = Some(shown.address);
        report.site = Some(shown.site);
        report.state = Some(shown.state);
        report.gateway = shown.gateway;
    }
    report
}

/// The answer to `adit ping`.
pub(super) fn ping(result: &PingResult) -> PingReport {
    PingReport {
        resource: result.resource.clone(),
        gateway: result.gateway.clone(),
        path: kind(&result.path),
        round_trip_ms: milliseconds(&result.path),
        handshake_age_s: result.handshake_age.map(|age| age.as_secs_f64()),
        connected_in_ms: result.connected_in.as_secs_f64() * 1000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up() -> InterfaceState {
        InterfaceState::Up {
            ipv4: "100.64.0.1".parse().unwrap(),
            ipv6: "fd00::1".parse().unwrap(),
            is_dns_controlled: true,
            resolver: "resolv.conf",
        }
    }

    fn state(portal: PortalState, interface: InterfaceState) -> (State, Option<Reason>) {
        let (state, reason, _) = state_of(&Snapshot { portal, interface, ..Snapshot::default() });
        (state, reason)
    }

    #[test]
    fn the_end_is_announced_a_day_ahead_and_not_all_the_time() {
        let hours = |hours: u64| hours * 3_600_000;
        let month = Some(hours(720));
        assert!(!is_expiring(hours(695), Some(0), month));
        assert!(is_expiring(hours(697), Some(0), month));
        assert!(is_expiring(hours(697), None, month), "a token that nobody signed in for");
        assert!(!is_expiring(hours(5), Some(0), Some(hours(8))), "a working day");
        assert!(is_expiring(hours(7), Some(0), Some(hours(8))));
        assert!(!is_expiring(hours(7), Some(0), None));
    }

    #[test]
    fn a_session_that_was_ended_does_not_end_soon() {
        let constants = Constants {
            profile: None,
            portal: String::new(),
            interface: String::new(),
            log_directory: String::new(),
        };
        let sign_in = adit_protocol::client::SignIn {
            authenticated_at_ms: Some(1),
            expires_at_ms: Some(1000),
            is_too_old: true,
        };
        let mut snapshot = Snapshot {
            portal: PortalState::Connected,
            session_expires_at_ms: Some(1000),
            sign_in: Some(sign_in),
            ..Snapshot::default()
        };
        let status = constants.running(&snapshot).status;
        assert_eq!((status.authenticated_at_ms, status.session_expires_at_ms), (Some(1), Some(1000)));
        assert!(status.is_expiring && status.is_sign_in_too_old);
        snapshot.portal = PortalState::Dead { reason: FatalReason::RevokedToken };
        let status = constants.running(&snapshot).status;
        assert_eq!((status.authenticated_at_ms, status.session_expires_at_ms), (None, None));
        assert!(!status.is_expiring && !status.is_sign_in_too_old);
    }

    #[test]
    fn an_address_in_use_twice_is_shown_with_its_reason() {
        let taken = engine::Collision {
            kind: CollisionKind::TunnelRange,
            network: "100.100.7.0/24".parse().unwrap(),
            interface: Some("eth0".to_owned()),
            claimed: "100.96.0.0/11".parse().unwrap(),
            resource: None,
        };
        let snapshot = Snapshot { collisions: vec![taken], ..Snapshot::default() };
        let shown = route(&snapshot, "100.100.7.9").collision.unwrap();
        assert_eq!((shown.reason, shown.addresses.as_str()), (Reason::TunnelRangeTaken, "100.100.7.0/24"));
        assert_eq!(route(&snapshot, "100.100.8.9").collision, None);
        assert_eq!(route(&snapshot, "wiki.corp").collision, None);
    }

    #[test]
    fn each_state_has_its_cause() {
        let lost = || PortalState::Lost { reason: "no route".to_owned() };
        assert_eq!(state(PortalState::Connecting, InterfaceState::Waiting), (State::ConnectingPortal, None));
        assert_eq!(state(PortalState::Connected, InterfaceState::Waiting), (State::Configuring, None));
        assert_eq!(state(PortalState::Connected, up()), (State::Online, None));
        assert_eq!(state(lost(), up()), (State::Degraded, Some(Reason::PortalUnreachable)));
        let dead = PortalState::Dead { reason: FatalReason::ExpiredToken };
        assert_eq!(state(dead, up()), (State::Blocked, Some(Reason::ExpiredToken)));
    }
}
