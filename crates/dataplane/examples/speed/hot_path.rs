//! The hot paths, each to be run a given number of times by whoever counts instructions.
//!
//! Whatever a case needs is made before its first run, and as much of it however often it runs: the difference
//! between two numbers of runs is then the runs alone.

use std::hint::black_box;
use std::time::{Duration, Instant};

use adit_dataplane::{DropReason, FlowKey, Inbound, Origin, Outbound, Update, Worker, room};
use adit_packet::offload::{Coalescer, Offload, SuperPacket, Verdict, VirtioHeader};
use adit_packet::{PacketView, Rewrite};
use adit_wireguard::{HEADER, OVERHEAD, PADDING, Session};

use crate::Failure;
use crate::ends::{self, Gateway};
use crate::packets::{self, FULL, SEGMENTS, SMALL};

/// Runs that a case is prepared for.
const MOST: usize = 128;
/// Flows in a large table.
const MANY: usize = 100_000;

/// The run of a number, below [`MOST`].
type Run = Box<dyn FnMut(usize)>;

/// A name, and what prepares its runs.
type Case = (&'static str, fn() -> Run);

/// All hot paths.
pub(crate) const CASES: &[Case] = &[
    ("parse", parse),
    ("rewrite", rewrite),
    ("look_up_1", || look_up(1)),
    ("look_up_100000", || look_up(MANY)),
    ("split_64k", split),
    ("coalesce_64k", coalesce),
    ("seal_64", || seal(SMALL)),
    ("seal_1420", || seal(FULL)),
    ("open_64", || open(SMALL)),
    ("open_1420", || open(FULL)),
    ("outbound_64", || outbound(SMALL)),
    ("outbound_1420", || outbound(FULL)),
    ("outbound_64k", outbound_super_packet),
    ("inbound_64", || inbound(SMALL)),
    ("inbound_1420", || inbound(FULL)),
];

/// Runs a case.
///
/// # Errors
/// When there is no such case, or it is not prepared for so many runs.
pub(crate) fn run(name: &str, times: usize) -> Result<(), Failure> {
    let (_, prepare) = CASES.iter().find(|(known, _)| *known == name).ok_or("no such case")?;
    if times > MOST {
        return Err(format!("at most {MOST} times").into());
    }
    let mut run = prepare();
    (0..times).for_each(&mut run);
    Ok(())
}

fn gateway() -> Gateway {
    Gateway::with_peers(Instant::now(), 1)
}

fn parse() -> Run {
    let packet = packets::tcp(&ends::inside(0, 1), FULL);
    Box::new(move |_| {
        let _ = black_box(PacketView::parse(black_box(&packet)));
    })
}

/// All that an address translation can change.
fn translation() -> Rewrite {
    let beyond = ends::beyond(0);
    Rewrite {
        source: Some(beyond.source),
        destination: Some(beyond.destination),
        source_port: Some(beyond.source_port),
        destination_port: Some(beyond.destination_port),
    }
}

fn rewrite() -> Run {
    let mut packet = packets::tcp(&ends::inside(0, 1), FULL);
    let view = PacketView::parse(&packet).expect("a good packet");
    let rewrite = translation();
    Box::new(move |_| rewrite.apply(black_box(&mut packet), &view).expect("a packet with ports"))
}

/// The way of a packet that a cached refusal stops, which is the check, the look-up and nothing else.
fn look_up(flows: usize) -> Run {
    let now = Instant::now();
    let mut worker = ends::worker(now);
    for number in 0..flows {
        worker.apply(now, ends::install(number, 1));
    }
    let refused = |number: usize| ends::inside(flows + number % flows.min(MOST), 1);
    let mut packets: Vec<Vec<u8>> = (0..MOST).map(|number| packets::tcp(&refused(number), SMALL)).collect();
    for number in 0..flows.min(MOST) {
        let key = FlowKey::new(Origin::Local, refused(number));
        let (reason, until) = (DropReason::NotAuthorized, now + Duration::from_secs(10));
        worker.apply(now, Update::FlowRefused { key, reason, until });
    }
    let mut out = vec![0; room(SMALL, 1)];
    Box::new(move |number| {
        let done = worker.outbound(now, VirtioHeader::NONE, &mut packets[number], &mut out);
        assert_eq!(done, Outbound::Drop(DropReason::NotAuthorized));
    })
}

/// Checks a super-packet, translates it, and writes its segments.
fn split() -> Run {
    let (header, mut packet) = packets::super_packet(&ends::inside(0, 1));
    let rewrite = translation();
    let mut out = vec![0; SEGMENTS * FULL];
    Box::new(move |_| {
        let mut whole = SuperPacket::new(header, &mut packet).expect("a good super-packet");
        whole.rewrite(&rewrite).expect("a packet with ports");
        let segments = whole.segments();
        for (index, place) in out.chunks_mut(FULL).enumerate() {
            assert_eq!(segments.write(index, place), FULL);
        }
    })
}

/// Merges the segments of a super-packet, checksums verified.
fn coalesce() -> Run {
    let (header, mut packet) = packets::super_packet(&ends::inside(0, 1));
    let whole = SuperPacket::new(header, &mut packet).expect("a good super-packet");
    let mut received = vec![0; SEGMENTS * FULL];
    for (index, place) in received.chunks_mut(FULL).enumerate() {
        whole.segments().write(index, place);
    }
    let mut coalescer = Coalescer::new(Offload::TcpAndUdp);
    let mut first = received[..FULL].to_vec();
    Box::new(move |_| {
        let pushed = received.chunks(FULL).map(|segment| coalescer.push(segment));
        let merged = pushed.filter(|verdict| matches!(verdict, Verdict::Appended { .. })).count();
        assert_eq!(merged, SEGMENTS - 1);
        black_box(coalescer.finish(&mut first));
    })
}

fn seal(length: usize) -> Run {
    let gateway = gateway();
    let mut buffer = vec![0; length + OVERHEAD + PADDING];
    Box::new(move |_| {
        black_box(gateway.client.seal_in_place(&mut buffer, length).expect("room"));
    })
}

fn open(length: usize) -> Run {
    let gateway = gateway();
    let plaintext = packets::tcp(&ends::inside(0, 1), length);
    let mut datagrams: Vec<Vec<u8>> = (0..MOST).map(|_| sealed(&gateway.client, &plaintext)).collect();
    Box::new(move |number| {
        black_box(gateway.sessions[0].open_in_place(&mut datagrams[number]).expect("authentic data"));
    })
}

fn sealed(session: &Session, plaintext: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; plaintext.len() + OVERHEAD + PADDING];
    buffer[HEADER..][..plaintext.len()].copy_from_slice(plaintext);
    let length = session.seal_in_place(&mut buffer, plaintext.len()).expect("room");
    buffer.truncate(length);
    buffer
}

