//! Address translators in the words of RFC 4787.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// How a NAT maps and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NatKind {
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, address- and port-dependent filtering.
    PortRestricted,
    /// Address- and port-dependent mapping and filtering.
    Symmetric,
}

/// One NAT with its table. Mappings do not age.
#[derive(Debug)]
pub(crate) struct Nat {
    kind: NatKind,
    pub(crate) public: IpAddr,
    ports: BTreeMap<(SocketAddr, Option<SocketAddr>), u16>,
    inside: BTreeMap<u16, SocketAddr>,
    allowed: BTreeSet<(u16, SocketAddr)>,
    next_port: u16,
}

impl Nat {
    pub(crate) fn new(kind: NatKind, public: IpAddr) -> Self {
        Self {
            kind,
            public,
            ports: BTreeMap::new(),
            inside: BTreeMap::new(),
            allowed: BTreeSet::new(),
            next_port: 20_000,
        }
    }

    /// The source that the world sees.
    pub(crate) fn outbound(&mut self, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        let key = (from, (self.kind == NatKind::Symmetric).then_some(to));
        let port = *self.ports.entry(key).or_insert_with(|| {
            self.next_port += 1;
            self.inside.insert(self.next_port, from);
            self.next_port
        });
        self.allowed.insert((port, to));
        SocketAddr::new(self.public, port)
    }

    /// The host that a datagram from the world reaches, if any.
    pub(crate) fn inbound(&self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        let open = self.kind == NatKind::FullCone || self.allowed.contains(&(to.port(), from));
        open.then(|| self.inside.get(&to.port()).copied()).flatten()
    }

    /// The NAT restarts and knows nobody.
    pub(crate) fn forget(&mut self) {
        self.ports.clear();
        self.inside.clear();
        self.allowed.clear();
    }
}
