//! Codes of authenticator apps: TOTP (RFC 6238) with SHA-1, 6 digits and steps of 30 seconds,
//! which is what every such app can do.

use aws_lc_rs::hmac;

/// The length of a step, in milliseconds.
const STEP_MS: i64 = 30_000;

/// Steps before and after the present one that are accepted too (RFC 6238, section 5.2).
const SLACK: i64 = 1;

/// An authenticator's secret: 160 bits, as RFC 4226 (section 4, R6) recommends.
#[derive(Clone)]
pub(crate) struct TotpSecret([u8; 20]);

impl TotpSecret {
    /// From random bytes.
    pub(crate) fn new(random: &[u8; 32]) -> Self {
        let mut secret = [0; 20];
        secret.copy_from_slice(&random[..20]);
        Self(secret)
    }

    /// From the text of [`Self::base32`].
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut secret = [0; 20];
        let (mut bits, mut held, mut place) = (0_u32, 0_u32, 0);
        for character in text.bytes() {
            let value = ALPHABET.iter().position(|known| *known == character)?;
            bits = (bits << 5) | u32::try_from(value).ok()?;
            held += 5;
            if held >= 8 {
                held -= 8;
                *secret.get_mut(place)? = u8::try_from((bits >> held) & 0xff).ok()?;
                place += 1;
            }
        }
        (place == secret.len()).then_some(Self(secret))
    }

    /// For typing it into an app: base 32 (RFC 4648), 32 characters.
    pub(crate) fn base32(&self) -> String {
        let bit = |place: usize| usize::from(self.0[place / 8] >> (7 - place % 8) & 1);
        (0..32)
            .map(|symbol| (0..5).fold(0, |value, place| value << 1 | bit(symbol * 5 + place)))
            .map(|value| char::from(ALPHABET[value]))
            .collect()
    }

    /// The step whose code this is, if it is a step of about now.
    pub(crate) fn step_of(&self, code: &str, now_ms: i64) -> Option<i64> {
        let code = code.trim();
        let now = now_ms.div_euclid(STEP_MS);
        // Every step is tried, whichever fits.
        (now - SLACK..=now + SLACK).fold(None, |found, step| {
            let is_it = subtle::ConstantTimeEq::ct_eq(self.code(step).as_bytes(), code.as_bytes());
            if bool::from(is_it) { Some(step) } else { found }
        })
    }

    /// RFC 4226, section 5.3, over the number of the step.
    fn code(&self, step: i64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.0);
        let tag = hmac::sign(&key, &step.to_be_bytes());
        let tag = tag.as_ref();
        let offset = usize::from(tag[19] & 0xf);
        let number =
            tag[offset..offset + 4].iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        format!("{:06}", (number & 0x7fff_ffff) % 1_000_000)
    }
}

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> TotpSecret {
        TotpSecret(*b"12345678901234567890")
    }

    /// RFC 6238, appendix B: the last six of the eight digits there.
    #[test]
    fn codes_are_those_of_the_rfc() {
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(secret().step_of(code, seconds * 1000), Some(seconds / 30), "{seconds}");
        }
    }

    #[test]
    fn one_step_of_drift_is_forgiven_and_not_two() {
        let at = |steps: i64| 1_111_111_109_000 + steps * STEP_MS;
        for (steps, is_accepted) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            assert_eq!(secret().step_of("081804", at(steps)).is_some(), is_accepted, "{steps}");
        }
        for wrong in ["", "81804", "0818040", "ä", "081805"] {
            assert_eq!(secret().step_of(wrong, at(0)), None, "{wrong}");
        }
    }

    #[test]
    fn the_secret_survives_being_written_and_read() {
        assert_eq!(secret().base32(), "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ");
        assert_eq!(TotpSecret::parse("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ").unwrap().0, secret().0);
        for wrong in ["", "GEZD", "gezdgnbvgy3tqojqgezdgnbvgy3tqojq", &"A".repeat(40)] {
            assert!(TotpSecret::parse(wrong).is_none(), "{wrong}");
        }
    }
}
