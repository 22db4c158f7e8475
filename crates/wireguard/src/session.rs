//! Transport sessions: sealing and opening in place, shared among threads.
//!
//! The send counter is atomic and the replay window sits behind a short lock that a worker
//! takes once per batch, so no handshake state is needed to move packets. A session has no
//! clock: callers check [`Session::is_expired`] once per batch, and the device removes the
//! session when its time is over.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use thiserror::Error;

use crate::aead::AeadKey;
use crate::message::{DATA_TYPE, data, read_u32, read_u64};
use crate::replay::ReplayWindow;
use crate::{
    Activity, DropReason, HEADER, OVERHEAD, PADDING, PeerId, REJECT_AFTER_MESSAGES, REJECT_AFTER_TIME, TAG,
};

/// Why a session did not seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SealError {
    /// The peer has no session that may send.
    #[error("the peer has no session that may send")]
    NoSession,
    /// The buffer has no room for header, plaintext and tag.
    #[error("the buffer has no room for header, plaintext and tag")]
    BufferTooSmall,
    /// All counters of this session are used up.
    #[error("all counters of this session are used up")]
    CounterExhausted,
    /// The cipher refused the plaintext.
    #[error("the cipher refused the plaintext")]
    Cipher,
}

/// The send counter on a cache line of its own, since every worker writes it.
#[derive(Debug)]
#[repr(align(64))]
struct SendCounter(AtomicU64);

/// One pair of transport keys, made by one handshake.
pub struct Session {
    peer: PeerId,
    receiver_index: u32,
    remote_index: u32,
    initiator: bool,
    created: Instant,
    send_key: AeadKey,
    receive_key: AeadKey,
    send_counter: SendCounter,
    window: Mutex<ReplayWindow>,
    activity: Arc<Activity>,
}

/// What a session is made of.
#[derive(Debug)]
pub(crate) struct SessionParts {
    pub(crate) peer: PeerId,
    pub(crate) receiver_index: u32,
    pub(crate) remote_index: u32,
    pub(crate) initiator: bool,
    pub(crate) created: Instant,
    pub(crate) send_key: AeadKey,
    pub(crate) receive_key: AeadKey,
    pub(crate) activity: Arc<Activity>,
}

impl Session {
    pub(crate) fn new(parts: SessionParts) -> Self {
        Self {
            peer: parts.peer,
            receiver_index: parts.receiver_index,
            remote_index: parts.remote_index,
            initiator: parts.initiator,
            created: parts.created,
            send_key: parts.send_key,
            receive_key: parts.receive_key,
            send_counter: SendCounter(AtomicU64::new(0)),
            window: Mutex::new(ReplayWindow::new()),
            activity: parts.activity,
        }
    }

    /// The peer at the other end.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// Our index: what the peer writes into data datagrams for this session.
    #[must_use]
    pub const fn receiver_index(&self) -> u32 {
        self.receiver_index
    }

    /// The peer's index: what we write into data datagrams.
    #[must_use]
    pub const fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Whether we sent the initiation.
    #[must_use]
    pub const fn is_initiator(&self) -> bool {
        self.initiator
    }

    /// When the handshake completed on our side.
    #[must_use]
    pub const fn created(&self) -> Instant {
        self.created
    }

