//! The worker thread: moves packets between the TUN device and the UDP sockets.
//!
//! One epoll watches the device, the sockets, and a bell that the control thread rings. Each
//! source gets one bounded turn, so that neither direction starves the other. What the pure
//! [`Worker`] cannot decide goes to the control thread over a bounded queue; when that is
//! full the packet is dropped and counted, for the packet path never waits.
//!
//! Time is read once per turn.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_dataplane::{Event, Inbound, Outbound, PeerId, Update, Worker};
use adit_packet::offload::{Offload, SuperPacket, VirtioHeader};
use adit_packet::{IcmpError, PacketView, icmp_error};
use adit_platform::tun::Tun;
use adit_platform::udp::{ReceiveBatch, UdpSocket};
use anyhow::Context as _;
use crossbeam_channel::{Receiver, Sender};
use metrics::counter;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::mpsc;

use crate::delivery::{Delivery, write};
use crate::export;
use crate::outgoing::Outgoing;
use crate::sockets::Sockets;

/// The largest packet that the TUN device may hand over, with its virtio header.
const LARGEST_PACKET: usize = VirtioHeader::LENGTH + 65_535;

/// Packets taken from the TUN device in one turn, and bytes after which the turn ends.
const TUN_TURN: (usize, usize) = (128, 512 * 1024);

/// Super-datagrams received in one call.
const RECEIVE_SLOTS: usize = 8;

/// ICMP errors taken in one turn.
const ERRORS_TURN: usize = 16;

/// Updates that the control thread may be ahead.
const UPDATE_QUEUE: usize = 4096;

/// Packets and events that the control thread may be behind.
const CONTROL_QUEUE: usize = 2048;

/// Of these, kept free of packets: packets come again, but what happened is told once.
const EVENT_ROOM: usize = 256;

/// When to try again if there was no room even so.
const RETRY: Duration = Duration::from_millis(5);

/// The longest that the worker sleeps.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

const BELL: u64 = u64::MAX;
const TUN: u64 = u64::MAX - 1;

/// What the worker has for the control thread.
#[derive(Debug)]
pub(crate) enum FromWorker {
    /// The first packet of a flow, from the TUN device.
    TunPacket(Vec<u8>),
    /// A datagram that is not plain tunnel data.
    Datagram { local: std::net::SocketAddr, from: std::net::SocketAddr, payload: Vec<u8> },
    /// A packet that a peer sent, opened, without a flow.
    PeerPacket { peer: PeerId, packet: Vec<u8> },
    /// The network says that datagrams do not arrive there; anybody may have made that up.
    Unreachable(std::net::SocketAddr),
    /// Something that the machine should know.
    Event(Event),
    /// The worker cannot go on.
    Failed(String),
}

/// The control thread's end of a worker; dropping it stops the thread.
#[derive(Debug)]
pub(crate) struct WorkerLink {
    updates: Option<Sender<Update>>,
    bell: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerLink {
    /// Starts a worker between `tun` and `sockets`.
    ///
    /// # Errors
    ///
    /// When the operating system has no descriptor or thread left.
    pub(crate) fn start(
        worker: Worker,
        tun: Arc<Tun>,
        sockets: Arc<Sockets>,
    ) -> anyhow::Result<(Self, mpsc::Receiver<FromWorker>)> {
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .context("cannot make an eventfd")?;
        let bell = Arc::new(bell);
        let (updates, update_queue) = crossbeam_channel::bounded(UPDATE_QUEUE);
        let (to_control, from_worker) = mpsc::channel(CONTROL_QUEUE);
        let epoll = watch(&bell, &tun, &sockets).context("cannot watch sockets")?;
        let mut turner = Loop {
            worker,
            tun,
            sockets,
            bell: Arc::clone(&bell),
            epoll,
            updates: update_queue,
            to_control,
            packet: vec![0; LARGEST_PACKET],
            outgoing: Outgoing::new(),
            batch: ReceiveBatch::new(RECEIVE_SLOTS),
            exported: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("worker-0".to_owned())
            .spawn(move || {
                let Err(error) = turner.run() else { return };
                let to_control = turner.to_control.clone();
                // The control thread may wait for room in our queue: nobody will make any.
                drop(turner);
                let _ = to_control.blocking_send(FromWorker::Failed(format!("{error:#}")));
            })
            .context("cannot start the worker thread")?;
        Ok((Self { updates: Some(updates), bell, thread: Some(thread) }, from_worker))
    }

    /// Queues an update; ring the bell after the last one. Waits while the worker is too far behind.
    pub(crate) fn update(&self, update: Update) {
        if let Some(updates) = &self.updates
            && let Err(crossbeam_channel::TrySendError::Full(update)) = updates.try_send(update)
        {
            self.ring();
            // The worker never waits for us, so it will take it, unless it is gone already.
            let _ = updates.send(update);
        }
    }

    /// Makes the worker look at its queue.
    pub(crate) fn ring(&self) {
        // The counter cannot overflow before it is read.
        let _ = self.bell.write(1);
    }
}

impl Drop for WorkerLink {
    fn drop(&mut self) {
        self.updates = None;
        self.ring();
        if let Some(thread) = self.thread.take() {
            // A panic in the worker has been logged by the panic hook.
            let _ = thread.join();
        }
    }
}

fn watch(bell: &EventFd, tun: &Tun, sockets: &Sockets) -> nix::Result<Epoll> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(bell, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
    epoll.add(tun, EpollEvent::new(EpollFlags::EPOLLIN, TUN))?;
    for (index, socket) in (0_u64..).zip(sockets.all()) {
        epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, index))?;
    }
    Ok(epoll)
}

