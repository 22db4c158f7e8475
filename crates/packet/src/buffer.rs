//! Packet buffers with room in front, and a bounded pool of them.
//!
//! A packet grows at the front when it is wrapped (tunnel header, TURN channel header) and shrinks there when it is
//! unwrapped. [`PacketBuffer`] keeps headroom so that neither moves the payload. [`BufferPool`] hands buffers out again
//! instead of asking the allocator; it belongs to one thread and has no lock. It bounds the memory that lies idle; how
//! many buffers are in use is bounded by the queues that hold them.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// Bytes with headroom and tailroom in one allocation.
pub struct PacketBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// The buffer has too little room on the side that should grow.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[error("packet buffer is full: {wanted} bytes wanted, {available} available")]
pub struct NoRoom {
    /// Bytes asked for.
    pub wanted: usize,
    /// Bytes left on that side.
    pub available: usize,
}

impl PacketBuffer {
    /// An empty buffer: `headroom` bytes in front, `room` bytes for the packet and what is appended to it.
    pub fn new(headroom: usize, room: usize) -> Self {
        Self { bytes: vec![0; headroom + room], start: headroom, end: headroom }
    }

    /// Bytes by which the packet can grow at the front.
    pub const fn headroom(&self) -> usize {
        self.start
    }

    /// Bytes by which the packet can grow at the end.
    pub const fn tailroom(&self) -> usize {
        self.bytes.len() - self.end
    }

    /// Grows the packet at the front by `count` bytes of undefined content, and returns them.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when the headroom is used up.
    pub fn prepend(&mut self, count: usize) -> Result<&mut [u8], NoRoom> {
        let start = self.start.checked_sub(count).ok_or(NoRoom { wanted: count, available: self.start })?;
        self.start = start;
        Ok(&mut self.bytes[start..start + count])
    }

    /// Grows the packet at the end by `count` bytes of undefined content, and returns them.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when the tailroom is used up.
    pub fn append(&mut self, count: usize) -> Result<&mut [u8], NoRoom> {
        if count > self.tailroom() {
            return Err(NoRoom { wanted: count, available: self.tailroom() });
        }
        let old = self.end;
        self.end += count;
        Ok(&mut self.bytes[old..old + count])
    }

    /// Appends a copy of `bytes`.
    ///
    /// # Errors
    ///
    /// [`NoRoom`] when they do not fit.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.append(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Removes up to `count` bytes from the front; they become headroom.
    pub fn trim_front(&mut self, count: usize) {
        self.start += count.min(self.end - self.start);
    }

    /// Shortens the packet to at most `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        self.end = self.end.min(self.start.saturating_add(length));
    }

    /// All of the room behind the headroom, for a read to fill; call [`truncate`](Self::truncate) with its length.
    pub fn fill(&mut self) -> &mut [u8] {
        self.end = self.bytes.len();
        &mut self.bytes[self.start..]
    }

    /// Empties the buffer and sets its headroom, as far as the allocation reaches.
    pub fn reset(&mut self, headroom: usize) {
        self.start = headroom.min(self.bytes.len());
        self.end = self.start;
    }
}

impl Deref for PacketBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }
}

impl DerefMut for PacketBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }
}

impl AsRef<[u8]> for PacketBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for PacketBuffer {
    /// Prints sizes only: packets are not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketBuffer")
            .field("headroom", &self.headroom())
            .field("length", &self.len())
            .field("tailroom", &self.tailroom())
            .finish()
    }
}

/// Keeps used buffers for the next packet, up to a number.
#[derive(Debug)]
pub struct BufferPool {
    idle: Vec<PacketBuffer>,
    capacity: usize,
    headroom: usize,
    room: usize,
}

impl BufferPool {
    /// A pool of buffers with `headroom` and `room` bytes each, of which at most `capacity` lie idle.
    pub fn new(capacity: usize, headroom: usize, room: usize) -> Self {
        Self { idle: Vec::with_capacity(capacity), capacity, headroom, room }
    }

    /// An empty buffer with the pool's headroom; allocates only when none lies idle. Old content may show through.
    pub fn take(&mut self) -> PacketBuffer {
        self.idle.pop().unwrap_or_else(|| PacketBuffer::new(self.headroom, self.room))
    }

    /// Gives a buffer back; it is freed when the pool is full or the buffer is not of the pool's size.
    pub fn give_back(&mut self, mut buffer: PacketBuffer) {
        if self.idle.len() < self.capacity && buffer.bytes.len() == self.headroom + self.room {
            buffer.reset(self.headroom);
            self.idle.push(buffer);
        }
    }

    /// Buffers that lie idle.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_grows_into_its_headroom_without_moving() {
        let mut buffer = PacketBuffer::new(20, 100);
        buffer.extend_from_slice(b"payload").expect("fits");
        let before = buffer.as_ptr();
        buffer.prepend(4).expect("fits").copy_from_slice(b"head");
        assert_eq!(&*buffer, b"headpayload");
        buffer.trim_front(4);
        assert_eq!(buffer.as_ptr(), before);
    }

    #[test]
    fn room_is_finite_on_both_sides() {
        let mut buffer = PacketBuffer::new(2, 3);
        assert_eq!(buffer.prepend(3).expect_err("too much"), NoRoom { wanted: 3, available: 2 });
        assert_eq!(buffer.append(4).expect_err("too much"), NoRoom { wanted: 4, available: 3 });
        assert!(buffer.is_empty());
    }

    #[test]
    fn trimming_stops_at_the_end_of_the_packet() {
        let mut buffer = PacketBuffer::new(0, 4);
        buffer.extend_from_slice(&[1, 2]).expect("fits");
        buffer.trim_front(9);
        assert!(buffer.is_empty());
        assert_eq!(buffer.headroom(), 2);
        buffer.truncate(usize::MAX);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_read_fills_the_room_and_is_cut_to_its_length() {
        let mut buffer = PacketBuffer::new(8, 16);
        buffer.fill()[..3].copy_from_slice(b"abc");
        buffer.truncate(3);
        assert_eq!(&*buffer, b"abc");
    }

    #[test]
    fn the_pool_reuses_buffers_and_keeps_no_more_than_its_capacity() {
        let mut pool = BufferPool::new(1, 8, 8);
        let (mut first, second) = (pool.take(), pool.take());
        first.prepend(8).expect("fits");
        let address = first.bytes.as_ptr();
        pool.give_back(first);
        pool.give_back(second);
        assert_eq!(pool.idle(), 1);
        let again = pool.take();
        assert_eq!((again.bytes.as_ptr(), again.headroom(), again.len()), (address, 8, 0));
    }

    #[test]
    fn the_pool_refuses_buffers_of_another_size() {
        let mut pool = BufferPool::new(4, 8, 8);
        pool.give_back(PacketBuffer::new(8, 9));
        assert_eq!(pool.idle(), 0);
    }
}
