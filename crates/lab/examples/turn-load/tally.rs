//! What arrived of one stream: which numbers, how often, in which order, how late.

use std::time::Duration;

/// Load, stream, number and time of sending, eight bytes each.
pub(crate) const HEADER: usize = 32;

/// What every datagram says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// Tells one load's datagrams from what an earlier one left in some queue.
    pub(crate) load: u64,
    /// Flow and direction; see [`crate::load::Direction::stream`].
    pub(crate) stream: u64,
    /// Place within the stream, from 0.
    pub(crate) number: u64,
    /// When it was sent, since the start of the load.
    pub(crate) sent: Duration,
}

impl Label {
    /// Writes it to the front of a payload, which is at least [`HEADER`] bytes long.
    pub(crate) fn write(self, payload: &mut [u8]) {
        let sent = u64::try_from(self.sent.as_nanos()).unwrap_or(u64::MAX);
        let fields = [self.load, self.stream, self.number, sent];
        for (place, field) in payload.as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *place = field.to_be_bytes();
        }
    }

    /// Reads it; `None` when the payload is too short to have one.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let fields = payload.first_chunk::<HEADER>()?;
        let [load, stream, number, sent] = fields.as_chunks::<8>().0 else { return None };
        let field = |bytes: &[u8; 8]| u64::from_be_bytes(*bytes);
        Some(Self {
            load: field(load),
            stream: field(stream),
            number: field(number),
            sent: Duration::from_nanos(field(sent)),
        })
    }
}

/// What is known of a stream or, summed up, of many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Datagrams that arrived, each once.
    pub(crate) received: u64,
    /// Datagrams that arrived again.
    pub(crate) duplicates: u64,
    /// Datagrams that arrived after a later one.
    pub(crate) reordered: u64,
    /// Datagrams whose content or size is not that of one sent.
    pub(crate) corrupt: u64,
    /// Datagrams of another stream.
    pub(crate) misdelivered: u64,
    /// Datagrams of an earlier load.
    pub(crate) stale: u64,
    /// The latest number plus one.
    expected: u64,
    /// One bit for each number that arrived.
    seen: Vec<u64>,
}

/// What a stream's datagrams must look like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) load: u64,
    pub(crate) stream: u64,
    /// Bytes of payload.
    pub(crate) size: usize,
    /// Numbers are below this; a greater one was never sent.
    pub(crate) most: u64,
}

impl Tally {
    /// Takes note of a payload that arrived `now`; how long it took, unless it does not count.
    pub(crate) fn note(&mut self, payload: &[u8], expected: &Expected, now: Duration) -> Option<Duration> {
        let Some(label) = Label::read(payload) else {
            self.corrupt += 1;
            return None;
        };
        if label.load != expected.load {
            self.stale += 1;
        } else if label.stream != expected.stream {
            self.misdelivered += 1;
        } else if payload.len() != expected.size || label.number >= expected.most {
            self.corrupt += 1;
        } else if !self.mark(label.number) {
            self.duplicates += 1;
        } else {
            self.received += 1;
            if label.number < self.expected {
                self.reordered += 1;
            } else {
                self.expected = label.number + 1;
            }
            return Some(now.saturating_sub(label.sent));
        }
        None
    }

    /// Remembers a number; false when it was known.
    fn mark(&mut self, number: u64) -> bool {
        // Bounded by `Expected::most`.
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_new
    }

    /// Adds what another stream has; numbers of different streams have nothing to do with each other.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.received += other.received;
        self.duplicates += other.duplicates;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
        self.misdelivered += other.misdelivered;
        self.stale += other.stale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Expected = Expected { load: 7, stream: 3, size: 40, most: 10 };

    fn payload(load: u64, stream: u64, number: u64, sent: u64, size: usize) -> Vec<u8> {
        let mut payload = vec![0; size];
        Label { load, stream, number, sent: Duration::from_micros(sent) }.write(&mut payload);
        payload
    }

    #[test]
    fn losses_order_duplicates_and_strangers_are_told_apart() {
        let mut tally = Tally::default();
        let mut note = |payload: &[u8]| tally.note(payload, &EXPECTED, Duration::from_micros(100));
        for number in [0, 2, 1, 4] {
            assert_eq!(note(&payload(7, 3, number, 40, 40)), Some(Duration::from_micros(60)));
        }
        for strange in [
            payload(7, 3, 2, 40, 40),  // known
            payload(6, 3, 5, 40, 40),  // of an earlier load
            payload(7, 2, 5, 40, 40),  // of another stream
            payload(7, 3, 10, 40, 40), // never sent
            payload(7, 3, 5, 40, 41),  // too long
            vec![0; 31],
        ] {
            assert_eq!(note(&strange), None, "{strange:?}");
        }
        assert_eq!((tally.received, tally.duplicates, tally.reordered), (4, 1, 1));
        assert_eq!((tally.stale, tally.misdelivered, tally.corrupt), (1, 1, 3));
    }

    #[test]
    fn a_label_survives_the_way() {
        let label = Label { load: 1, stream: u64::MAX, number: 3, sent: Duration::from_nanos(4) };
        let mut payload = [0xff; 33];
        label.write(&mut payload);
        assert_eq!(Label::read(&payload), Some(label));
        assert_eq!(payload[32], 0xff);
    }

    #[test]
    fn sums_of_streams() {
        let (mut one, mut other) = (Tally::default(), Tally::default());
        let first = payload(7, 3, 0, 0, 40);
        for tally in [&mut one, &mut other] {
            assert!(tally.note(&first, &EXPECTED, Duration::from_micros(1)).is_some());
        }
        one.merge(&other);
        assert_eq!((one.received, one.duplicates), (2, 0));
    }
}
