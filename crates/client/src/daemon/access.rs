//! Who may ask the daemon for what, by the kernel's word for who they are.
//!
//! Root does everything. Members of a group, and whoever sits at the machine, operate it: the login manager says who
//! that is, and a front end that stays when another person takes the seat only looks on from then. Everybody else only
//! looks on.

use std::collections::BTreeSet;
use std::ffi::CString;

use adit_client_ipc::Access;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use tokio::net::UnixStream;
use tokio::sync::watch;

/// Users, by number, whose sessions are active at a seat.
pub(super) type ActiveUsers = watch::Receiver<BTreeSet<u32>>;

/// Members of this group may operate the client.
const GROUP: &str = "adit";

/// Decides what a front end may ask for.
#[derive(Debug)]
pub(super) struct Authority {
    group: Option<Gid>,
    active_users: ActiveUsers,
}

/// What one front end may ask for, which can change while it stays.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    /// By user and group, for good.
    lasting: Access,
    /// Nobody, when the kernel did not say.
    user: Option<u32>,
    active_users: ActiveUsers,
}

impl Standing {
    /// What it may ask for at this moment.
    pub(super) fn access(&self) -> Access {
        let sits_here = self.user.is_some_and(|user| self.active_users.borrow().contains(&user));
        if sits_here { self.lasting.max(Access::Operate) } else { self.lasting }
    }
}

impl Authority {
    /// Looks the group `adit` up; without it only root and whoever sits here operate the client.
    pub(super) fn from_system(active_users: ActiveUsers) -> Self {
        let group = Group::from_name(GROUP).ok().flatten().map(|group| group.gid);
        if group.is_none() {
            tracing::info!(
                "there is no group `{GROUP}`: only root and whoever sits here may operate the client"
            );
        }
        Self { group, active_users }
    }

    /// The standing of the process at the other end of `stream`; the lowest when the kernel does not say who it is.
    pub(super) fn standing(&self, stream: &UnixStream) -> Standing {
        let (lasting, user) = match stream.peer_cred() {
            Ok(credentials) => {
                let (user, group) = (credentials.uid(), credentials.gid());
                (self.tier(Uid::from_raw(user), Gid::from_raw(group)), Some(user))
            }
            Err(error) => {
                tracing::debug!(%error, "no credentials for a front end");
                (Access::Observe, None)
            }
        };
        Standing { lasting, user, active_users: self.active_users.clone() }
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

    fn authority(group: Option<Gid>) -> Authority {
        Authority { group, active_users: watch::channel(BTreeSet::new()).1 }
    }

    #[test]
    fn tiers_follow_user_and_group() {
        let authority = authority(Some(OURS));
        assert_eq!(authority.tier(Uid::from_raw(0), Gid::from_raw(0)), Access::Admin);
        assert_eq!(authority.tier(NOBODY, OURS), Access::Operate);
        assert_eq!(authority.tier(NOBODY, Gid::from_raw(65534)), Access::Observe);
    }

    #[test]
    fn without_the_group_only_root_operates() {
        let authority = authority(None);
        assert_eq!(authority.tier(NOBODY, OURS), Access::Observe);
        assert_eq!(authority.tier(Uid::from_raw(0), OURS), Access::Admin);
    }

    #[test]
    fn whoever_sits_here_operates_for_as_long() {
        let (seat, active_users) = watch::channel(BTreeSet::new());
        let of = |lasting, user| Standing { lasting, user, active_users: active_users.clone() };
        let (ana, unknown) = (of(Access::Observe, Some(1000)), of(Access::Observe, None));
        let root = of(Access::Admin, Some(0));
        assert_eq!(ana.access(), Access::Observe);
        seat.send_replace([0, 1000].into());
        assert_eq!(ana.access(), Access::Operate);
        assert_eq!((unknown.access(), root.access()), (Access::Observe, Access::Admin));
        seat.send_replace([1001].into());
        assert_eq!(ana.access(), Access::Observe);
    }
}
