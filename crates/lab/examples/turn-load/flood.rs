//! Requests of strangers: how much does a relay answer, and does it remember anything of them?
//!
//! All requests leave by one socket, each with a source address of its own, from a network that the machine must have
//! whole (`ip route add local NETWORK dev lo`). For the relay each address and port is another client.

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

use adit_turn::stun::{AttributeKind, Class, Key, Method, TransactionId, Writer};
use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg, setsockopt, sockopt};

use crate::flow::client_address;

/// Sockets, and so source ports of each address.
const SOCKETS: usize = 8;

/// Requests between two looks at the answers.
const BATCH: u64 = 32;

/// Time for the last answers.
const GRACE: Duration = Duration::from_millis(300);

/// Bytes of IPv4 and UDP header around a payload.
const HEADERS: u64 = 28;

/// Answers are read into this; none is longer.
const LARGEST: usize = 2_048;

/// An attribute that no server knows and that must be understood (RFC 8489, section 14).
const UNKNOWN: AttributeKind = AttributeKind(0x7f01);

/// What a stranger may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Binding,
    BareAllocate,
    Allocate,
    AllocateWithWrongIntegrity,
    BareRefresh,
    BareCreatePermission,
    BareChannelBind,
    UnknownAttribute,
    UnknownMethod,
    BareSend,
    Garbage,
}

impl Question {
    pub(crate) const ALL: [Self; 11] = [
        Self::Binding,
        Self::BareAllocate,
        Self::Allocate,
        Self::AllocateWithWrongIntegrity,
        Self::BareRefresh,
        Self::BareCreatePermission,
        Self::BareChannelBind,
        Self::UnknownAttribute,
        Self::UnknownMethod,
        Self::BareSend,
        Self::Garbage,
    ];

    /// What a report calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Binding => "binding",
            Self::BareAllocate => "bare-allocate",
            Self::Allocate => "allocate",
            Self::AllocateWithWrongIntegrity => "allocate-with-wrong-integrity",
            Self::BareRefresh => "bare-refresh",
            Self::BareCreatePermission => "bare-create-permission",
            Self::BareChannelBind => "bare-channel-bind",
            Self::UnknownAttribute => "unknown-attribute",
            Self::UnknownMethod => "unknown-method",
            Self::BareSend => "bare-send",
            Self::Garbage => "garbage",
        }
    }

    /// The payload number `number`.
    fn write(self, number: u64) -> Vec<u8> {
        let mut transaction = [0; 12];
        transaction[4..].copy_from_slice(&number.to_be_bytes());
        let request = |method| Writer::new(method, Class::Request, TransactionId(transaction));
        let udp = |writer: Writer| writer.attribute(AttributeKind::REQUESTED_TRANSPORT, &[17, 0, 0, 0]);
        match self {
            Self::Binding => request(Method::BINDING).finish(),
            Self::BareAllocate => request(Method::ALLOCATE).finish(),
            Self::Allocate => udp(request(Method::ALLOCATE)).finish(),
            Self::AllocateWithWrongIntegrity => udp(request(Method::ALLOCATE))
                .attribute(AttributeKind::USERNAME, b"4000000000:nobody")
                .attribute(AttributeKind::REALM, b"adit")
                .attribute(AttributeKind::NONCE, b"a nonce that nobody made")
                .integrity(&Key::short_term("a guess"))
                .finish(),
            Self::BareRefresh => request(Method::REFRESH).finish(),
            Self::BareCreatePermission => request(Method::CREATE_PERMISSION).finish(),
            Self::BareChannelBind => request(Method::CHANNEL_BIND).finish(),
            Self::UnknownAttribute => request(Method::BINDING).attribute(UNKNOWN, &[]).finish(),
            Self::UnknownMethod => request(Method(0x0ff)).finish(),
            Self::BareSend => {
                Writer::new(Method::SEND, Class::Indication, TransactionId(transaction)).finish()
            }
            Self::Garbage => number.to_be_bytes().repeat(8),
        }
    }
}

/// What a series of questions led to. Bytes are of UDP payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answers {
    pub(crate) asked: u64,
    pub(crate) asked_bytes: u64,
    pub(crate) answers: u64,
    pub(crate) answer_bytes: u64,
}

impl Answers {
    /// Bytes that the relay sent for each byte that it got.
    pub(crate) fn amplification(&self) -> f64 {
        self.answer_bytes as f64 / self.asked_bytes.max(1) as f64
    }