struct Loop {
    worker: Worker,
    tun: Arc<Tun>,
    sockets: Arc<Sockets>,
    bell: Arc<EventFd>,
    epoll: Epoll,
    updates: Receiver<Update>,
    to_control: mpsc::Sender<FromWorker>,
    packet: Vec<u8>,
    outgoing: Outgoing,
    batch: ReceiveBatch,
    exported: Instant,
}

impl Loop {
    /// Runs until the control thread lets go of its end.
    fn run(&mut self) -> anyhow::Result<()> {
        let mut ready = [EpollEvent::empty(); 8];
        loop {
            let count = match self.epoll.wait(&mut ready, self.sleep()) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(error).context("epoll failed"),
            };
            let now = Instant::now();
            // Before the updates: a bell that rings for one which comes after must wake us again.
            if ready[..count].iter().any(|event| event.data() == BELL) {
                let _ = self.bell.read();
            }
            // Before any packet: what was revoked must not pass.
            if !self.take_updates(now) {
                return Ok(());
            }
            for event in &ready[..count] {
                match event.data() {
                    BELL => {}
                    TUN => self.turn_of_tun(now)?,
                    index => {
                        let is_in_error = event.events().contains(EpollFlags::EPOLLERR);
                        self.turn_of_socket(now, usize::try_from(index).unwrap_or(usize::MAX), is_in_error)?;
                    }
                }
            }
            if self.worker.poll_timeout().is_some_and(|(deadline, _)| deadline <= now) {
                self.worker.handle_timeout(now);
            }
            self.tell_events();
            if now.duration_since(self.exported) >= export::INTERVAL {
                export::worker(&self.worker.counters());
                self.exported = now;
            }
        }
    }

    /// Hands over what happened; what does not fit stays with the worker for the next turn.
    fn tell_events(&mut self) {
        while self.to_control.capacity() > 0
            && let Some(event) = self.worker.poll_event()
        {
            let _ = self.to_control.try_send(FromWorker::Event(event));
        }
    }

    fn sleep(&self) -> EpollTimeout {
        let now = Instant::now();
        let until = self.worker.poll_timeout().map_or(LONGEST_SLEEP, |(deadline, _)| {
            // A whole millisecond more: waking early would only mean going round again.
            deadline.saturating_duration_since(now) + Duration::from_millis(1)
        });
        let longest = if self.to_control.capacity() == 0 { RETRY } else { LONGEST_SLEEP };
        EpollTimeout::try_from(until.min(longest)).unwrap_or(EpollTimeout::ZERO)
    }

    /// False when the control thread is gone.
    fn take_updates(&mut self, now: Instant) -> bool {
        loop {
            match self.updates.try_recv() {
                Ok(update) => self.worker.apply(now, update),
                Err(crossbeam_channel::TryRecvError::Empty) => return true,
                Err(crossbeam_channel::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn turn_of_tun(&mut self, now: Instant) -> anyhow::Result<()> {
        let (packets, mut bytes) = TUN_TURN;
        for _ in 0..packets {
            let length = match self.tun.read(&mut self.packet) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error).context("the tunnel interface is gone"),
            };
            self.packet_of_tun(now, length);
            bytes = bytes.saturating_sub(length);
            if bytes == 0 {
                break;
            }
        }
        self.outgoing.flush(&self.sockets);
        Ok(())
    }

    fn packet_of_tun(&mut self, now: Instant, length: usize) {
        let (header, packet) = match self.tun.offload() {
            Offload::None => (VirtioHeader::NONE, &mut self.packet[..length]),
            _ => match VirtioHeader::parse(&self.packet[..length]) {
                Ok(header) => (header, &mut self.packet[VirtioHeader::LENGTH..length]),
                Err(_) => return counter!("adit_tun_read_dropped_total").increment(1),
            },
        };
        match self.worker.outbound(now, header, packet, self.outgoing.room(&self.sockets)) {
            Outbound::Send { path, datagrams, .. } => {
                self.outgoing.push(&self.sockets, path.local.ip(), path.remote, datagrams);
            }
            Outbound::TooBig { mtu } => reject(&self.tun, packet, mtu),
            Outbound::Miss => {
                // The worker has read it with the same header.
                let Ok(packet) = SuperPacket::new(header, packet) else { return };
                let segments = packet.segments();
                for index in 0..segments.count() {
                    let mut packet = vec![0; segments.length(index)];
                    segments.write(index, &mut packet);
                    if tell(&self.to_control, FromWorker::TunPacket(packet)) {
                        self.worker.note_miss();
                    }
                }
            }
            Outbound::Drop(_) => {}
        }
    }

    fn turn_of_socket(&mut self, now: Instant, index: usize, is_in_error: bool) -> anyhow::Result<()> {
        let sockets = Arc::clone(&self.sockets);
        let Some(socket): Option<&UdpSocket> = sockets.all().nth(index) else {
            return Ok(());
        };
        if is_in_error {
            let unreachable = (0..ERRORS_TURN).map_while(|_| socket.take_unreachable());
            for remote in unreachable {
                tell(&self.to_control, FromWorker::Unreachable(remote));
            }
        }
        socket.receive(&mut self.batch).context("a UDP socket is broken")?;
        let mut delivery = Delivery::new(&self.tun);
        for datagram in self.batch.datagrams() {
            let step = match self.worker.inbound(now, datagram.local, datagram.source, datagram.payload) {
                Inbound::Tun(range) => {
                    delivery.push(&mut datagram.payload[range]);
                    continue;
                }
                Inbound::Miss { peer, range } => {
                    let packet = datagram.payload[range].to_vec();
                    if tell(&self.to_control, FromWorker::PeerPacket { peer, packet }) {
                        self.worker.note_miss();
                    }
                    continue;
                }
                Inbound::NotMine => FromWorker::Datagram {
                    local: datagram.local,
                    from: datagram.source,
                    payload: datagram.payload.to_vec(),
                },
                Inbound::Keepalive | Inbound::Drop(_) => continue,
            };
            tell(&self.to_control, step);
        }
        delivery.flush();
        Ok(())
    }
}

/// Tells the sender of a packet that it was too big.
fn reject(tun: &Tun, packet: &[u8], mtu: u16) {
    let Ok(view) = PacketView::parse(packet) else { return };
    let error = IcmpError::PacketTooBig { mtu: mtu.into() };
    // Nobody between here and there speaks with an address of its own, so the destination does.
    if let Ok(answer) = icmp_error(error, view.destination(), packet, &view) {
        write(tun, &answer);
    }
}

/// Hands over a packet, which is dropped and counted where only events have room; false then.
fn tell(to_control: &mpsc::Sender<FromWorker>, message: FromWorker) -> bool {
    let is_told = to_control.capacity() > EVENT_ROOM && to_control.try_send(message).is_ok();
    if !is_told {
        counter!("adit_control_queue_dropped_total").increment(1);
    }
    is_told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_room_for_events() {
        let (to_control, mut from_worker) = mpsc::channel(CONTROL_QUEUE);
        for _ in 0..2 * CONTROL_QUEUE {
            tell(&to_control, FromWorker::TunPacket(Vec::new()));
        }
        assert_eq!(to_control.capacity(), EVENT_ROOM);
        assert!(from_worker.try_recv().is_ok());
    }
}
