//! Frames of every shape: the program sends one exactly as the machine would, or leaves it alone.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use crate::frame::{Envelope, build, checksum_place, set_checksum};
use crate::ground::{Ground, LISTENER, MTU, isolated};
use crate::judge::judge;
use crate::relay::{Channel, Datagram, Relay, local};
use std::net::SocketAddr;

/// Frames of each kind; ten times as many take half a minute.
const CASES: u32 = 20_000;

/// A frame of a channel before anything happens to it.
#[derive(Clone, Debug)]
struct Plain {
    channel: Index,
    from_client: bool,
    data: Vec<u8>,
    padding: Vec<u8>,
    envelope: Envelope,
}

/// What may happen to it.
#[derive(Clone, Debug)]
enum Harm {
    FlipBit(Index),
    SetByte(Index, u8),
    Truncate(Index),
    Extend(Vec<u8>),
    Tag(u16),
    Options,
    ExtensionHeader(u8),
    Fragment(u16),
    IpLength(i16),
    UdpLength(i16),
    ChannelLength(i16),
    ChannelNumber(u16),
    Port(u16),
    HopLimit(u8),
    Station([u8; 6]),
    NoChecksum,
    UnfinishedChecksum,
    Padding(Vec<u8>),
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(any::<u8>(), 0..12),
        vec(any::<u8>(), 150..170),
        vec(any::<u8>(), 1380..1480),
        // Sums that are as special as sums can be.
        (prop_oneof![Just(0_u8), Just(0xff)], 0..300_usize).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

fn envelope() -> impl Strategy<Value = Envelope> {
    (2..=255_u8, any::<u8>(), any::<u16>(), any::<bool>(), vec(any::<u8>(), 0..20)).prop_map(
        |(hop_limit, class, identification, dont_fragment, trailer)| Envelope {
            hop_limit,
            class,
            identification,
            dont_fragment,
            trailer,
            ..Envelope::default()
        },
    )
}

fn plain() -> impl Strategy<Value = Plain> {
    (any::<Index>(), any::<bool>(), data(), vec(any::<u8>(), 0..4), envelope()).prop_map(
        |(channel, from_client, data, padding, envelope)| Plain {
            channel,
            from_client,
            data,
            padding,
            envelope,
        },
    )
}

fn harm() -> impl Strategy<Value = Harm> {
    let delta = || prop_oneof![-9..=9_i16, any::<i16>()];
    prop_oneof![
        4 => any::<Index>().prop_map(Harm::FlipBit),
        4 => (any::<Index>(), any::<u8>()).prop_map(|(place, byte)| Harm::SetByte(place, byte)),
        1 => any::<Index>().prop_map(Harm::Truncate),
        1 => vec(any::<u8>(), 1..40).prop_map(Harm::Extend),
        1 => any::<u16>().prop_map(Harm::Tag),
        1 => Just(Harm::Options),
        1 => prop_oneof![Just(0_u8), Just(43), Just(44), Just(51), Just(60)].prop_map(Harm::ExtensionHeader),
        1 => any::<u16>().prop_map(Harm::Fragment),
        1 => delta().prop_map(Harm::IpLength),
        1 => delta().prop_map(Harm::UdpLength),
        1 => delta().prop_map(Harm::ChannelLength),
        1 => any::<u16>().prop_map(Harm::ChannelNumber),
        1 => any::<u16>().prop_map(Harm::Port),
        1 => any::<u8>().prop_map(Harm::HopLimit),
        1 => any::<[u8; 6]>().prop_map(Harm::Station),
        1 => Just(Harm::NoChecksum),
        1 => Just(Harm::UnfinishedChecksum),
        1 => vec(any::<u8>(), 0..9).prop_map(Harm::Padding),
    ]
}

/// The datagram that travels on a channel.
fn datagram(channel: &Channel, from_client: bool, data: &[u8], padding: &[u8]) -> Datagram {
    if !from_client {
        return Datagram { source: channel.peer, destination: channel.relayed, payload: data.to_vec() };
    }
    let length = data.len() as u16;
    let header = [channel.number.to_be_bytes(), length.to_be_bytes()].concat();
    let destination = SocketAddr::new(local(channel.client.is_ipv4()), LISTENER);
    Datagram { source: channel.client, destination, payload: [&header[..], data, padding].concat() }
}

fn frame_of(plain: &Plain, relay: &Relay) -> Vec<u8> {
    let channel = plain.channel.get(&relay.channels);
    build(&datagram(channel, plain.from_client, &plain.data, &plain.padding), &plain.envelope)
}

fn ip_header(frame: &[u8]) -> usize {
    if frame.len() > 13 && frame[12..14] == [8, 0] { 20 } else { 40 }
}

/// Adds to a number in network order, if the frame is long enough.
fn add(frame: &mut [u8], place: usize, delta: i16) {
    if let Some(bytes) = frame.get_mut(place..place + 2) {
        let number = u16::from_be_bytes([bytes[0], bytes[1]]).wrapping_add_signed(delta);
        bytes.copy_from_slice(&number.to_be_bytes());
    }
}

fn put(frame: &mut [u8], place: usize, bytes: &[u8]) {
    if let Some(there) = frame.get_mut(place..place + bytes.len()) {
        there.copy_from_slice(bytes);
    }
}

fn inflict(harm: &Harm, frame: &mut Vec<u8>) {
    let header = ip_header(frame);
    let is_v4 = header == 20;
    let udp = 14 + header;
    match harm {
        Harm::FlipBit(place) if !frame.is_empty() => {
            let bit = place.index(frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
        }
        Harm::SetByte(place, byte) if !frame.is_empty() => {
            // The headers are what it is about.
            let place = place.index(frame.len().min(70));
            frame[place] = *byte;
        }
        Harm::FlipBit(_) | Harm::SetByte(..) => {}
        Harm::Truncate(place) => frame.truncate(14 + place.index(frame.len())),
        Harm::Extend(more) => frame.extend_from_slice(more),
        Harm::Tag(number) if frame.len() > 12 => {
            let tag = [&[0x81, 0][..], &number.to_be_bytes()].concat();
            frame.splice(12..12, tag);
        }
        Harm::Tag(_) => {}
        Harm::Options if is_v4 && frame.len() > 34 => {
            frame[14] = 0x46;
            frame.splice(34..34, [1, 1, 1, 0]);
            add(frame, 16, 4);
        }
        Harm::Options => {}
        Harm::ExtensionHeader(kind) if !is_v4 && frame.len() > 54 => {
            frame[20] = *kind;
            frame.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
            add(frame, 18, 8);
        }
        Harm::ExtensionHeader(_) => {}
        Harm::Fragment(bits) if is_v4 => put(frame, 20, &bits.to_be_bytes()),
        Harm::Fragment(_) => {}
        Harm::IpLength(delta) => add(frame, if is_v4 { 16 } else { 18 }, *delta),
        Harm::UdpLength(delta) => add(frame, udp + 4, *delta),
        Harm::ChannelLength(delta) => add(frame, udp + 10, *delta),
        Harm::ChannelNumber(number) => put(frame, udp + 8, &number.to_be_bytes()),
        Harm::Port(number) => put(frame, udp + 2, &number.to_be_bytes()),
        Harm::HopLimit(number) => put(frame, if is_v4 { 22 } else { 21 }, &[*number]),
        Harm::Station(address) => put(frame, 0, address),
        Harm::NoChecksum => put(frame, udp + 6, &[0, 0]),
        Harm::UnfinishedChecksum => {
            if let Ok(parsed) = crate::frame::parse(frame) {
                set_checksum(frame, parsed.unfinished_checksum);
            }
        }
        Harm::Padding(bytes) => {
            frame.extend_from_slice(bytes);
            let more = bytes.len() as i16;
            add(frame, if is_v4 { 16 } else { 18 }, more);
            add(frame, udp + 4, more);
        }
    }
}

/// Makes the IPv4 header's checksum right again, so that what lies behind it is looked at.
fn mend(frame: &mut [u8]) {
    if frame.len() < 34 || ip_header(frame) != 20 {
        return;
    }
    frame[24..26].copy_from_slice(&[0, 0]);
    let words = frame[14..34].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

fn run<T: std::fmt::Debug>(
    strategy: &impl Strategy<Value = T>,
    test: impl Fn(T, &mut Relay, &Ground) -> Result<(), String>,
) {
    let (mut relay, ground) = (Relay::with_clients(), Ground::new());
    relay.announce(&ground.engine);
    let relay = std::cell::RefCell::new(&mut relay);
    // Failures are printed; there is no file of them to read again in a namespace.
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let outcome = runner
        .run(strategy, |value| test(value, &mut relay.borrow_mut(), &ground).map_err(TestCaseError::fail));
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

/// Bytes of IP packet that a plain frame becomes.
fn length_on_the_way(plain: &Plain, relay: &Relay) -> usize {
    let channel = plain.channel.get(&relay.channels);
    let is_within_relay = channel.peer.ip() == local(channel.peer.is_ipv4());
    if plain.from_client && !is_within_relay {
        return plain.data.len() + if channel.peer.is_ipv4() { 28 } else { 48 };
    }
    // Within the relay it goes to the client at the other end.
    let other = relay.channels.iter().find(|other| other.relayed == channel.peer);
    let client =
        if is_within_relay { other.map_or(channel.client, |other| other.client) } else { channel.client };
    plain.data.len() + 4 + if client.is_ipv4() { 28 } else { 48 }
}

#[test]
fn plain_frames_are_sent_as_the_machine_would() {
    isolated(|| {
        run(&plain(), |plain, relay, ground| {
            let frame = frame_of(&plain, relay);
            let channel = *plain.channel.get(&relay.channels);
            let was_sent = judge(ground, relay, &frame)?;
            let from_itself = !plain.from_client && channel.peer.ip() == local(channel.peer.is_ipv4());
            let fits = length_on_the_way(&plain, relay) <= MTU;
            let parsed = crate::frame::parse(&frame)?;
            let looks_unfinished = parsed.checksum == parsed.unfinished_checksum;
            let must_be_sent = fits && !from_itself && !looks_unfinished;
            if was_sent == must_be_sent {
                Ok(())
            } else {
                Err(format!("sent: {was_sent}; fits {fits}, counters {:?}", ground.engine.counters()))
            }
        });
    });
}

#[test]
fn harmed_frames_are_sent_as_the_machine_would_or_left_alone() {
    isolated(|| {
        let strategy = (plain(), vec(harm(), 1..4), any::<bool>());
        run(&strategy, |(plain, harms, mended), relay, ground| {
            let mut frame = frame_of(&plain, relay);
            for harm in &harms {
                inflict(harm, &mut frame);
            }
            if mended {
                mend(&mut frame);
            }
            // The kernel runs no program on less than an Ethernet header.
            if frame.len() < 14 {
                return Ok(());
            }
            judge(ground, relay, &frame).map(drop)
        });
    });
}

#[test]
fn wrong_checksums_stay_wrong_and_right_ones_right() {
    isolated(|| {
        run(&(plain(), any::<u16>()), |plain_and_checksum, relay, ground| {
            let (plain, checksum) = plain_and_checksum;
            let mut frame = frame_of(&plain, relay);
            assert!(checksum_place(&frame) < frame.len());
            set_checksum(&mut frame, checksum);
            judge(ground, relay, &frame).map(drop)
        });
    });
}

#[test]
fn garbage_is_left_alone() {
    isolated(|| {
        run(&vec(any::<u8>(), 14..200), |frame, relay, ground| judge(ground, relay, &frame).map(drop));
    });
}
