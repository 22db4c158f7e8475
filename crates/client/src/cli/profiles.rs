//! `adit profiles`: the daemons of this device, one for each network that it is in.
//!
//! Whoever asks may see no state directories, so profiles are found by their sockets: those whose daemons run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::exit::Failure;
use super::{print, render};
use adit_client_ipc::{DEFAULT_SOCKET, FrontEnd, PROFILE_SOCKETS, ProfileStatus, Request, Response, Status};

/// How long one daemon may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// `adit profiles`.
pub(super) async fn list(json: bool) -> Result<(), Failure> {
    let mut listed = Vec::new();
    for socket in sockets(Path::new(DEFAULT_SOCKET), Path::new(PROFILE_SOCKETS)) {
        if let Some(status) = status(&socket).await {
            listed.push(ProfileStatus::from(status));
        }
    }
    print(&if json { render::json_list("profiles", &listed)? } else { table(&listed) })
}

/// The one without a name first, the others by name.
fn sockets(first: &Path, directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut others: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "sock")).collect();
    others.sort();
    std::iter::once(first.to_owned()).chain(others).collect()
}

/// Nothing of a daemon that is gone or does not answer.
async fn status(socket: &Path) -> Option<Status> {
    let mut daemon = tokio::time::timeout(PATIENCE, FrontEnd::connect(socket)).await.ok()?.ok()?;
    match daemon.call(Request::Status {}, PATIENCE).await.ok()? {
        Response::Status(status) => Some(*status),
        _ => None,
    }
}

fn table(listed: &[ProfileStatus]) -> String {
    if listed.is_empty() {
        return "No daemon runs here.\n".to_owned();
    }
    let mut text = format!("{:<16} {:<24} {:<10} PORTAL\n", "PROFILE", "STATE", "INTERFACE");
    for ProfileStatus { profile, state, portal, interface, .. } in listed {
        let (profile, interface) = (profile.as_deref().unwrap_or("-"), interface.as_deref().unwrap_or("-"));
        text += &format!("{profile:<16} {:<24} {interface:<10} {portal}\n", render::state_name(*state));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_their_sockets() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["work.sock", "home.sock", "work.sock.new"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let first = Path::new("/run/adit/aditd.sock");
        let found = sockets(first, directory.path());
        assert_eq!(found[0], first);
        let names: Vec<_> = found[1..].iter().filter_map(|path| path.file_name()).collect();
        assert_eq!(names, ["home.sock", "work.sock"]);
        assert_eq!(sockets(first, Path::new("/nowhere")), [first]);
    }

    #[tokio::test]
    async fn a_socket_that_nobody_serves_is_no_profile() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("work.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(status(&path).await.is_none());
    }
}
