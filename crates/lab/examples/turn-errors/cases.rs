//! The list: what is asked, and what the RFCs want as the answer.

use std::net::{IpAddr, SocketAddr};

use adit_turn::stun::{AttributeKind, Method, Writer};
use anyhow::{Result, bail};

use crate::session::{Code, Session, allocate, start};

/// Any port of a peer.
const PEER_PORT: u16 = 7;

/// An attribute that no server knows and that must be understood.
const UNKNOWN: AttributeKind = AttributeKind(0x7f01);

/// The server and what is around it.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) server: SocketAddr,
    pub(crate) secret: String,
    pub(crate) peer: IpAddr,
    pub(crate) other_peer: IpAddr,
    pub(crate) forbidden_peer: IpAddr,
    pub(crate) quota: usize,
    pub(crate) capacity: usize,
}

/// One thing to refuse.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The code that the RFC names.
    pub(crate) expected: u16,
    pub(crate) section: &'static str,
    /// Asks as a user of this name.
    pub(crate) ask: fn(&Ground, &str) -> Result<Code>,
}

const fn case(
    expected: u16,
    name: &'static str,
    section: &'static str,
    ask: fn(&Ground, &str) -> Result<Code>,
) -> Case {
    Case { name, expected, section, ask }
}

/// Every case. Those that use up what the server has come last.
pub(crate) const ALL: &[Case] = &[
    case(400, "credentials without a nonce", "8489 9.2.4", |ground, user| {
        let session = ground.session(user)?;
        session.send(&session.sign(allocate(start(Method::ALLOCATE)?), false))
    }),
    case(400, "Allocate without a transport", "8656 7.2", |ground, user| {
        ground.session(user)?.ask(Method::ALLOCATE, |request| request)
    }),
    case(400, "CreatePermission without a peer", "8656 10.2", |ground, user| {
        ground.allocated(user)?.ask(Method::CREATE_PERMISSION, |request| request)
    }),
    case(400, "ChannelBind without a number", "8656 12.2", |ground, user| {
        ground.allocated(user)?.ask(Method::CHANNEL_BIND, |request| ground.peer(request, ground.peer))
    }),
    case(400, "a channel number out of range", "8656 12.2", |ground, user| {
        ground
            .allocated(user)?
            .ask(Method::CHANNEL_BIND, |request| ground.channel(request, 0x3fff, PEER_PORT))
    }),
    case(400, "a channel for a second peer", "8656 12.2", |ground, user| {
        let session = ground.allocated(user)?;
        session.must(Method::CHANNEL_BIND, |request| ground.channel(request, 0x4001, PEER_PORT))?;
        session.ask(Method::CHANNEL_BIND, |request| ground.channel(request, 0x4001, PEER_PORT + 1))
    }),
    case(400, "a peer with a second channel", "8656 12.2", |ground, user| {
        let session = ground.allocated(user)?;
        session.must(Method::CHANNEL_BIND, |request| ground.channel(request, 0x4001, PEER_PORT))?;
        session.ask(Method::CHANNEL_BIND, |request| ground.channel(request, 0x4002, PEER_PORT))
    }),
    case(401, "no credentials", "8489 9.2.4", |ground, user| {
        ground.session(user)?.send(&allocate(start(Method::ALLOCATE)?).finish())
    }),
    case(401, "a wrong password", "8489 9.2.4", |ground, user| {
        let mut session = ground.session(user)?;
        session.forget_password();
        session.ask(Method::ALLOCATE, allocate)
    }),
    case(403, "a permission for a forbidden peer", "8656 10.2", |ground, user| {
        let peer = |request| ground.peer(request, ground.forbidden_peer);
        ground.allocated(user)?.ask(Method::CREATE_PERMISSION, peer)
    }),
    case(403, "a channel to a forbidden peer", "8656 12.2", |ground, user| {
        ground
            .allocated(user)?
            .ask(Method::CHANNEL_BIND, |request| ground.peer(number(request, 0x4001), ground.forbidden_peer))
    }),
    case(420, "an unknown attribute", "8489 6.3.1", |ground, user| {
        ground.session(user)?.ask(Method::ALLOCATE, |request| allocate(request).attribute(UNKNOWN, &[0; 4]))
    }),
    case(437, "a second Allocate", "8656 7.2", |ground, user| {
        ground.allocated(user)?.ask(Method::ALLOCATE, allocate)
    }),
    case(437, "Refresh without an allocation", "8656 8.2", |ground, user| {
        ground.session(user)?.ask(Method::REFRESH, |request| request.number(AttributeKind::LIFETIME, 600))
    }),
    case(437, "CreatePermission without an allocation", "8656 5", |ground, user| {
        ground.session(user)?.ask(Method::CREATE_PERMISSION, |request| ground.peer(request, ground.peer))
    }),
    case(437, "ChannelBind without an allocation", "8656 5", |ground, user| {
        ground.session(user)?.ask(Method::CHANNEL_BIND, |request| ground.channel(request, 0x4001, PEER_PORT))
    }),
    case(438, "a nonce of somebody's own making", "8489 9.2.4", |ground, user| {
        let mut session = ground.session(user)?;
        session.nonce.iter_mut().rev().take(4).for_each(|byte| *byte ^= 1);
        session.ask(Method::ALLOCATE, allocate)
    }),
    case(440, "an address family that is none", "8656 7.2", |ground, user| {
        ground.session(user)?.ask(Method::ALLOCATE, |request| {
            allocate(request).attribute(AttributeKind::REQUESTED_ADDRESS_FAMILY, &[9, 0, 0, 0])
        })
    }),
    case(441, "another user's Refresh", "8656 5", |ground, user| {
        ground.usurped(user)?.ask(Method::REFRESH, |request| request.number(AttributeKind::LIFETIME, 600))
    }),
    case(441, "another user's ChannelBind", "8656 5", |ground, user| {
        ground.usurped(user)?.ask(Method::CHANNEL_BIND, |request| ground.channel(request, 0x4001, PEER_PORT))
    }),
    case(442, "an allocation for TCP", "8656 7.2", |ground, user| {
        ground.session(user)?.ask(Method::ALLOCATE, |request| {
            request.attribute(AttributeKind::REQUESTED_TRANSPORT, &[6, 0, 0, 0])
        })
    }),
    case(442, "an allocation for a transport of the future", "8656 7.2", |ground, user| {
        ground.session(user)?.ask(Method::ALLOCATE, |request| {
            request.attribute(AttributeKind::REQUESTED_TRANSPORT, &[253, 0, 0, 0])
        })
    }),
    case(443, "Refresh of the other family", "8656 8.2", |ground, user| {
        let other = if ground.peer.is_ipv4() { 2 } else { 1 };
        ground.allocated(user)?.ask(Method::REFRESH, |request| {
            request.attribute(AttributeKind::REQUESTED_ADDRESS_FAMILY, &[other, 0, 0, 0])
        })
    }),
    case(443, "a permission for the other family", "8656 10.2", |ground, user| {
        let peer = |request| ground.peer(request, ground.other_peer);
        ground.allocated(user)?.ask(Method::CREATE_PERMISSION, peer)
    }),
    case(443, "a channel to the other family", "8656 12.2", |ground, user| {
        ground
            .allocated(user)?
            .ask(Method::CHANNEL_BIND, |request| ground.peer(number(request, 0x4001), ground.other_peer))
    }),
    case(486, "more allocations than a user may have", "8656 7.2", |ground, user| {
        let sessions = ground.allocate_many(ground.quota, |_| user.to_owned())?;
        let answer = ground.session(user)?.ask(Method::ALLOCATE, allocate)?;
        sessions.iter().try_for_each(Session::end)?;
        Ok(answer)
    }),
    case(508, "more allocations than there are ports", "8656 7.2", |ground, _| {
        let user = |index: usize| format!("many{}", index / ground.quota);
        let mut sessions = Vec::new();
        // Ports of earlier cases may be resting, so it can be fewer.
        for index in 0..=ground.capacity {
            let session = ground.session(&user(index))?;
            match session.ask(Method::ALLOCATE, allocate)? {
                Some(0) => sessions.push(session),
                refused => {
                    sessions.iter().try_for_each(Session::end)?;
                    return Ok(refused);
                }
            }
        }
        Ok(Some(0))
    }),
];

