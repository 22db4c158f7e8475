//! Who may ask the daemon for what, by the kernel's word for who they are.

use std::ffi::CString;

use adit_client_ipc::Access;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::UnixStream;

/// Members of this group may operate the client.
const GROUP: &str = "adit";

/// Decides what a front end may ask for.
#[derive(Debug)]
pub(super) struct Authority {
    group: Option<Gid>,
}

impl Authority {
    /// Looks the group `adit` up; without it only root operates the client.
    pub(super) fn from_system() -> Self {
        let group = Group::from_name(GROUP).ok().flatten().map(|group| group.gid);
        if group.is_none() {
            tracing::info!("there is no group `{GROUP}`: only root may operate the client");
        }
        Self { group }
    }

    /// The tier of the process at the other end of `stream`; the lowest when the kernel
    /// does not say.
    pub(super) fn access(&self, stream: &UnixStream) -> Access {
        match stream.peer_cred() {
            Ok(credentials) => self.tier(Uid::from_raw(credentials.uid()), Gid::from_raw(credentials.gid())),
            Err(error) => {
                tracing::debug!(%error, "no credentials for a front end");
                Access::Observe
            }
        }
    }

    fn tier(&self, user: Uid, group: Gid) -> Access {
        if user.is_root() {
            return Access::Admin;
        }
        let Some(ours) = self.group else {
            return Access::Observe;
        };
        if group == ours || groups_of(user, group).contains(&ours) {
            Access::Operate
        } else {
            Access::Observe
        }
    }
}

fn groups_of(user: Uid, group: Gid) -> Vec<Gid> {
    let name = User::from_uid(user).ok().flatten().and_then(|user| CString::new(user.name).ok());
    name.and_then(|name| getgrouplist(&name, group).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Gid = Gid::from_raw(4242);
    const NOBODY: Uid = Uid::from_raw(65534);

    #[test]
    fn tiers_follow_user_and_group() {
        let authority = Authority { group: Some(OURS) };
        assert_eq!(authority.tier(Uid::from_raw(0), Gid::from_raw(0)), Access::Admin);
        assert_eq!(authority.tier(NOBODY, OURS), Access::Operate);
        assert_eq!(authority.tier(NOBODY, Gid::from_raw(65534)), Access::Observe);
    }

    #[test]
    fn without_the_group_only_root_operates() {
        let authority = Authority { group: None };
        assert_eq!(authority.tier(NOBODY, OURS), Access::Observe);
        assert_eq!(authority.tier(Uid::from_raw(0), OURS), Access::Admin);
    }
}
