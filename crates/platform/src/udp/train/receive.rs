//! Receiving: many slots, filled by one `recvmmsg`, each with as many datagrams as the kernel has put together.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::RawFd;

/// The most that the kernel puts together.
const RECEIVED: usize = 65_535;
/// Slots begin in different lines of the processor's caches, which are indexed by address.
const SPREAD: usize = 65 * 64;
/// Room for one control message with an int, in aligned words.
const CONTROL: usize = 4;

/// What one slot holds: datagrams of one sender, side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Who sent them.
    pub source: SocketAddr,
    /// Bytes of all of them.
    pub length: usize,
    /// Bytes of each; the last may be shorter.
    pub segment: usize,
}

impl Received {
    /// True if there is more than one.
    #[must_use]
    pub fn is_train(&self) -> bool {
        self.length > self.segment
    }

    /// Where each datagram lies in the buffer of the slot, in order; one empty range for an empty datagram.
    pub fn datagrams(&self, headroom: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (segment, end) = (self.segment.max(1), headroom + self.length);
        let count = self.length.div_ceil(segment).max(1);
        (0..count).map(move |index| {
            let start = headroom + index * segment;
            start..(start + segment).min(end)
        })
    }
}

/// Buffers for one call, made once per thread.
pub struct ReceiveBatch {
    buffer: Box<[u8]>,
    headroom: usize,
    slot: usize,
    names: Box<[libc::sockaddr_storage]>,
    controls: Box<[[u64; CONTROL]]>,
    /// Both point into the boxes above, which never move or shrink.
    slices: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    filled: usize,
}

impl std::fmt::Debug for ReceiveBatch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ReceiveBatch").field("filled", &self.filled).finish_non_exhaustive()
    }
}

impl ReceiveBatch {
    /// Slots of 64 KiB with `headroom` bytes in front of what is received and `tailroom` behind.
    #[must_use]
    #[expect(unsafe_code, reason = "C structures that are valid when zero")]
    pub fn new(slots: usize, headroom: usize, tailroom: usize) -> Self {
        let slot = (headroom + RECEIVED + tailroom).next_multiple_of(64) + SPREAD;
        // SAFETY: all three are plain C structures, for which zero is a valid value.
        let (name, slice, header) = unsafe {
            (
                MaybeUninit::<libc::sockaddr_storage>::zeroed().assume_init(),
                MaybeUninit::<libc::iovec>::zeroed().assume_init(),
                MaybeUninit::<libc::mmsghdr>::zeroed().assume_init(),
            )
        };
        let mut batch = Self {
            buffer: vec![0; slots * slot].into_boxed_slice(),
            headroom,
            slot,
            names: vec![name; slots].into_boxed_slice(),
            controls: vec![[0; CONTROL]; slots].into_boxed_slice(),
            slices: vec![slice; slots].into_boxed_slice(),
            headers: vec![header; slots].into_boxed_slice(),
            filled: slots,
        };
        batch.connect();
        batch
    }

    /// Points each header at its slot.
    fn connect(&mut self) {
        let slots = self.buffer.chunks_exact_mut(self.slot).zip(&mut self.slices);
        for (slot, slice) in slots {
            *slice = libc::iovec { iov_base: slot[self.headroom..].as_mut_ptr().cast(), iov_len: RECEIVED };
        }
        let parts = self.names.iter_mut().zip(&mut self.controls).zip(&mut self.slices);
        for (header, ((name, control), slice)) in self.headers.iter_mut().zip(parts) {
            let header = &mut header.msg_hdr;
            header.msg_name = (&raw mut *name).cast();
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_iov = slice;
            header.msg_iovlen = 1;
        }
    }