    /// The same with the headers of IPv4 and UDP.
    pub(crate) fn amplification_on_the_wire(&self) -> f64 {
        let bytes = |payload, count| (payload + HEADERS * count) as f64;
        bytes(self.answer_bytes, self.answers) / bytes(self.asked_bytes, self.asked).max(1.0)
    }
}

/// Asks the relay `count` times, each time as somebody else, at so many questions a second.
pub(crate) fn ask(
    relay: SocketAddr,
    strangers: IpNet,
    question: Question,
    count: u64,
    rate: f64,
) -> Result<Answers> {
    let SocketAddr::V4(relay) = relay else { bail!("strangers have IPv4 addresses") };
    let sockets = (0..SOCKETS).map(|_| open()).collect::<Result<Vec<_>>>()?;
    let (begin, mut answers) = (Instant::now(), Answers::default());
    while answers.asked < count {
        let due = (begin.elapsed().as_secs_f64() * rate) as u64;
        if due <= answers.asked {
            thread::sleep(Duration::from_micros(200));
        }
        for number in answers.asked..count.min(due).min(answers.asked + BATCH) {
            let index = usize::try_from(number)?;
            let payload = question.write(number);
            // One address for all sockets, then the next.
            let IpAddr::V4(from) = client_address(strangers, index / SOCKETS) else {
                bail!("strangers have IPv4 addresses")
            };
            send(&sockets[index % SOCKETS], &payload, from, relay)?;
            answers.asked += 1;
            answers.asked_bytes += payload.len() as u64;
        }
        count_answers(&sockets, &mut answers)?;
    }
    let end = Instant::now() + GRACE;
    while Instant::now() < end {
        count_answers(&sockets, &mut answers)?;
        thread::sleep(Duration::from_millis(5));
    }
    Ok(answers)
}

fn open() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("cannot open a UDP socket")?;
    socket.set_nonblocking(true)?;
    // Without the right to more, the usual size has to do.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &(8 << 20));
    Ok(socket)
}

fn send(socket: &UdpSocket, payload: &[u8], from: Ipv4Addr, to: SocketAddrV4) -> Result<()> {
    let source = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr { s_addr: u32::from(from).to_be() },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let control = [ControlMessage::Ipv4PacketInfo(&source)];
    let to = SockaddrIn::from(to);
    loop {
        match sendmsg(socket.as_raw_fd(), &[IoSlice::new(payload)], &control, MsgFlags::empty(), Some(&to)) {
            Ok(_) => return Ok(()),
            // Every question counts, so a full buffer is waited for.
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR) => thread::sleep(Duration::from_micros(50)),
            Err(error) => return Err(error).with_context(|| format!("cannot send from {from}")),
        }
    }
}

fn count_answers(sockets: &[UdpSocket], answers: &mut Answers) -> Result<()> {
    let mut buffer = [0; LARGEST];
    for socket in sockets {
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    answers.answers += 1;
                    answers.answer_bytes += length as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use adit_turn::stun::Message;

    use super::*;

    #[test]
    fn questions_are_what_they_are_called() {
        for question in Question::ALL {
            let payload = question.write(7);
            assert_eq!(Message::parse(&payload).is_ok(), question != Question::Garbage, "{question:?}");
            assert_ne!(payload, question.write(8));
        }
        assert_eq!(Question::BareAllocate.write(1).len(), 20);
    }

    #[test]
    fn every_question_has_a_sender_and_its_answer_is_counted() {
        let relay = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = relay.local_addr().unwrap();
        relay.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let answering = thread::spawn(move || {
            let (mut buffer, mut from) = ([0; 100], Vec::new());
            for _ in 0..20 {
                let (length, stranger) = relay.recv_from(&mut buffer).unwrap();
                relay.send_to(&buffer[..2 * length], stranger).unwrap();
                from.push(stranger);
            }
            from
        });
        // The whole of 127.0.0.0/8 is local on every Linux machine.
        let strangers = "127.0.0.0/16".parse().unwrap();
        let answers = ask(address, strangers, Question::Binding, 20, 10_000.0).unwrap();
        let mut from = answering.join().unwrap();
        from.sort_unstable();
        from.dedup();
        assert_eq!(from.len(), 20);
        assert_eq!((answers.answers, answers.answer_bytes), (20, 800));
        assert!((answers.amplification() - 2.0).abs() < 1e-9);
        assert!((answers.amplification_on_the_wire() - 68.0 / 48.0).abs() < 1e-9);
    }
}
