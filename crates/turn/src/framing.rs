//! STUN messages and ChannelData in a byte stream: TURN over TCP and TLS (RFC 8656, section 12.5; RFC
//! 8489, section 6.2.2).
//!
//! ```text
//! | STUN, length in its header | channel, length, data, padding to 4 bytes | STUN ...
//! ```
//!
//! Both kinds say in their first four bytes how long they are, and the two first bits tell them apart.
//! A [`Splitter`] holds what has arrived until a message is whole. Its memory is bounded by the longest
//! message it accepts, and grows only with bytes that have arrived; a stream that starts to talk
//! nonsense cannot be trusted to find its way back, so an error means: close the connection.
//!
//! Deliberately absent: the framing of RFC 4571, which is for ICE over TCP and not for TURN.

use crate::channel_data;
use crate::stun::{HEADER, MAGIC_COOKIE};
use std::ops::Range;
use thiserror::Error;

/// Length of the longest message there is: a STUN header and 65,532 bytes of attributes.
pub const LONGEST_MESSAGE: usize = HEADER + 65_532;

/// Bytes that tell how long a message is.
const PREFIX: usize = 4;
/// Room that is made at a time.
const READ: usize = 2048;

/// Why a stream cannot go on; the connection must be closed.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Error)]
pub enum FramingError {
    /// Neither STUN nor ChannelData begins like this.
    #[error("neither STUN nor ChannelData")]
    NotTurn,
    /// A STUN message says a length that is no multiple of four.
    #[error("a STUN message has an impossible length")]
    WrongLength,
    /// The message is longer than the stream may use now.
    #[error("a message is too long")]
    TooLong,
}

/// Cuts a byte stream into messages.
///
/// Read from the connection into [`space`](Self::space), report how much with
/// [`filled`](Self::filled), then take messages with [`next_message`](Self::next_message) until there
/// is none.
#[derive(Debug)]
pub struct Splitter {
    buffer: Vec<u8>,
    /// Where bytes lie that have arrived and were not taken.
    pending: Range<usize>,
    limit: usize,
}

impl Splitter {
    /// A splitter for messages of at most `limit` bytes, 4 to [`LONGEST_MESSAGE`], padding included.
    ///
    /// A client that has not shown credentials yet needs no more than a thousand.
    pub fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), pending: 0..0, limit: limit.clamp(PREFIX, LONGEST_MESSAGE) }
    }

    /// Changes the length of the longest message from the next one on.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.clamp(PREFIX, LONGEST_MESSAGE);
    }

    /// Takes `bytes` of memory at once, for a stream that carries much: a read then brings many messages.
    pub fn reserve(&mut self, bytes: usize) {
        if self.buffer.len() < bytes {
            self.buffer.resize(bytes, 0);
        }
    }

    /// Where the next bytes of the stream go; never empty once all whole messages are taken.
    pub fn space(&mut self) -> &mut [u8] {
        self.make_room();
        &mut self.buffer[self.pending.end..]
    }

    /// Reports that the first `count` bytes of [`space`](Self::space) have been filled.
    pub fn filled(&mut self, count: usize) {
        self.pending.end = (self.pending.end + count).min(self.buffer.len());
    }

    /// Takes the next whole message, ChannelData with its padding; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// A [`FramingError`], and the same again whenever asked: the connection must be closed.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, FramingError> {
        let pending = &self.buffer[self.pending.clone()];
        let Some(length) = message_length(pending)? else {
            return Ok(None);
        };
        if length > self.limit {
            return Err(FramingError::TooLong);
        }
        if length > pending.len() {
            return Ok(None);
        }
        let start = self.pending.start;
        self.pending.start += length;
        Ok(Some(&self.buffer[start..start + length]))
    }

    /// Takes all whole messages, to be worked on in place.
    ///
    /// # Errors
    ///
    /// As [`next_message`](Self::next_message), once the messages before the nonsense were taken.
    pub fn whole_messages(&mut self) -> Result<WholeMessages<'_>, FramingError> {
        let start = self.pending.start;
        let ended = loop {
            match self.next_message() {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if self.pending.start == start {
            ended?;
        }
        Ok(WholeMessages { rest: &mut self.buffer[start..self.pending.start] })
    }

    /// Takes bytes that lie elsewhere already and returns copies of all messages that are whole with them.
    ///
    /// # Errors
    ///
    /// As [`next_message`](Self::next_message); messages before the nonsense are lost with the connection.
    pub fn accept(&mut self, mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, FramingError> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let space = self.space();
            let count = space.len().min(bytes.len());
            space[..count].copy_from_slice(&bytes[..count]);
            self.filled(count);
            bytes = &bytes[count..];
            while let Some(message) = self.next_message()? {
                messages.push(message.to_vec());
            }
        }
        Ok(messages)
    }

    /// How many bytes wait for the rest of their message.
    pub fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// Moves what waits to the front if there is no room behind it, and grows the buffer for a message
    /// that has begun to fill it.
    fn make_room(&mut self) {
        if self.pending.is_empty() {
            self.pending = 0..0;
        }
        // With little room left, reads would bring little.
        let room = self.buffer.len() - self.pending.end;
        if room > self.buffer.len() / 4 {
            return;
        }
        if self.pending.start > 0 {
            self.buffer.copy_within(self.pending.clone(), 0);
            self.pending = 0..self.pending.len();
        }
        if self.pending.end == self.buffer.len() {
            let length = (self.buffer.len() * 2).clamp(READ.min(self.limit), self.limit);
            self.buffer.resize(length.max(self.pending.end + 1), 0);
        }
    }
}