    /// How many slots there are.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.headers.len()
    }

    /// Calls the kernel. On error nothing is filled.
    #[expect(unsafe_code, reason = "recvmmsg with buffers that are kept from call to call")]
    pub(super) fn fill(&mut self, socket: RawFd, slots: usize) -> io::Result<usize> {
        // The kernel has written over the sizes of what it filled the last time.
        for header in &mut self.headers[..self.filled] {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_controllen = size_of::<[u64; CONTROL]>();
        }
        self.filled = 0;
        let count = slots.min(self.headers.len()) as libc::c_uint;
        // SAFETY: the headers point to names, control buffers and slots that this structure owns, with their true
        // sizes; nobody else holds a reference to them, because `self` is borrowed mutably. `count` is no more than
        // there are headers. No timeout is given.
        let received = unsafe {
            libc::recvmmsg(socket, self.headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, std::ptr::null_mut())
        };
        // -1 is the only negative answer.
        let filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        self.filled = filled;
        Ok(filled)
    }

    /// What the last call put into a slot, and the slot's whole buffer; `None` past the filled ones, and when the
    /// kernel names a sender that is none.
    pub fn get(&mut self, index: usize) -> Option<(Received, &mut [u8])> {
        let received = self.received(index)?;
        let start = index * self.slot;
        Some((received, &mut self.buffer[start..start + self.slot]))
    }

    fn received(&self, index: usize) -> Option<Received> {
        let header = self.headers[..self.filled].get(index)?;
        let length = (header.msg_len as usize).min(RECEIVED);
        let source = sender(&self.names[index])?;
        let segment =
            segment_size(&self.controls[index], header.msg_hdr.msg_controllen).filter(|size| *size < length);
        Some(Received { source, length, segment: segment.unwrap_or(length) })
    }

    /// What the last call put into a slot, to look at: the first datagram of it.
    #[must_use]
    pub fn peek(&self, index: usize) -> Option<(SocketAddr, &[u8])> {
        let received = self.received(index)?;
        let start = index * self.slot + self.headroom;
        Some((received.source, &self.buffer[start..start + received.segment]))
    }

    /// The whole buffer of a slot.
    #[must_use]
    pub fn buffer(&self, index: usize) -> &[u8] {
        &self.buffer[index * self.slot..(index + 1) * self.slot]
    }
}

/// What the kernel has dropped at a socket (`SO_MEMINFO`).
#[expect(unsafe_code, reason = "the option has no safe wrapper")]
pub(super) fn dropped(socket: RawFd) -> Option<u32> {
    /// Where `linux/sock_diag.h` has the count of drops, last of all.
    const DROPS: usize = 8;
    let mut values = [0_u32; DROPS + 1];
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the values, which live through the call.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let is_complete = result == 0 && length as usize == size_of_val(&values);
    is_complete.then_some(values[DROPS])
}

/// The address that the kernel wrote.
#[expect(unsafe_code, reason = "the family says which structure the bytes are")]
fn sender(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the storage is larger than a sockaddr_in and aligned for each of its kind; every bit pattern
            // is a valid one.
            let name = unsafe { *(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = name.sin_addr.s_addr.to_ne_bytes();
            Some(SocketAddrV4::new(ip.into(), u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let name = unsafe { *(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            // No flow information: it is not asked for, and would not be part of who somebody is.
            Some(SocketAddrV6::new(ip, u16::from_be(name.sin6_port), 0, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// The size of the datagrams that the kernel put together, if it says so: one control message is asked for, so it
/// is the first.
fn segment_size(control: &[u64; CONTROL], length: usize) -> Option<usize> {
    const HEADER: usize = size_of::<libc::cmsghdr>();
    if length < HEADER + size_of::<libc::c_int>() {
        return None;
    }
    // struct cmsghdr: length (a word), level, type; then the int.
    let [_, kind, value, ..] = control.map(u64::to_ne_bytes);
    let int = |bytes: [u8; 8], at: usize| {
        libc::c_int::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let is_segment = int(kind, 0) == libc::SOL_UDP && int(kind, 4) == libc::UDP_GRO;
    is_segment.then(|| usize::try_from(int(value, 0)).ok()).flatten().filter(|size| *size > 0)
}

/// The layout that [`segment_size`] reads.
const _: () = assert!(size_of::<libc::cmsghdr>() == 16 && size_of::<usize>() == 8);
