//! What ICMP errors say about datagrams that were sent: the kernel's error queue of a socket.
//!
//! With `IP_RECVERR` the kernel keeps each ICMP error that quotes a datagram of the socket, together with the
//! address that the datagram was sent to. Anybody can forge such an error who guesses both addresses and
//! ports; it is a hint and no more.

use std::io::IoSliceMut;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use socket2::Socket;

/// Room for one error with the address of the router that sent it.
const CONTROL: usize = 256;

/// ICMP types that say that a datagram did not arrive (RFC 792; RFC 4443, section 3.1).
const DESTINATION_UNREACHABLE_V4: u8 = 3;
const DESTINATION_UNREACHABLE_V6: u8 = 1;
/// ICMPv6 type: it was too large (RFC 8201). ICMPv4 has a code for that (RFC 1191).
const PACKET_TOO_BIG_V6: u8 = 2;

/// Asks the kernel to keep errors.
pub(super) fn enable(socket: &Socket, is_ipv4: bool) -> nix::Result<()> {
    if is_ipv4 {
        setsockopt(socket, sockopt::Ipv4RecvErr, &true)
    } else {
        setsockopt(socket, sockopt::Ipv6RecvErr, &true)
    }
}

/// Takes one error; `Some(None)` if it says nothing about a destination, `None` when there is none left.
pub(super) fn take(socket: &Socket) -> Option<Option<SocketAddr>> {
    let mut quoted = [0; 1];
    let mut slices = [IoSliceMut::new(&mut quoted)];
    let mut control = [0; CONTROL];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let received =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags).ok()?;
    let unreachable = received.cmsgs().is_ok_and(|mut messages| messages.any(|message| says_so(&message)));
    Some(received.address.filter(|_| unreachable).and_then(|address| destination(&address)))
}

fn says_so(message: &ControlMessageOwned) -> bool {
    match message {
        ControlMessageOwned::Ipv4RecvErr(error, _) => {
            error.ee_origin == libc::SO_EE_ORIGIN_ICMP && error.ee_type == DESTINATION_UNREACHABLE_V4
        }
        ControlMessageOwned::Ipv6RecvErr(error, _) => {
            error.ee_origin == libc::SO_EE_ORIGIN_ICMP6
                && matches!(error.ee_type, DESTINATION_UNREACHABLE_V6 | PACKET_TOO_BIG_V6)
        }
        _ => false,
    }
}

fn destination(address: &SockaddrStorage) -> Option<SocketAddr> {
    let ipv4 = address.as_sockaddr_in().map(|ipv4| SocketAddr::V4(SocketAddrV4::from(*ipv4)));
    ipv4.or_else(|| address.as_sockaddr_in6().map(|ipv6| SocketAddr::V6(SocketAddrV6::from(*ipv6))))
}