impl Ground {
    fn session(&self, user: &str) -> Result<Session> {
        // coturn lets nobody in whose name could be part of a database query.
        let user: String = user.chars().filter(char::is_ascii_alphanumeric).collect();
        Session::new(self.server, &self.secret, &user)
    }

    /// A session with an allocation of the server's own family.
    fn allocated(&self, user: &str) -> Result<Session> {
        let session = self.session(user)?;
        session.must(Method::ALLOCATE, allocate)?;
        Ok(session)
    }

    /// An allocation whose socket somebody else uses now.
    fn usurped(&self, user: &str) -> Result<Session> {
        let mut session = self.allocated(user)?;
        session.become_user(&self.session("usurper")?);
        Ok(session)
    }

    fn allocate_many(&self, count: usize, user: impl Fn(usize) -> String) -> Result<Vec<Session>> {
        (0..count).map(|index| self.allocated(&user(index))).collect()
    }

    fn peer(&self, request: Writer, ip: IpAddr) -> Writer {
        request.xor_address(AttributeKind::XOR_PEER_ADDRESS, SocketAddr::new(ip, PEER_PORT))
    }

    fn channel(&self, request: Writer, channel: u16, port: u16) -> Writer {
        let peer = SocketAddr::new(self.peer, port);
        number(request, channel).xor_address(AttributeKind::XOR_PEER_ADDRESS, peer)
    }
}

impl Session {
    /// Asks for what must be granted, so that something else can be refused.
    fn must(&self, method: Method, attributes: impl FnOnce(Writer) -> Writer) -> Result<()> {
        match self.ask(method, attributes)? {
            Some(0) => Ok(()),
            refused => bail!("{method:?} was not granted: {refused:?}"),
        }
    }

    /// Gives the allocation back.
    fn end(&self) -> Result<()> {
        self.must(Method::REFRESH, |request| request.number(AttributeKind::LIFETIME, 0))
    }
}

fn number(request: Writer, channel: u16) -> Writer {
    let [high, low] = channel.to_be_bytes();
    request.attribute(AttributeKind::CHANNEL_NUMBER, &[high, low, 0, 0])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_that_a_server_must_know_is_provoked() {
        let codes: BTreeSet<u16> = ALL.iter().map(|case| case.expected).collect();
        let wanted = BTreeSet::from([400, 401, 403, 420, 437, 438, 440, 441, 442, 443, 486, 508]);
        assert_eq!(codes, wanted);
        let names: BTreeSet<&str> = ALL.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
