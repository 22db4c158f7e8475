//! A worker thread: moves packets between its queue of the TUN device and its UDP sockets.
//!
//! One epoll watches the device, the sockets, and a bell that the control thread rings. Each
//! source gets one bounded turn, so that neither direction starves the other. What the pure
//! [`Worker`] cannot decide goes to the control thread over a bounded queue; when that is
//! full the packet is dropped and counted, for the packet path never waits.
//!
//! Time is read once per turn.

mod streams;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_dataplane::{Counters, Event, Inbound, Outbound, PeerId, StreamId, Update, Worker};
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
use crate::streams::Streams;

/// The largest packet that the TUN device may hand over, with its virtio header.
const LARGEST_PACKET: usize = VirtioHeader::LENGTH + 65_535;

/// Packets taken from the TUN device in one turn, and bytes after which the turn ends.
const TUN_TURN: (usize, usize) = (128, 512 * 1024);

/// Super-datagrams received in one call.
const RECEIVE_SLOTS: usize = 32;

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
const STREAMS: u64 = u64::MAX - 2;

/// What a worker has for the control thread.
#[derive(Debug)]
pub(crate) struct FromWorker {
    /// Which worker.
    pub(crate) worker: usize,
    /// What it is.
    pub(crate) content: Content,
}

/// What there is to say.
#[derive(Debug)]
pub(crate) enum Content {
    /// The first packet of a flow, from the TUN device.
    TunPacket(Vec<u8>),
    /// A datagram that is not plain tunnel data.
    Datagram { local: std::net::SocketAddr, from: std::net::SocketAddr, payload: Vec<u8> },
    /// A message of a stream that is not plain tunnel data.
    StreamMessage { stream: StreamId, message: Vec<u8> },
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
pub(super) struct WorkerLink {
    updates: Option<Sender<Update>>,
    bell: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

/// What workers say, and to whom.
#[derive(Debug, Clone)]
pub(super) struct ToControl {
    worker: usize,
    queue: mpsc::Sender<FromWorker>,
}

impl ToControl {
    /// The queues of all workers into one, and its end.
    pub(super) fn all(workers: usize) -> (Vec<Self>, mpsc::Receiver<FromWorker>) {
        let (queue, from_workers) = mpsc::channel(CONTROL_QUEUE);
        let one = |worker| Self { worker, queue: queue.clone() };
        ((0..workers).map(one).collect(), from_workers)
    }

    /// Hands over a packet, which is dropped and counted where only events have room; false then.
    fn tell(&self, content: Content) -> bool {
        let has_room = self.queue.capacity() > EVENT_ROOM;
        let is_told = has_room && self.queue.try_send(FromWorker { worker: self.worker, content }).is_ok();
        if !is_told {
            counter!("adit_control_queue_dropped_total").increment(1);
        }
        is_told
    }

