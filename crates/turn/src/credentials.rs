//! Time-limited credentials that need no user database.
//!
//! The user name is `expiry:salt`, where `expiry` is a time in Unix seconds; the password is the
//! base64 form of HMAC-SHA1 over the user name under a secret that relay and portal hold. Any relay
//! that holds the secret can check a user name it has never seen. The salt names the user: it stays
//! the same when the portal renews credentials, so a renewed user keeps its allocation.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The password that belongs to `username` under `secret`.
pub fn password(secret: &[u8], username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    STANDARD.encode(hmac::sign(&key, username.as_bytes()))
}

/// The user name for `salt` until `expires_at` (Unix seconds).
pub fn username(expires_at: u64, salt: &str) -> String {
    format!("{expires_at}:{salt}")
}

/// A user name taken apart.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Username<'a> {
    /// When the credentials end, in Unix seconds.
    pub expires_at: u64,
    /// Whom they belong to; empty if the name is only a time.
    pub salt: &'a str,
}

impl<'a> Username<'a> {
    /// Splits `expiry:salt`, or `expiry` alone; `None` if the expiry is no decimal number.
    pub fn parse(username: &'a str) -> Option<Self> {
        let (expiry, salt) = username.split_once(':').unwrap_or((username, ""));
        if expiry.is_empty() || !expiry.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let expires_at = expiry.parse().ok()?;
        Some(Self { expires_at, salt })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_names_split_into_expiry_and_salt() {
        let name = username(1_800_000_000, "abc:d");
        let parsed = Username::parse(&name).expect("well formed");
        assert_eq!((parsed.expires_at, parsed.salt), (1_800_000_000, "abc:d"));
        assert_eq!(Username::parse("17").map(|name| name.salt), Some(""));
        for wrong in ["", ":", "+1:a", "x:1", "99999999999999999999:a"] {
            assert_eq!(Username::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn password_is_the_mac_of_the_user_name() {
        // echo -n 1800000000:salt | openssl dgst -sha1 -hmac secret -binary | base64
        assert_eq!(password(b"secret", "1800000000:salt"), EXPECTED);
    }

    const EXPECTED: &str = "DYh6f9GicM+5JU1RPfnKWtoWdUM=";
}
