//! From a packet to its flow, the same in both directions.

use std::net::IpAddr;

use adit_packet::offload::SuperPacket;
use adit_packet::{FlowTuple, PacketView, Quoted, Rewrite, Transport, protocol};

use super::Worker;
use crate::flow::translation;
use crate::table::{Entry, Handle, Verdict};
use crate::{DropReason, FlowKey, Origin};

/// Why a packet does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The control thread decides.
    Miss,
    /// Its flow lets it pass, but into the other IP family.
    OtherFamily(Handle),
    /// Longer than this many bytes, which is what the path carries.
    TooBig(u16),
    /// Dropped.
    Drop(DropReason),
}

impl From<DropReason> for Stop {
    fn from(reason: DropReason) -> Self {
        Self::Drop(reason)
    }
}

/// A packet whose flow lets it pass.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) view: PacketView,
    handle: Handle,
    /// An ICMP error about the flow, not a packet of it.
    is_error: bool,
}

/// Whether a packet is a peer-to-peer control message, by its headers.
pub(super) fn is_control(view: &PacketView) -> bool {
    !view.is_ipv4() && view.protocol() == protocol::EXPERIMENT
}

impl Worker {
    /// Finds the flow of a packet from `origin`. Changes nothing but expired entries.
    pub(super) fn route(
        &mut self,
        now: u64,
        origin: Origin,
        packet: &[u8],
        view: PacketView,
    ) -> Result<Route, Stop> {
        let is_error = matches!(view.transport(), Transport::IcmpError { .. });
        let (handle, entry) = match view.transport() {
            Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Echo { .. } => {
                let tuple = view.flow().ok_or(DropReason::MalformedPacket)?;
                self.table.lookup(now, &FlowKey::new(origin, tuple)).ok_or(Stop::Miss)?
            }
            Transport::Other => {
                let key = FlowKey::new(origin, portless(&view));
                self.table.lookup(now, &key).ok_or(Stop::Miss)?
            }
            Transport::IcmpError { .. } => {
                let tuple = tuple_behind_error(packet, &view)?;
                let found = self.table.lookup(now, &FlowKey::new(origin, tuple));
                let (handle, entry) = found.ok_or(DropReason::UnrelatedIcmpError)?;
                // Any router beyond us may report on a flow, but a peer that started it is its
                // end: under another address it would speak in the name of somebody else.
                let is_from_its_start = matches!(origin, Origin::Peer(_)) && !handle.reply;
                if is_from_its_start && view.source() != tuple.source {
                    return Err(DropReason::UnrelatedIcmpError.into());
                }
                (handle, entry)
            }
            Transport::LaterFragment => {
                let handle = self.fragments.find(now, origin, &view);
                let handle = handle.ok_or(DropReason::FragmentWithoutFirst)?;
                let entry = self.table.get(now, handle).ok_or(DropReason::FragmentWithoutFirst)?;
                (handle, entry)
            }
            Transport::Icmp { .. } => return Err(DropReason::UnsupportedIcmp.into()),
        };
        match entry.verdict {
            // Replies have no packets before them that anybody could still have.
            Verdict::Pass { .. } | Verdict::Translate { .. } if entry.is_held && !handle.reply => {
                self.table.note_held(Some(handle.number));
                Err(Stop::Miss)
            }
            Verdict::Pass { .. } => Ok(Route { view, handle, is_error }),
            Verdict::Translate { .. } => Err(Stop::OtherFamily(handle)),
            Verdict::Refuse { reason, .. } => Err(reason.into()),
        }
    }

    /// Where packets of a route go.
    pub(super) fn next_hop(&mut self, now: u64, route: &Route) -> Result<Origin, Stop> {
        let entry = self.table.get(now, route.handle).ok_or(Stop::Miss)?;
        Ok(entry.keys[usize::from(!route.handle.reply)].origin())
    }

    /// Rewrites a packet from the TUN device for its peer and accounts for it.
    pub(super) fn pass_outbound(
        &mut self,
        now: u64,
        packet: &mut SuperPacket<'_>,
        route: &Route,
    ) -> Result<(), DropReason> {
        if !packet.is_segmented() {
            return self.pass(now, Origin::Local, packet.packet_mut(), route);
        }
        let entry = self.table.get(now, route.handle).ok_or(DropReason::RewriteFailed)?;
        if entry.translated {
            let rewrite = rewrite_of(entry, route.handle);
            packet.rewrite(&rewrite).map_err(|_| DropReason::RewriteFailed)?;
        }
        entry.count(route.handle.reply, packet.segment_count() as u64, packet.packet().len() as u64);
        self.table.note_use(now, route.handle, route.view.tcp_flags());
        Ok(())
    }

    /// Rewrites a packet for the other side and accounts for it.
    pub(super) fn pass(
        &mut self,
        now: u64,
        origin: Origin,
        packet: &mut [u8],
        route: &Route,
    ) -> Result<(), DropReason> {
        let Route { view, handle, is_error } = route;
        let entry = self.table.get(now, *handle).ok_or(DropReason::RewriteFailed)?;
        if entry.translated {
            rewrite(entry, route, packet)?;
        }
        entry.count(handle.reply, 1, view.total_length() as u64);
        if !is_error {
            // An error does not show that the flow is in use.
            self.table.note_use(now, *handle, view.tcp_flags());
        }
        if view.fragment().is_some_and(|fragment| fragment.offset == 0) {
            self.fragments.note(now, origin, view, *handle);
        }
        Ok(())
    }
}

/// What changes in packets of an entry's direction.
pub(super) fn rewrite_of(entry: &Entry, handle: Handle) -> Rewrite {
    let (this, other) = if handle.reply { (1, 0) } else { (0, 1) };
    translation(&entry.keys[this].unpack(), &entry.keys[other].unpack())
}

fn rewrite(entry: &Entry, route: &Route, packet: &mut [u8]) -> Result<(), DropReason> {
    let rewrite = rewrite_of(entry, route.handle);
    let result = if route.is_error {
        rewrite.apply_to_icmp_error(packet, &route.view)
    } else {
        rewrite.apply(packet, &route.view)
    };
    result.map_err(|_| DropReason::RewriteFailed)
}

/// The tuple of packets without ports.
const fn portless(view: &PacketView) -> FlowTuple {
    FlowTuple {
        protocol: view.protocol(),
        source: view.source(),
        destination: view.destination(),
        source_port: 0,
        destination_port: 0,
    }
}

/// The tuple of packets that travel with an ICMP error: the quoted packet went the other way,
/// and the error must go to who sent that.
fn tuple_behind_error(packet: &[u8], view: &PacketView) -> Result<FlowTuple, DropReason> {
    let quoted = Quoted::parse(packet, view).map_err(|_| DropReason::MalformedIcmpError)?;
    let tuple = quoted.flow().ok_or(DropReason::MalformedIcmpError)?.reversed();
    let addressed: IpAddr = view.destination();
    if tuple.destination == addressed { Ok(tuple) } else { Err(DropReason::UnrelatedIcmpError) }
}
