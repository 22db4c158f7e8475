//! `adit wait`, and `adit up --wait`: until something is so, or it is clear that it will not be.

use std::time::{Duration, Instant};

use adit_client_ipc::{Event, FrontEnd, Reason, Request, ResourceState, ResourceStatus, State, Status};

use super::args::Awaited;
use super::exit::Failure;
use super::progress::Progress;
use super::{CALL_LIMIT, fetch_resources, fetch_status, render};

/// Waits, at most for `limit`.
pub(super) async fn wait(
    daemon: &mut FrontEnd,
    what: &Awaited,
    limit: Duration,
    json: bool,
) -> Result<(), Failure> {
    let deadline = Instant::now() + limit;
    let progress = Progress::start(json, "Asking the daemon");
    daemon.call(Request::Subscribe {}, CALL_LIMIT).await?;
    let mut status = fetch_status(daemon).await?;
    let mut resources = fetch_resources(daemon).await?;
    while !is_so(what, &status, &resources)? {
        progress.stage(stage(what, &status));
        let left = deadline.saturating_duration_since(Instant::now());
        let event = tokio::time::timeout(left, daemon.next_event())
            .await
            .map_err(|_| Failure::timeout(format!("not so after {} s", limit.as_secs())))??;
        match event {
            Event::Status(new) => status = *new,
            Event::Resources(new) => resources = new,
            Event::LoginEnded(_) => {}
        }
    }
    Ok(())
}

/// What is being waited for, for people.
fn stage(what: &Awaited, status: &Status) -> String {
    match what {
        Awaited::Resource(name) if matches!(status.state, State::Online | State::Degraded) => {
            format!("Waiting for a path to {name}")
        }
        _ => format!("Waiting; the client is {}", render::state_name(status.state)),
    }
}

/// Whether it is so now; an error if waiting is in vain.
fn is_so(what: &Awaited, status: &Status, resources: &[ResourceStatus]) -> Result<bool, Failure> {
    if *what == Awaited::Disconnected {
        return Ok(matches!(status.state, State::SignedOut | State::WaitingBrowser | State::Blocked));
    }
    match status.state {
        State::Online | State::Degraded => {}
        State::Blocked => return Err(Failure::blocked(status)),
        State::SignedOut if status.reason == Some(Reason::NoToken) => return Err(Failure::signed_out()),
        _ => return Ok(false),
    }
    let Awaited::Resource(wanted) = what else { return Ok(true) };
    let mut named = resources.iter().filter(|resource| resource.name == *wanted);
    Ok(named.any(|resource| resource.state == ResourceState::Connected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(state: State, reason: Option<Reason>) -> Status {
        Status {
            profile: None,
            schema: 1,
            state,
            reason,
            detail: None,
            version: String::new(),
            portal: String::new(),
            actor: None,
            ipv4: None,
            ipv6: None,
            interface: None,
            resolver: None,
            log_directory: String::new(),
            session_expires_at_ms: None,
            authenticated_at_ms: None,
            is_expiring: false,
            is_sign_in_too_old: false,
            login: None,
            connections: Vec::new(),
            collisions: Vec::new(),
        }
    }

    fn resource(state: ResourceState) -> ResourceStatus {
        ResourceStatus {
            id: uuid::Uuid::nil(),
            name: "wiki".to_owned(),
            address: "wiki.corp".to_owned(),
            site: "hq".to_owned(),
            state,
            gateway: None,
        }
    }

    #[test]
    fn online_is_waited_for_unless_it_cannot_come() {
        let online = |state, reason| is_so(&Awaited::Online, &status(state, reason), &[]);
        assert!(online(State::Online, None).unwrap());
        assert!(online(State::Degraded, None).unwrap());
        assert!(!online(State::ConnectingPortal, None).unwrap());
        assert!(!online(State::SignedOut, Some(Reason::Disconnected)).unwrap(), "somebody may connect");
        assert!(online(State::SignedOut, Some(Reason::NoToken)).is_err());
        assert!(online(State::Blocked, Some(Reason::RevokedToken)).is_err());
    }

    #[test]
    fn a_resource_is_there_when_its_path_stands() {
        let wiki = Awaited::Resource("wiki".to_owned());
        let online = status(State::Online, None);
        assert!(is_so(&wiki, &online, &[resource(ResourceState::Connected)]).unwrap());
        assert!(!is_so(&wiki, &online, &[resource(ResourceState::Connecting)]).unwrap());
        assert!(!is_so(&wiki, &online, &[]).unwrap());
        assert!(is_so(&Awaited::Disconnected, &status(State::SignedOut, None), &[]).unwrap());
    }
}