    /// Whether the session is past its 180 s and must neither seal nor open.
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.created) >= REJECT_AFTER_TIME
    }

    /// What the peer's sessions carried; shared by all sessions of the peer.
    #[must_use]
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Counters used so far.
    pub(crate) fn messages_sent(&self) -> u64 {
        self.send_counter.0.load(Relaxed)
    }

    /// Seals the plaintext at `buffer[HEADER..HEADER + plaintext_len]` and returns the datagram's length.
    ///
    /// The plaintext is padded with zeros to a multiple of 16 bytes when the buffer has room
    /// for it; the header is written to `buffer[..HEADER]` and the tag behind the ciphertext.
    /// An empty plaintext is a keepalive. Record what was sent in [`Session::activity`].
    ///
    /// # Errors
    /// See [`SealError`]; the content of `buffer` is then unspecified.
    pub fn seal_in_place(&self, buffer: &mut [u8], plaintext_len: usize) -> Result<usize, SealError> {
        let length = padded_length(buffer.len(), plaintext_len).ok_or(SealError::BufferTooSmall)?;
        let counter = self.take_counter()?;
        let (header, rest) = buffer.split_at_mut(HEADER);
        let (plaintext, rest) = rest.split_at_mut(length);
        plaintext[plaintext_len..].fill(0);
        header[..4].copy_from_slice(&[DATA_TYPE, 0, 0, 0]);
        header[data::RECEIVER..data::COUNTER].copy_from_slice(&self.remote_index.to_le_bytes());
        header[data::COUNTER..].copy_from_slice(&counter.to_le_bytes());
        let tag = self.send_key.seal(counter, &[], plaintext).map_err(|_| SealError::Cipher)?;
        rest[..TAG].copy_from_slice(&tag);
        Ok(length + OVERHEAD)
    }

    fn take_counter(&self) -> Result<u64, SealError> {
        let counter = self.send_counter.0.fetch_add(1, Relaxed);
        if counter >= REJECT_AFTER_MESSAGES {
            // Step back, so that the counter cannot wrap however often this is tried.
            self.send_counter.0.store(REJECT_AFTER_MESSAGES, Relaxed);
            return Err(SealError::CounterExhausted);
        }
        Ok(counter)
    }

    /// Locks the replay window; take it once per batch.
    #[must_use]
    pub fn window(&self) -> WindowGuard<'_> {
        // A panic elsewhere leaves the window valid: it is only ever changed word by word.
        let window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        WindowGuard { session: self, window }
    }

    /// Opens one datagram; [`WindowGuard::open_in_place`] with a lock for this datagram only.
    ///
    /// # Errors
    /// See [`WindowGuard::open_in_place`].
    pub fn open_in_place(&self, datagram: &mut [u8]) -> Result<Range<usize>, DropReason> {
        self.window().open_in_place(datagram)
    }

    #[cfg(test)]
    pub(crate) fn set_messages_sent(&self, messages: u64) {
        self.send_counter.0.store(messages, Relaxed);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Session")
            .field("peer", &self.peer)
            .field("receiver_index", &self.receiver_index)
            .field("remote_index", &self.remote_index)
            .field("initiator", &self.initiator)
            .finish_non_exhaustive()
    }
}

/// A session with its replay window locked.
#[derive(Debug)]
pub struct WindowGuard<'a> {
    session: &'a Session,
    window: MutexGuard<'a, ReplayWindow>,
}

impl WindowGuard<'_> {
    /// The session this window belongs to.
    #[must_use]
    pub const fn session(&self) -> &Session {
        self.session
    }

    /// One more than the newest counter received; 0 before the first.
    ///
    /// It grows with a datagram exactly when that datagram is newer than all before, so it
    /// tells late datagrams from those that show where the peer is now.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.window.next()
    }

    /// Decrypts a data datagram in place and returns where its plaintext lies.
    ///
    /// The plaintext still has its padding; the inner IP header says where the packet ends. An
    /// empty range is a keepalive. Record what was received in [`Session::activity`].
    ///
    /// # Errors
    /// `UnknownReceiver` when the datagram names another session; `Replayed`, `BelowWindow`
    /// before any decryption; `Decryption` when it is not authentic. The content of
    /// `datagram` is then unspecified.
    pub fn open_in_place(&mut self, datagram: &mut [u8]) -> Result<Range<usize>, DropReason> {
        if datagram.len() < OVERHEAD {
            return Err(DropReason::WrongLength);
        }
        if datagram[..4] != [DATA_TYPE, 0, 0, 0] {
            return Err(DropReason::UnknownMessageType);
        }
        if read_u32(datagram, data::RECEIVER) != self.session.receiver_index {
            return Err(DropReason::UnknownReceiver);
        }
        let counter = read_u64(datagram, data::COUNTER);
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(DropReason::SessionExpired);
        }
        self.window.check(counter)?;
        let key = &self.session.receive_key;
        key.open(counter, &[], &mut datagram[HEADER..]).map_err(|_| DropReason::Decryption)?;
        self.window.accept(counter);
        Ok(HEADER..datagram.len() - TAG)
    }
}

