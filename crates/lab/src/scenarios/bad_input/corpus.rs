//! Datagrams that no well-meaning peer sends.

/// A sequence of bytes that is the same in every run.
#[derive(Debug)]
pub(super) struct Bytes(u64);

impl Bytes {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Xorshift; nothing here needs to be unpredictable.
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }

    pub(super) fn take(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

/// Largest payload of UDP over IPv4.
pub(super) const LARGEST: usize = 65_507;

/// Every datagram once.
pub(super) fn datagrams(bytes: &mut Bytes) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new()];
    for first in 0..=u8::MAX {
        for length in [1, 20, 33, 148] {
            all.push(beginning_with(&[first], length, bytes));
        }
    }
    for shape in shapes() {
        for length in 0..shape.length {
            // Every length of the short ones, a sample of the long ones.
            if shape.length <= 64 || length % 7 == 0 || length + 1 == shape.length {
                all.push(beginning_with(&shape.head, length, bytes));
            }
        }
        all.extend((0..8).map(|_| beginning_with(&shape.head, shape.length, bytes)));
        all.push(beginning_with(&shape.head, shape.length + 1, bytes));
        all.push(beginning_with(&shape.head, 1_400, bytes));
    }
    all.extend((0..200).map(|_| stun_with_random_attributes(bytes)));
    for _ in 0..200 {
        let length = bytes.below(1_472);
        all.push(bytes.take(length));
    }
    for length in [1_473, 2_048, 4_096, 9_000, 16_384, 32_768, LARGEST - 1, LARGEST] {
        for first in [0x00, 0x01, 0x04, 0x40, 0xff] {
            all.push(beginning_with(&[first], length, bytes));
        }
    }
    all
}

/// The first bytes of a message, and the length it should have.
struct Shape {
    head: Vec<u8>,
    length: usize,
}

fn shapes() -> Vec<Shape> {
    let shape = |head: &[u8], length| Shape { head: head.to_vec(), length };
    let mut shapes = vec![
        // WireGuard: initiation, response, cookie reply, data.
        shape(&[1, 0, 0, 0], 148),
        shape(&[2, 0, 0, 0], 92),
        shape(&[3, 0, 0, 0], 64),
        shape(&[4, 0, 0, 0], 48),
        // The reset of a gateway that has forgotten a session.
        shape(&[8, 0, 0, 0], 24),
        // ChannelData: right length, no such channel, a length beyond the end, the last channel number.
        shape(&[0x40, 0x00, 0, 16], 20),
        shape(&[0x40, 0x01, 0, 16], 20),
        shape(&[0x40, 0x00, 0xff, 0xff], 20),
        shape(&[0x4f, 0xff, 0, 16], 20),
    ];
    // STUN: Binding, Allocate, Refresh, CreatePermission, ChannelBind, Send and Data indications, an answer.
    for method in [0x0001, 0x0003, 0x0004, 0x0008, 0x0009, 0x0016, 0x0017, 0x0101_u16] {
        for attributes in [0_u8, 8, 200] {
            let [high, low] = method.to_be_bytes();
            let head = [high, low, 0, attributes, 0x21, 0x12, 0xa4, 0x42];
            shapes.push(shape(&head, 20 + usize::from(attributes % 64)));
        }
    }
    shapes
}

fn beginning_with(head: &[u8], length: usize, bytes: &mut Bytes) -> Vec<u8> {
    let mut datagram = head.to_vec();
    datagram.truncate(length);
    let missing = length - datagram.len();
    datagram.extend(bytes.take(missing));
    datagram
}

/// A header that fits, and attributes whose types and lengths mostly do not.
fn stun_with_random_attributes(bytes: &mut Bytes) -> Vec<u8> {
    const KNOWN: [u16; 10] = [0x0001, 0x0006, 0x0008, 0x000c, 0x000d, 0x0012, 0x0013, 0x0019, 0x0020, 0x8028];
    let mut attributes = Vec::new();
    for _ in 0..bytes.below(6) {
        let kind =
            if bytes.below(4) == 0 { bytes.below(65_536) as u16 } else { KNOWN[bytes.below(KNOWN.len())] };
        let value = bytes.below(40);
        let claimed = if bytes.below(2) == 0 { value } else { bytes.below(65_536) };
        attributes.extend(kind.to_be_bytes());
        attributes.extend((claimed as u16).to_be_bytes());
        attributes.extend(bytes.take(value.next_multiple_of(4)));
    }
    let method = [1_u8, 3, 4, 8, 9, 0x16][bytes.below(6)];
    let mut message = vec![bytes.below(2) as u8, method];
    message.extend((attributes.len() as u16).to_be_bytes());
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend(bytes.take(12));
    message.extend(attributes);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_and_both_ends_of_the_lengths_are_there() {
        let all = datagrams(&mut Bytes::new(7));
        for first in 0..=u8::MAX {
            assert!(all.iter().filter(|datagram| datagram.first() == Some(&first)).count() >= 4, "{first}");
        }
        assert!(all.iter().any(Vec::is_empty) && all.iter().any(|datagram| datagram.len() == LARGEST));
        assert!(all.iter().all(|datagram| datagram.len() <= LARGEST));
        assert!((1_500..3_500).contains(&all.len()), "{}", all.len());
        assert_eq!(all, datagrams(&mut Bytes::new(7)), "runs can be compared");
    }
}
