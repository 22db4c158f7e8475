//! How many queues of a TUN device are held, by whichever process.
//!
//! Only rtnetlink tells. One question and one answer, without the asynchronous machinery of
//! [`netlink`](crate::netlink), because a device is made before there is a runtime.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;
use std::os::fd::AsRawFd as _;

/// `struct nlmsghdr` in bytes.
const MESSAGE_HEADER: usize = 16;

/// `struct ifinfomsg` in bytes.
const LINK_HEADER: usize = 16;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_TUN_NUM_QUEUES: u16 = 8;
const IFLA_TUN_NUM_DISABLED_QUEUES: u16 = 9;

/// The queues that a TUN device has.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Queues {
    /// It was not made for several, so that the kernel itself keeps a second process away.
    Single,
    /// So many, in use or disabled; 0 when the device was left persistent.
    Several(u32),
}

/// Says how many queues of the device `name` are held.
///
/// # Errors
/// `EINVAL` when the interface is no TUN device; otherwise what the kernel said.
pub(super) fn count(name: &str) -> Result<Queues, Errno> {
    let index = nix::net::if_::if_nametoindex(name)?;
    let answer = ask(index)?;
    queues(&answer).ok_or(Errno::EINVAL)
}

/// The kernel's message about an interface.
fn ask(index: u32) -> Result<Vec<u8>, Errno> {
    let route = SockProtocol::NetlinkRoute;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route)?;
    // The kernel answers within the call that asks; this only makes sure that nobody waits forever.
    setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::new(1, 0))?;
    send(netlink.as_raw_fd(), &question(index), MsgFlags::empty())?;
    let mut answer = vec![0; 32 << 10];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(length);
    Ok(answer)
}

/// `RTM_GETLINK` for one interface.
fn question(index: u32) -> [u8; MESSAGE_HEADER + LINK_HEADER] {
    let mut bytes = [0; MESSAGE_HEADER + LINK_HEADER];
    let length = (MESSAGE_HEADER + LINK_HEADER) as u32;
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    bytes[20..24].copy_from_slice(&index.to_ne_bytes());
    bytes
}

/// The number of queues in an `RTM_NEWLINK` message about a TUN device.
fn queues(message: &[u8]) -> Option<Queues> {
    if u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?) != libc::RTM_NEWLINK {
        return None;
    }
    let information = attribute(message.get(MESSAGE_HEADER + LINK_HEADER..)?, libc::IFLA_LINKINFO)?;
    if attribute(information, IFLA_INFO_KIND)? != b"tun\0" {
        return None;
    }
    let data = attribute(information, IFLA_INFO_DATA)?;
    let number = |kind| Some(u32::from_ne_bytes(attribute(data, kind)?.try_into().ok()?));
    Some(match (number(IFLA_TUN_NUM_QUEUES), number(IFLA_TUN_NUM_DISABLED_QUEUES)) {
        (Some(used), Some(disabled)) => Queues::Several(used.saturating_add(disabled)),
        _ => Queues::Single,
    })
}

/// The payload of the first attribute of a kind (`struct rtattr`, padded to 4 bytes).
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (&[a, b, c, d], _) = attributes.split_first_chunk::<4>()?;
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let payload = attributes.get(4..length)?;
        // The two highest bits say something about the payload.
        if kind & 0x3fff == wanted {
            return Some(payload);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_attribute(mut bytes: Vec<u8>, kind: u16, payload: &[u8]) -> Vec<u8> {
        bytes.extend((4 + payload.len() as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn answer(kind: &[u8], queues: Option<(u32, u32)>) -> Vec<u8> {
        let mut data = with_attribute(Vec::new(), 7, &[queues.is_some().into()]);
        if let Some((used, disabled)) = queues {
            data = with_attribute(data, IFLA_TUN_NUM_QUEUES, &used.to_ne_bytes());
            data = with_attribute(data, IFLA_TUN_NUM_DISABLED_QUEUES, &disabled.to_ne_bytes());
        }
        let information = with_attribute(Vec::new(), IFLA_INFO_KIND, kind);
        let information = with_attribute(information, IFLA_INFO_DATA, &data);
        let mut message = vec![0; MESSAGE_HEADER + LINK_HEADER];
        message[4..6].copy_from_slice(&libc::RTM_NEWLINK.to_ne_bytes());
        let message = with_attribute(message, 3, b"adit0\0");
        with_attribute(message, libc::IFLA_LINKINFO | 0x8000, &information)
    }

    #[test]
    fn queues_are_counted_in_use_or_not() {
        assert_eq!(queues(&answer(b"tun\0", Some((3, 1)))), Some(Queues::Several(4)));
        assert_eq!(queues(&answer(b"tun\0", None)), Some(Queues::Single));
        assert_eq!(queues(&answer(b"veth\0", Some((3, 1)))), None);
    }

    #[test]
    fn a_message_cut_short_or_of_another_type_counts_nothing() {
        let whole = answer(b"tun\0", Some((3, 1)));
        assert!((0..whole.len()).all(|end| queues(&whole[..end]).is_none()));
        let mut error = whole;
        error[4] = 2;
        assert_eq!(queues(&error), None);
    }

    #[test]
    fn an_attribute_without_length_ends_the_search() {
        assert_eq!(attribute(&[0; 16], 5), None);
    }
}
