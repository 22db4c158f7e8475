//! The network card of the TCP stack: two bounded queues of IP packets.

use std::collections::VecDeque;

use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;

/// Every tunnel carries this (RFC 8200, 5).
const MTU: usize = 1280;
/// Packets that wait to be collected; when full, the stack keeps its data and retransmits.
const MAXIMUM_OUTBOUND: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Device {
    /// Empty except while a packet is delivered: the stack takes all that there is.
    inbound: VecDeque<Vec<u8>>,
    outbound: VecDeque<Vec<u8>>,
}

impl Device {
    pub(super) fn deliver(&mut self, packet: Vec<u8>) {
        self.inbound.push_back(packet);
    }

    pub(super) fn collect(&mut self) -> Option<Vec<u8>> {
        self.outbound.pop_front()
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Received;
    type TxToken<'a> = Slot<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Slot<'_>)> {
        // The reply needs no room of its own: one packet in makes at most one out.
        let packet = self.inbound.pop_front()?;
        Some((Received(packet), Slot(&mut self.outbound)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Slot<'_>> {
        (self.outbound.len() < MAXIMUM_OUTBOUND).then_some(Slot(&mut self.outbound))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}

#[derive(Debug)]
pub(super) struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

#[derive(Debug)]
pub(super) struct Slot<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::TxToken for Slot<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}