/// A client sends a packet.
fn outbound(length: usize) -> Run {
    send(VirtioHeader::NONE, packets::tcp(&ends::inside(0, 1), length), 1)
}

fn outbound_super_packet() -> Run {
    let (header, packet) = packets::super_packet(&ends::inside(0, 1));
    send(header, packet, SEGMENTS)
}

fn send(header: VirtioHeader, mut packet: Vec<u8>, segments: usize) -> Run {
    let gateway = gateway();
    let (now, mut client) = (gateway.now, gateway.client());
    let mut out = vec![0; room(packet.len(), segments)];
    Box::new(move |_| {
        let sent = client.outbound(now, header, &mut packet, &mut out);
        let Outbound::Send { datagrams, .. } = sent else { panic!("{sent:?}") };
        assert_eq!(datagrams.length, segments * datagrams.segment);
    })
}

/// A gateway receives a packet, which it translates.
fn inbound(length: usize) -> Run {
    let gateway = gateway();
    let (now, mut worker): (Instant, Worker) = (gateway.now, gateway.worker(1));
    let packet = packets::tcp(&ends::inside(0, 1), length);
    let mut datagrams: Vec<Vec<u8>> = (0..MOST).map(|_| sealed(&gateway.client, &packet)).collect();
    Box::new(move |number| {
        let received = worker.inbound(now, ends::GATEWAY, ends::CLIENT, &mut datagrams[number]);
        assert!(matches!(received, Inbound::Tun(_)), "{received:?}");
    })
}
