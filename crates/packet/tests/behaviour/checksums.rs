//! The fast sum gives what the definition gives.

use adit_packet::checksum::Sum;
use proptest::prelude::*;

/// RFC 1071, 1, word by word.
fn by_definition(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for word in bytes.chunks(2) {
        sum += u32::from(word[0]) << 8 | word.get(1).copied().map_or(0, u32::from);
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[test]
fn every_length_at_every_alignment() {
    let bytes: Vec<u8> = (0..300_u32).map(|at| (at * 167 + 89) as u8).collect();
    for start in 0..16 {
        for length in 0..200 {
            let range = &bytes[start..start + length];
            assert_eq!(Sum::new().bytes(range).folded(), by_definition(range), "{start}, {length}");
        }
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    for length in [65_534, 65_535, 65_536] {
        let ones = vec![0xff; length];
        let mut sum = Sum::new();
        for _ in 0..16 {
            sum = sum.bytes(&ones);
        }
        let once = by_definition(&ones);
        let expected = by_definition(&once.to_be_bytes().repeat(16));
        assert_eq!(sum.folded(), expected, "{length}");
    }
}

proptest! {
    #[test]
    fn any_content_up_to_64_kibibytes(
        seed in prop::collection::vec(any::<u8>(), 1..500), length in 0..65_536usize, start in 0..8usize
    ) {
        let bytes: Vec<u8> = seed.iter().copied().cycle().take(start + length).collect();
        prop_assert_eq!(Sum::new().bytes(&bytes[start..]).folded(), by_definition(&bytes[start..]));
    }

    #[test]
    fn words_and_parts_add_up_to_the_whole(words in prop::collection::vec(any::<u32>(), 0..40), at in any::<prop::sample::Index>()) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let (left, right) = bytes.split_at(at.index(words.len() + 1) * 4);
        let whole = by_definition(&bytes);
        prop_assert_eq!(Sum::new().bytes(left).and(Sum::new().bytes(right)).folded(), whole);
        prop_assert_eq!(words.iter().fold(Sum::new(), |sum, word| sum.double_word(*word)).folded(), whole);
        let halves = words.iter().fold(Sum::new(), |sum, word| sum.word((word >> 16) as u16).word(*word as u16));
        prop_assert_eq!(halves.folded(), whole);
    }
}
