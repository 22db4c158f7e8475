//! A flow key as an entry keeps it: eight bytes shorter, which counts a million times.

use std::net::IpAddr;

use crate::{FlowKey, Origin, PeerId};

/// No peer: the control thread counts them from zero and does not come so far.
const LOCAL: u64 = u64::MAX;

/// A [`FlowKey`] without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PackedKey {
    origin: u64,
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    protocol: u8,
}

impl PackedKey {
    pub(crate) const fn new(key: &FlowKey) -> Self {
        let FlowKey { origin, protocol, source, destination, source_port, destination_port } = *key;
        let origin = match origin {
            Origin::Local => LOCAL,
            Origin::Peer(PeerId(number)) => number,
        };
        Self { origin, source, destination, source_port, destination_port, protocol }
    }

    pub(crate) const fn unpack(&self) -> FlowKey {
        let Self { source, destination, source_port, destination_port, protocol, .. } = *self;
        FlowKey { origin: self.origin(), protocol, source, destination, source_port, destination_port }
    }

    pub(crate) const fn origin(&self) -> Origin {
        if self.origin == LOCAL { Origin::Local } else { Origin::Peer(PeerId(self.origin)) }
    }

    pub(crate) const fn protocol(&self) -> u8 {
        self.protocol
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_as_it_was() {
        for origin in [Origin::Local, Origin::Peer(PeerId(0)), Origin::Peer(PeerId(7))] {
            let key = FlowKey {
                origin,
                protocol: 17,
                source: [10, 0, 0, 1].into(),
                destination: std::net::Ipv6Addr::LOCALHOST.into(),
                source_port: 1,
                destination_port: 2,
            };
            assert_eq!(PackedKey::new(&key).unpack(), key);
            assert_eq!(PackedKey::new(&key).origin(), origin);
        }
    }
}