    /// Hands over what happened; what does not fit stays with the worker for the next turn.
    fn tell_events(&self, dataplane: &mut Worker) {
        // Another worker may take the last place, so a place is had before the event is.
        while let Ok(place) = self.queue.try_reserve()
            && let Some(event) = dataplane.poll_event()
        {
            place.send(FromWorker { worker: self.worker, content: Content::Event(event) });
        }
    }
}

impl WorkerLink {
    /// Starts a worker between a queue of the TUN device and sockets of its own. It may write to `streams`, and the
    /// first worker reads them.
    ///
    /// # Errors
    ///
    /// When the operating system has no descriptor or thread left.
    pub(super) fn start(
        worker: Worker,
        tun: Arc<Tun>,
        sockets: Arc<Sockets>,
        streams: Arc<Streams>,
        to_control: ToControl,
    ) -> anyhow::Result<Self> {
        let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)
            .context("cannot make an eventfd")?;
        let bell = Arc::new(bell);
        let (updates, update_queue) = crossbeam_channel::bounded(UPDATE_QUEUE);
        let epoll = watch(&bell, &tun, &sockets).context("cannot watch sockets")?;
        if to_control.worker == 0 {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, STREAMS);
            epoll.add(&streams.epoll().0, event).context("cannot watch streams")?;
        }
        let name = format!("worker-{}", to_control.worker);
        let mut turner = Loop {
            worker,
            tun,
            sockets,
            streams,
            wrote_to_streams: false,
            bell: Arc::clone(&bell),
            epoll,
            updates: update_queue,
            to_control,
            packet: vec![0; LARGEST_PACKET],
            outgoing: Outgoing::new(),
            batch: ReceiveBatch::new(RECEIVE_SLOTS),
            exported: (Instant::now(), Counters::default()),
        };
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let Err(error) = turner.run() else { return };
                let to_control = turner.to_control.clone();
                // The control thread may wait for room in our queue: nobody will make any.
                drop(turner);
                let content = Content::Failed(format!("{error:#}"));
                let _ = to_control.queue.blocking_send(FromWorker { worker: to_control.worker, content });
            })
            .context("cannot start the worker thread")?;
        Ok(Self { updates: Some(updates), bell, thread: Some(thread) })
    }

    /// Queues an update; ring the bell after the last one. Waits while the worker is too far behind.
    pub(super) fn update(&self, update: Update) {
        if let Some(updates) = &self.updates
            && let Err(crossbeam_channel::TrySendError::Full(update)) = updates.try_send(update)
        {
            self.ring();
            // The worker never waits for us, so it will take it, unless it is gone already.
            let _ = updates.send(update);
        }
    }

    /// Makes the worker look at its queue.
    pub(super) fn ring(&self) {
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
    streams: Arc<Streams>,
    /// Something is queued there that this turn has to flush.
    wrote_to_streams: bool,
    bell: Arc<EventFd>,
    epoll: Epoll,
    updates: Receiver<Update>,
    to_control: ToControl,
    packet: Vec<u8>,
    outgoing: Outgoing,
    batch: ReceiveBatch,
    exported: (Instant, Counters),
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
            if take_updates(&self.updates, &mut self.worker, now).is_none() {
                return Ok(());
            }
            for event in &ready[..count] {
                match event.data() {
                    BELL => {}
                    TUN => self.turn_of_tun(now)?,
                    STREAMS => self.turn_of_streams(now),
                    index => {
                        let is_in_error = event.events().contains(EpollFlags::EPOLLERR);
                        self.turn_of_socket(now, usize::try_from(index).unwrap_or(usize::MAX), is_in_error)?;
                    }
                }
            }
            if self.worker.poll_timeout().is_some_and(|(deadline, _)| deadline <= now) {
                self.worker.handle_timeout(now);
            }
            self.to_control.tell_events(&mut self.worker);
            self.export(now);
        }
    }

    fn export(&mut self, now: Instant) {
        let (then, before) = &self.exported;
        if now.duration_since(*then) >= export::INTERVAL {
            let counters = self.worker.counters();
            export::worker(&counters, before);
            self.exported = (now, counters);
        }
    }

    fn sleep(&self) -> EpollTimeout {
        let now = Instant::now();
        let until = self.worker.poll_timeout().map_or(LONGEST_SLEEP, |(deadline, _)| {
            // A whole millisecond more: waking early would only mean going round again.
            deadline.saturating_duration_since(now) + Duration::from_millis(1)
        });
        let longest = if self.to_control.queue.capacity() == 0 { RETRY } else { LONGEST_SLEEP };
        EpollTimeout::try_from(until.min(longest)).unwrap_or(EpollTimeout::ZERO)
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
        self.flush_streams();
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
        let mut outbound = self.worker.outbound(now, header, packet, self.outgoing.room(&self.sockets));
        // It may be the answer to what the control thread has just sent, with news for us ahead of it.
        if outbound == Outbound::Miss && take_updates(&self.updates, &mut self.worker, now) > Some(0) {
            outbound = self.worker.outbound(now, header, packet, self.outgoing.room(&self.sockets));
        }
        match outbound {
            Outbound::Send { path, datagrams, .. } => match path.stream {
                None => self.outgoing.push(&self.sockets, path.local.ip(), path.remote, datagrams),
                Some(stream) => self.queue_for_stream(stream, datagrams),
            },
            Outbound::TooBig { mtu } => reject(&self.tun, packet, mtu),
            Outbound::Miss => {
                // The worker has read it with the same header.
                let Ok(packet) = SuperPacket::new(header, packet) else { return };
                let segments = packet.segments();
                for index in 0..segments.count() {
                    let mut packet = vec![0; segments.length(index)];
                    segments.write(index, &mut packet);
                    if self.to_control.tell(Content::TunPacket(packet)) {
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
                self.to_control.tell(Content::Unreachable(remote));
            }
        }
        socket.receive(&mut self.batch).context("a UDP socket is broken")?;
        let mut delivery = Delivery::new(&self.tun);
        for datagram in self.batch.datagrams() {
            let payload = datagram.payload;
            let mut inbound = self.worker.inbound(now, datagram.local, datagram.source, payload);
            if let Inbound::Miss { peer, range } = &inbound
                && take_updates(&self.updates, &mut self.worker, now) > Some(0)
            {
                inbound = self.worker.inbound_again(now, *peer, payload, range.clone());
            }
            let step = match inbound {
                Inbound::Tun(range) => {
                    delivery.push(&mut payload[range]);
                    continue;
                }
                Inbound::Miss { peer, range } => {
                    let packet = payload[range].to_vec();
                    if self.to_control.tell(Content::PeerPacket { peer, packet }) {
                        self.worker.note_miss();
                    }
                    continue;
                }
                Inbound::NotMine => Content::Datagram {
                    local: datagram.local,
                    from: datagram.source,
                    payload: payload.to_vec(),
                },
                Inbound::Keepalive | Inbound::Drop(_) => continue,
            };
            self.to_control.tell(step);
        }
        delivery.flush();
        Ok(())
    }
}

/// Applies what waits and says how much it was; `None` when the control thread is gone.
fn take_updates(updates: &Receiver<Update>, worker: &mut Worker, now: Instant) -> Option<usize> {
    for count in 0.. {
        match updates.try_recv() {
            Ok(update) => worker.apply(now, update),
            Err(crossbeam_channel::TryRecvError::Empty) => return Some(count),
            Err(crossbeam_channel::TryRecvError::Disconnected) => break,
        }
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_leave_room_for_events() {
        let (to_control, mut from_workers) = ToControl::all(2);
        for to_control in to_control.iter().cycle().take(2 * CONTROL_QUEUE) {
            to_control.tell(Content::TunPacket(Vec::new()));
        }
        assert_eq!(to_control[0].queue.capacity(), EVENT_ROOM);
        assert!(from_workers.try_recv().is_ok());
    }
}
