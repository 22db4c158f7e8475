//! UDP sockets that receive with room for headers and send trains of datagrams.
//!
//! Received datagrams lie in their buffer as the machine wants them: with [`HEADROOM`] in front, so that ChannelData and Data indications
//! are made in place. `recvmmsg` and `UDP_GRO` fill many buffers with many datagrams in one call, `UDP_SEGMENT` empties one buffer of up
//! to 64.

use std::cell::Cell;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::ops::Range;

use adit_turn::server::{HEADROOM, TAILROOM};
use anyhow::{Context as _, anyhow};
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;

/// The kernel takes no more datagrams in one call.
pub(crate) const MAX_SEGMENTS: usize = 64;
/// Nor more bytes.
pub(crate) const MAX_TOGETHER: usize = 65_000;

/// The largest train the kernel hands up.
const RECEIVED: usize = 65_536;
const SLOT: usize = HEADROOM + RECEIVED + TAILROOM;

/// A socket on the runtime's watch.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
    /// Cleared when a driver turns out not to segment.
    segments: Cell<bool>,
}

impl UdpSocket {
    /// Opens a socket on exactly this address, IPv6 without IPv4. Needs a runtime.
    ///
    /// # Errors
    ///
    /// When the port is taken, the address is not ours, or the family is switched off. A smaller buffer than asked for is no error.
    pub(crate) fn bind(address: SocketAddr, buffer: usize) -> anyhow::Result<Self> {
        let failed = || format!("cannot open UDP {address}");
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP));
        let socket = socket.with_context(failed)?;
        if address.is_ipv6() {
            socket.set_only_v6(true).with_context(failed)?;
        }
        let _ = socket.set_recv_buffer_size(buffer);
        let _ = socket.set_send_buffer_size(buffer);
        match socket.bind(&address.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(anyhow!("UDP {address} is taken by another process"));
            }
            outcome => outcome.with_context(failed)?,
        }
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).with_context(failed)?;
        let segments = Cell::new(state.max_gso_segments() > 1);
        let socket = tokio::net::UdpSocket::from_std(socket.into()).with_context(failed)?;
        Ok(Self { socket, state, segments })
    }

    /// Waits until datagrams wait.
    ///
    /// # Errors
    ///
    /// When the runtime is shutting down.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Fills `batch` with what waits, perhaps nothing.
    ///
    /// # Errors
    ///
    /// Only when the socket itself is broken; what ICMP leaves behind on it is skipped.
    pub(crate) fn receive(&self, batch: &mut ReceiveBatch) -> io::Result<()> {
        batch.filled = 0;
        let mut slots = batch.buffer.chunks_exact_mut(SLOT);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| {
            IoSliceMut::new(slots.next().map_or(&mut [], |slot| &mut slot[HEADROOM..HEADROOM + RECEIVED]))
        });
        let received = self.socket.try_io(Interest::READABLE, || {
            self.state.recv(UdpSockRef::from(&self.socket), &mut slices, &mut batch.metadata)
        });
        match received {
            Ok(count) => batch.filled = count,
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sends `contents` as datagrams of `segment` bytes; the last may be shorter.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the buffer is full, else what the kernel says; all of it is normal on a network.
    pub(crate) fn send(&self, destination: SocketAddr, contents: &[u8], segment: usize) -> io::Result<()> {
        if segment == 0 || contents.len() <= segment {
            return self.send_once(destination, contents, None);
        }
        if self.segments.get() {
            match self.send_once(destination, contents, Some(segment)) {
                // Drivers without segmentation answer EIO, old kernels EINVAL.
                Err(error)
                    if error.raw_os_error() == Some(nix::libc::EIO)
                        || error.kind() == io::ErrorKind::InvalidInput => {}
                outcome => return outcome,
            }
        }
        for datagram in contents.chunks(segment) {
            self.send_once(destination, datagram, None)?;
        }
        if self.segments.replace(false) {
            tracing::info!("UDP segmentation does not work here; sending datagrams one by one");
        }
        Ok(())
    }

    fn send_once(
        &self,
        destination: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        // Not through the runtime: a full buffer is not waited for.
        self.state.try_send(UdpSockRef::from(&self.socket), &transmit)
    }
}

/// Errors that say nothing about the socket: nothing there, or the echo of an earlier datagram.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
        WouldBlock,
    };
    [
        WouldBlock,
        Interrupted,
        ConnectionRefused,
        ConnectionReset,
        HostUnreachable,
        NetworkUnreachable,
        NetworkDown,
    ]
    .contains(&error.kind())
        || matches!(error.raw_os_error(), Some(nix::libc::EMSGSIZE | nix::libc::EPROTO))
}

/// Buffers for one call of [`UdpSocket::receive`].
pub(crate) struct ReceiveBatch {
    buffer: Box<[u8]>,
    metadata: [RecvMeta; BATCH_SIZE],
    filled: usize,
}

impl ReceiveBatch {
    /// About two megabytes.
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; SLOT * BATCH_SIZE].into_boxed_slice(),
            metadata: [RecvMeta::default(); BATCH_SIZE],
            filled: 0,
        }
    }

    /// Hands out each datagram once, in order: its sender, a buffer with room around it, and where it lies.
    pub(crate) fn take(&mut self, mut act: impl FnMut(SocketAddr, &mut [u8], Range<usize>)) {
        let filled = std::mem::take(&mut self.filled);
        for (slot, metadata) in self.buffer.chunks_exact_mut(SLOT).zip(&self.metadata).take(filled) {
            let end = HEADROOM + metadata.len.min(RECEIVED);
            let mut start = HEADROOM;
            loop {
                let next = (start + metadata.stride.max(1)).min(end);
                act(metadata.addr, slot, start..next);
                start = next;
                if start >= end {
                    break;
                }
            }
        }
    }
}

impl std::fmt::Debug for ReceiveBatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ReceiveBatch").field("filled", &self.filled).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn trains_arrive_whole_with_room_around_each_datagram() {
        let bind = || UdpSocket::bind("127.0.0.1:0".parse().expect("address"), 1 << 20).expect("binds");
        let (sender, receiver) = (bind(), bind());
        let destination = receiver.socket.local_addr().expect("address");
        let train: Vec<u8> = (0..10_u8).flat_map(|number| [number; 1000]).chain([10; 7]).collect();
        sender.send(destination, &train, 1000).expect("sends");
        sender.send(destination, &[], 0).expect("sends");
        let mut batch = ReceiveBatch::new();
        let mut received: Vec<Vec<u8>> = Vec::new();
        while received.len() < 12 {
            let ready = tokio::time::timeout(Duration::from_secs(5), receiver.readable()).await;
            ready.expect("arrives").expect("works");
            receiver.receive(&mut batch).expect("works");
            batch.take(|from, buffer, range| {
                assert_eq!(from, sender.socket.local_addr().expect("address"));
                assert!(range.start >= HEADROOM && range.end + TAILROOM <= buffer.len());
                received.push(buffer[range].to_vec());
            });
        }
        assert!(received.pop().is_some_and(|last| last.is_empty()));
        assert_eq!(received.concat(), train);
        assert!(received[..10].iter().all(|datagram| datagram.len() == 1000));
    }

    #[tokio::test]
    async fn a_taken_port_is_named() {
        let first = UdpSocket::bind("127.0.0.1:0".parse().expect("address"), 1 << 20).expect("binds");
        let address = first.socket.local_addr().expect("address");
        let error = UdpSocket::bind(address, 1 << 20).expect_err("taken");
        assert_eq!(error.to_string(), format!("UDP {address} is taken by another process"));
    }
}