/// Padded plaintext length that fits into `capacity` bytes with header and tag.
fn padded_length(capacity: usize, plaintext_len: usize) -> Option<usize> {
    let room = capacity.checked_sub(OVERHEAD)?;
    if plaintext_len > room {
        return None;
    }
    let padded = plaintext_len.checked_next_multiple_of(PADDING)?;
    Some(if padded <= room { padded } else { plaintext_len })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Session, Session) {
        let now = Instant::now();
        let make = |own: u32, other: u32, send: u8, receive: u8| {
            Session::new(SessionParts {
                peer: PeerId::from_raw(1),
                receiver_index: own,
                remote_index: other,
                initiator: own == 1,
                created: now,
                send_key: AeadKey::new(&[send; 32]),
                receive_key: AeadKey::new(&[receive; 32]),
                activity: Arc::new(Activity::new(now)),
            })
        };
        (make(1, 2, 10, 20), make(2, 1, 20, 10))
    }

    fn seal(session: &Session, plaintext: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0xee; plaintext.len() + OVERHEAD + PADDING];
        buffer[HEADER..HEADER + plaintext.len()].copy_from_slice(plaintext);
        let length = session.seal_in_place(&mut buffer, plaintext.len()).unwrap();
        buffer.truncate(length);
        buffer
    }

    #[test]
    fn plaintext_is_padded_and_comes_back() {
        let (a, b) = pair();
        let mut datagram = seal(&a, b"seventeen letters");
        assert_eq!(datagram.len(), OVERHEAD + 32);
        assert_eq!(crate::receiver_index(&datagram), Some(2));
        let range = b.open_in_place(&mut datagram).unwrap();
        assert_eq!(datagram[range], *b"seventeen letters\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let mut keepalive = seal(&a, b"");
        assert_eq!(b.open_in_place(&mut keepalive).map(|range| range.is_empty()), Ok(true));
    }

    #[test]
    fn replays_and_forgeries_do_not_open() {
        let (a, b) = pair();
        let sealed = seal(&a, b"x");
        let mut window = b.window();
        let mut forged = sealed.clone();
        forged[20] ^= 1;
        assert_eq!(window.open_in_place(&mut forged), Err(DropReason::Decryption));
        assert!(window.open_in_place(&mut sealed.clone()).is_ok(), "the forgery did not use up the counter");
        assert_eq!(window.open_in_place(&mut sealed.clone()), Err(DropReason::Replayed));
        assert_eq!(a.open_in_place(&mut sealed.clone()), Err(DropReason::UnknownReceiver));
        assert_eq!(window.open_in_place(&mut [4, 0, 0, 0]), Err(DropReason::WrongLength));
    }

    #[test]
    fn a_full_buffer_is_sealed_without_padding() {
        let (a, b) = pair();
        let mut exact = vec![1; OVERHEAD + 5];
        assert_eq!(a.seal_in_place(&mut exact, 5), Ok(OVERHEAD + 5));
        assert_eq!(b.open_in_place(&mut exact), Ok(HEADER..HEADER + 5));
        assert_eq!(a.seal_in_place(&mut exact, 6), Err(SealError::BufferTooSmall));
        assert_eq!(a.seal_in_place(&mut [0; 8], 0), Err(SealError::BufferTooSmall));
    }

    #[test]
    fn counters_end_before_they_wrap() {
        let (a, b) = pair();
        a.set_messages_sent(REJECT_AFTER_MESSAGES - 1);
        let mut last = seal(&a, b"last");
        assert!(b.open_in_place(&mut last).is_ok());
        for _ in 0..3 {
            assert_eq!(a.seal_in_place(&mut [0; 64], 0), Err(SealError::CounterExhausted));
        }
    }

    #[test]
    fn sessions_are_shared_by_threads() {
        const fn shareable<T: Send + Sync>() {}
        shareable::<Session>();
    }
}
