//! What waits to be written to a stream: whole messages, one behind the other, padded to four bytes.

/// Bytes of a train that may wait. The kernel holds some more; together less than a fifth of a second at 10 Mbit/s.
const DATA_LIMIT: usize = 128 * 1024;

/// Bytes that may wait if the control thread has something to say.
const LIMIT: usize = 2 * DATA_LIMIT;

/// Messages are padded to this many bytes (RFC 8656, section 12.5).
const ALIGNMENT: usize = 4;

/// The bounded queue of one stream.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    /// What of `bytes` was written.
    written: usize,
    /// Whether epoll tells when the stream can be written to.
    pub(super) is_watched: bool,
}

impl Outbox {
    /// Queues messages of `segment` bytes, the last of which may be shorter, as far as there is room; returns how many
    /// were dropped.
    pub(super) fn push(&mut self, contents: &[u8], segment: usize) -> usize {
        let segment = segment.max(1);
        let room = DATA_LIMIT.saturating_sub(self.waiting().len());
        let fitting = room / segment.next_multiple_of(ALIGNMENT);
        let contents_fitting = &contents[..contents.len().min(fitting * segment)];
        if segment.is_multiple_of(ALIGNMENT) {
            self.bytes.extend_from_slice(contents_fitting);
            self.pad();
        } else {
            for message in contents_fitting.chunks(segment) {
                self.bytes.extend_from_slice(message);
                self.pad();
            }
        }
        contents.len().div_ceil(segment) - contents_fitting.len().div_ceil(segment)
    }

    /// Queues one message that must not be lost; false if so much waits that nothing will ever leave.
    pub(super) fn push_important(&mut self, message: &[u8]) -> bool {
        let fits = self.waiting().len() + message.len() <= LIMIT;
        if fits {
            self.bytes.extend_from_slice(message);
            self.pad();
        }
        fits
    }

    fn pad(&mut self) {
        // The queue begins at a border, for whole messages go in and are counted from the same place.
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }

    /// What is to be written next.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Notes that so many bytes were written.
    pub(super) fn advance(&mut self, count: usize) {
        self.written += count;
        if self.written >= self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written >= DATA_LIMIT {
            // Whole messages were dropped from the front, so the border stays where it was.
            let keep = self.written % ALIGNMENT;
            self.bytes.drain(..self.written - keep);
            self.written = keep;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_padded_each() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(b"abcdefgh", 4), 0);
        assert_eq!(outbox.push(b"12345123", 5), 0);
        assert!(outbox.push_important(b"x"));
        assert_eq!(outbox.push(b"last", 9), 0);
        assert_eq!(outbox.waiting(), b"abcdefgh12345\0\0\x00123\0x\0\0\0last");
    }

    #[test]
    fn what_does_not_fit_is_dropped_by_whole_messages() {
        let mut outbox = Outbox::default();
        let train = vec![1; 45 * 1400];
        let dropped: usize = (0..4).map(|_| outbox.push(&train, 1400)).sum();
        assert_eq!(outbox.waiting().len(), (DATA_LIMIT / 1400) * 1400);
        assert_eq!(dropped, 4 * 45 - DATA_LIMIT / 1400);
        assert!(outbox.push_important(&[2; 1000]), "there is always room for what matters");
        assert_eq!(outbox.push(&train, 1400), 45);
        let important = (0..1000).take_while(|_| outbox.push_important(&[2; 1000])).count();
        assert!((100..200).contains(&important), "{important}");
        assert!(outbox.waiting().len() <= LIMIT);
    }

    #[test]
    fn memory_is_bounded_while_the_queue_is_never_empty() {
        let mut outbox = Outbox::default();
        let (mut next, mut expected) = (0_u32, 0_u32);
        for _ in 0..100_000 {
            // Odd sizes, and written in odd pieces.
            let message = [&next.to_be_bytes()[..], &[0; 97]].concat();
            assert_eq!(outbox.push(&message, message.len()), 0);
            next += 1;
            while outbox.waiting().len() > 5 * 104 {
                assert_eq!(outbox.waiting()[..4], expected.to_be_bytes());
                for piece in [1, 50, 53] {
                    outbox.advance(piece);
                }
                expected += 1;
            }
            assert!(outbox.bytes.len() <= LIMIT);
        }
    }
}