/// Messages that lie side by side.
#[derive(Debug)]
pub struct WholeMessages<'a> {
    rest: &'a mut [u8],
}

impl<'a> Iterator for WholeMessages<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<&'a mut [u8]> {
        let length = message_length(self.rest).ok().flatten()?;
        let (message, rest) = std::mem::take(&mut self.rest).split_at_mut_checked(length)?;
        self.rest = rest;
        Some(message)
    }
}

/// How long the message is that begins here; `None` if too little of it is there to tell.
///
/// # Errors
///
/// If it can be no message.
fn message_length(bytes: &[u8]) -> Result<Option<usize>, FramingError> {
    let Some(first) = bytes.first() else {
        return Ok(None);
    };
    // RFC 8656, section 12.5: the two leading bits are 00 for STUN and 01 for ChannelData.
    let is_stun = match first >> 6 {
        0 => true,
        1 => false,
        _ => return Err(FramingError::NotTurn),
    };
    let cookie = bytes.iter().skip(PREFIX).zip(MAGIC_COOKIE.to_be_bytes());
    if is_stun && cookie.into_iter().any(|(byte, expected)| *byte != expected) {
        return Err(FramingError::NotTurn);
    }
    let Some(&[_, _, high, low]) = bytes.first_chunk::<PREFIX>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if !is_stun {
        // The length does not count the padding, which over a stream is always there.
        return Ok(Some(channel_data::HEADER + length.next_multiple_of(4)));
    }
    if !length.is_multiple_of(4) {
        return Err(FramingError::WrongLength);
    }
    Ok(Some(HEADER + length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::{AttributeKind, Class, Method, TransactionId, Writer};

    fn stun(length: usize) -> Vec<u8> {
        let writer = Writer::new(Method::SEND, Class::Indication, TransactionId([1; 12]));
        writer.attribute(AttributeKind::DATA, &vec![7; length]).finish()
    }

    /// Feeds bytes in pieces and collects messages.
    fn split(splitter: &mut Splitter, bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, FramingError> {
        let mut messages = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let space = splitter.space();
            let count = piece.min(rest.len()).min(space.len());
            space[..count].copy_from_slice(&rest[..count]);
            splitter.filled(count);
            rest = &rest[count..];
            while let Some(message) = splitter.next_message()? {
                messages.push(message.to_vec());
            }
        }
        Ok(messages)
    }

    #[test]
    fn messages_come_out_whole_however_they_arrive() {
        let messages = [
            stun(0),
            b"\x40\x01\x00\x03abc\0".to_vec(),
            b"\x40\x02\x00\x00".to_vec(),
            stun(3000),
            b"\x7f\xff\x00\x04abcd".to_vec(),
            [&b"\x4f\xff\xff\xff"[..], &[9; 65_536]].concat(),
            stun(65_524),
        ];
        let stream = messages.concat();
        for piece in [1, 3, 4, 7, 1000, 1 << 20] {
            let mut splitter = Splitter::new(LONGEST_MESSAGE);
            assert_eq!(split(&mut splitter, &stream, piece).as_deref(), Ok(&messages[..]), "{piece}");
            assert_eq!(splitter.waiting(), 0);
            assert!(splitter.buffer.len() <= LONGEST_MESSAGE);
        }
    }

    #[test]
    fn memory_follows_what_has_arrived_and_stops_at_the_limit() {
        let mut splitter = Splitter::new(1000);
        assert_eq!(split(&mut splitter, &stun(976), 1), Ok(vec![stun(976)]));
        assert!(splitter.buffer.len() <= 1000);
        assert_eq!(split(&mut splitter, &stun(980)[..4], 4), Err(FramingError::TooLong));
        assert_eq!(splitter.next_message(), Err(FramingError::TooLong), "for ever");
        let mut splitter = Splitter::new(LONGEST_MESSAGE);
        assert_eq!(split(&mut splitter, b"\x40\x00\xff\xfc", 4), Ok(vec![]));
        assert!(splitter.buffer.len() <= READ, "not what was announced");
        splitter.set_limit(65_536);
        assert_eq!(splitter.next_message(), Ok(None));
        splitter.set_limit(65_535);
        assert_eq!(splitter.next_message(), Err(FramingError::TooLong));
    }

    #[test]
    fn many_messages_are_taken_at_once() {
        let messages = [stun(8), b"\x40\x01\x00\x03abc\0".to_vec(), vec![0x40, 1, 0, 0]];
        let mut splitter = Splitter::new(LONGEST_MESSAGE);
        splitter.reserve(1000);
        let stream = messages.concat();
        for round in 0..1000 {
            let cut = round % stream.len();
            let mut taken: Vec<Vec<u8>> = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                let space = splitter.space();
                assert!(space.len() >= 250, "a read is worth while");
                space[..part.len()].copy_from_slice(part);
                splitter.filled(part.len());
                taken.extend(splitter.whole_messages().unwrap().map(|message| message.to_vec()));
            }
            assert_eq!(taken, messages);
        }
        assert_eq!(splitter.buffer.len(), 1000);
        let space = splitter.space();
        space[..8].copy_from_slice(b"\x40\x01\x00\x00\xff\xff\xff\xff");
        splitter.filled(8);
        assert_eq!(splitter.whole_messages().unwrap().count(), 1, "what was right");
        assert_eq!(splitter.whole_messages().err(), Some(FramingError::NotTurn));
    }

    #[test]
    fn nonsense_is_noticed_as_early_as_it_can_be() {
        for (bytes, expected) in [
            (&b"\x80"[..], FramingError::NotTurn),
            (b"\xff", FramingError::NotTurn),
            (b"\x16\x03\x01\x02", FramingError::WrongLength), // a TLS ClientHello
            (b"\x00\x01\x00\x00\x21\x12\xa4\x43", FramingError::NotTurn),
            (b"\x00\x01\x00\x01", FramingError::WrongLength),
            (b"GET ", FramingError::TooLong), // HTTP
        ] {
            let all_but_one = &bytes[..bytes.len() - 1];
            assert_eq!(split(&mut Splitter::new(1000), all_but_one, 1), Ok(vec![]), "{bytes:02x?}");
            assert_eq!(split(&mut Splitter::new(1000), bytes, 1), Err(expected), "{bytes:02x?}");
        }
    }
}
