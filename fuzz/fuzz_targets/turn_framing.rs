//! A byte stream is cut the same way in whatever pieces it arrives, and never takes more memory than it
//! may.

#![no_main]

use adit_turn::framing::{FramingError, LONGEST_MESSAGE, Splitter};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    limit: u16,
    /// What one read from the connection brings.
    pieces: Vec<u16>,
    stream: Vec<Part>,
}

#[derive(Arbitrary, Debug)]
enum Part {
    Stun { kind: u16, words: u8, rest: [u8; 12] },
    ChannelData { number: u16, length: u16 },
    Raw(Vec<u8>),
}

fuzz_target!(|input: Input| {
    let limit = usize::from(input.limit);
    let stream: Vec<u8> = input.stream.iter().take(20).flat_map(bytes).collect();
    let (expected, ending) = reference(&stream, limit.clamp(4, LONGEST_MESSAGE));
    let mut splitter = Splitter::new(limit);
    let mut found = Vec::new();
    let mut at = 0;
    let mut pieces = input.pieces.iter().cycle();
    let outcome = loop {
        match splitter.next_message() {
            Err(error) => break Some(error),
            Ok(Some(message)) => {
                found.push(message.to_vec());
                continue;
            }
            Ok(None) if at == stream.len() => break None,
            Ok(None) => {}
        }
        let space = splitter.space();
        assert!(!space.is_empty() && space.len() <= limit.clamp(4, LONGEST_MESSAGE).max(2048));
        let piece = usize::from(*pieces.next().unwrap_or(&7)).max(1);
        let count = piece.min(space.len()).min(stream.len() - at);
        space[..count].copy_from_slice(&stream[at..at + count]);
        splitter.filled(count);
        at += count;
    };
    assert_eq!(found, expected);
    // Of two things that are wrong, the one that arrives first is named.
    assert_eq!(outcome.is_some(), ending.is_some(), "{outcome:?} {ending:?}");
    if outcome.is_none() {
        assert_eq!(splitter.waiting(), stream.len() - found.iter().map(Vec::len).sum::<usize>());
    }
});

fn bytes(part: &Part) -> Vec<u8> {
    match part {
        Part::Stun { kind, words, rest } => {
            let length = u16::from(*words) * 4;
            let mut bytes = (kind & 0x3fff).to_be_bytes().to_vec();
            bytes.extend(length.to_be_bytes());
            bytes.extend([0x21, 0x12, 0xa4, 0x42]);
            bytes.extend(rest);
            bytes.resize(20 + usize::from(length), 0xab);
            bytes
        }
        Part::ChannelData { number, length } => {
            let length = length % 3000;
            let mut bytes = (0x4000 | number & 0x3fff).to_be_bytes().to_vec();
            bytes.extend(length.to_be_bytes());
            bytes.resize(4 + usize::from(length).next_multiple_of(4), 0xcd);
            bytes
        }
        Part::Raw(bytes) => bytes.clone(),
    }
}

/// The whole stream at once, straight from RFC 8656, section 12.5.
fn reference(stream: &[u8], limit: usize) -> (Vec<Vec<u8>>, Option<FramingError>) {
    let mut messages = Vec::new();
    let mut rest = stream;
    loop {
        let Some(first) = rest.first() else { return (messages, None) };
        let is_stun = first & 0xc0 == 0;
        if first & 0x80 != 0 {
            return (messages, Some(FramingError::NotTurn));
        }
        let cookie = [0x21, 0x12, 0xa4, 0x42];
        let there = rest.get(4..rest.len().min(8)).unwrap_or_default();
        if is_stun && there != &cookie[..there.len()] {
            return (messages, Some(FramingError::NotTurn));
        }
        if rest.len() < 4 {
            return (messages, None);
        }
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if is_stun && length % 4 != 0 {
            return (messages, Some(FramingError::WrongLength));
        }
        let whole = if is_stun { 20 + length } else { 4 + length.div_ceil(4) * 4 };
        if whole > limit {
            return (messages, Some(FramingError::TooLong));
        }
        if whole > rest.len() {
            return (messages, None);
        }
        messages.push(rest[..whole].to_vec());
        rest = &rest[whole..];
    }
}
