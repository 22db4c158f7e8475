//! User codes (RFC 8628, section 6.1): eight consonants, so that no words appear, without case.

use crate::credential::{self, NoRandomness};

/// What codes are made of.
const ALPHABET: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// Letters of a code: 20^8, about 2^34, of which a guesser has a few tries in ten minutes.
const LENGTH: usize = 8;

/// A new code, without its hyphen.
pub(super) fn new() -> Result<String, NoRandomness> {
    // Letters come from bytes below the largest multiple of 20, so that all are as likely.
    let mut code = String::with_capacity(LENGTH);
    while code.len() < LENGTH {
        let random = credential::random_bytes()?;
        let letters = random.iter().filter(|byte| **byte < 240).map(|byte| ALPHABET[usize::from(byte % 20)]);
        code.extend(letters.map(char::from).take(LENGTH - code.len()));
    }
    Ok(code)
}

/// As it is shown: `BCDF-GHJK`.
pub(super) fn shown(code: &str) -> String {
    match code.split_at_checked(LENGTH / 2) {
        Some((first, second)) => format!("{first}-{second}"),
        None => code.to_owned(),
    }
}

/// A code as somebody has typed it; `None` when it cannot be one.
pub(super) fn typed(text: &str) -> Option<String> {
    if text.len() > 64 {
        return None;
    }
    let code: String =
        text.chars().filter(|c| !matches!(c, '-' | ' ')).map(|c| c.to_ascii_uppercase()).collect();
    let is_code = code.len() == LENGTH && code.bytes().all(|byte| ALPHABET.contains(&byte));
    is_code.then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed() {
        let code = new().unwrap();
        assert_eq!(code.len(), LENGTH);
        assert_ne!(code, new().unwrap());
        let shown = shown(&code);
        for text in [&code, &shown, &shown.to_lowercase(), &format!(" {} ", shown.replace('-', " "))] {
            assert_eq!(typed(text).as_ref(), Some(&code));
        }
        for wrong in ["", "BCDF", "BCDF-GHJKL", "AAAA-AAAA", "BCDF_GHJK", "ÄCDFGHJK", &"B".repeat(100)] {
            assert_eq!(typed(wrong), None, "{wrong}");
        }
    }
}
