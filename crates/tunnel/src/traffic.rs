//! What the first packet of a flow is, as the flow table and the filters see it.

use std::net::IpAddr;

use adit_dataplane::{FlowKey, Origin};
use adit_packet::{FlowTuple, PacketView, TcpFlags, Transport};
use adit_policy::Traffic;

/// A packet that may start a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FirstPacket {
    /// The flow it would start.
    pub(crate) tuple: FlowTuple,
    /// What the filters see.
    pub(crate) traffic: Traffic,
}

impl FirstPacket {
    /// `None` for packets that start nothing: errors, replies, resets, later fragments.
    ///
    /// A TCP packet in the middle of a connection does start a flow: flows come back after a
    /// change of path, gateway or policy, and the ends do not notice.
    pub(crate) fn of(view: &PacketView) -> Option<Self> {
        let traffic = match view.transport() {
            Transport::Tcp { flags, .. } if flags.contains(TcpFlags::RST) => return None,
            Transport::Tcp { destination_port, .. } => Traffic::Tcp(destination_port),
            Transport::Udp { destination_port, .. } => Traffic::Udp(destination_port),
            Transport::Echo { request: true, .. } => Traffic::Icmp,
            Transport::Other => Traffic::Other(view.protocol()),
            Transport::Echo { request: false, .. }
            | Transport::IcmpError { .. }
            | Transport::Icmp { .. }
            | Transport::LaterFragment => return None,
        };
        let portless = FlowTuple {
            protocol: view.protocol(),
            source: view.source(),
            destination: view.destination(),
            source_port: 0,
            destination_port: 0,
        };
        Some(Self { tuple: view.flow().unwrap_or(portless), traffic })
    }

    /// The key under which a worker looks up this packet and those that follow it.
    pub(crate) const fn key(&self, origin: Origin) -> FlowKey {
        FlowKey::new(origin, self.tuple)
    }

    pub(crate) const fn destination(&self) -> IpAddr {
        self.tuple.destination
    }
}
