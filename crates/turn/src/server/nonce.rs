//! Nonces without memory: the time of issue and a MAC over it and the client's address.
//!
//! ```text
//! obMatJos2 gAAA base64(seconds since start, 4 bytes; SipHash-2-4, 8 bytes)
//! ```
//!
//! The first 13 characters are the nonce cookie that RFC 8489 (section 9.2) says must be there, with the
//! feature "password algorithms". No two clients get the same nonce (section 9.2.4). A nonce holds for an hour. The key changes every hour and the one before it stays
//! good, so no nonce dies early.

use super::{Client, Transport};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use siphasher::sip::SipHasher24;
use std::hash::Hasher as _;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

pub(super) const COOKIE: &[u8] = b"obMatJos2gAAA";
const LIFETIME: Duration = Duration::from_secs(3600);
/// Bytes before base64.
const RAW: usize = 12;
/// Bytes of a whole nonce.
pub(super) const NONCE: usize = COOKIE.len() + RAW / 3 * 4;

/// Makes and checks nonces.
pub(super) struct Nonces {
    start: Instant,
    /// Key of the current hour and of the one before.
    keys: [(u64, u64); 2],
    hour: u64,
}

impl Nonces {
    pub(super) fn new(now: Instant, secret: (u64, u64)) -> Self {
        Self { start: now, keys: [secret, secret], hour: 0 }
    }

    /// A nonce for this client; `next_key` is asked for when the hour is over.
    pub(super) fn issue(
        &mut self,
        now: Instant,
        client: Client,
        next_key: impl FnOnce() -> (u64, u64),
    ) -> [u8; NONCE] {
        let seconds = self.seconds(now);
        self.rotate(seconds, next_key);
        let mut raw = [0; RAW];
        raw[..4].copy_from_slice(&seconds.to_be_bytes());
        raw[4..].copy_from_slice(&mac(self.keys[0], seconds, client));
        let mut nonce = [0; NONCE];
        nonce[..COOKIE.len()].copy_from_slice(COOKIE);
        // The length is fixed, so encoding cannot fail; a nonce of zeros would only be refused.
        let _ = STANDARD_NO_PAD.encode_slice(raw, &mut nonce[COOKIE.len()..]);
        nonce
    }

    /// True if we issued this nonce to this client within the last hour.
    pub(super) fn is_valid(&self, now: Instant, client: Client, nonce: &[u8]) -> bool {
        let Some(encoded) = nonce.strip_prefix(COOKIE) else {
            return false;
        };
        let mut raw = [0; RAW];
        if encoded.len() != RAW / 3 * 4 || STANDARD_NO_PAD.decode_slice(encoded, &mut raw) != Ok(RAW) {
            return false;
        }
        let seconds = u32::from_be_bytes([raw[0], raw[1], raw[2], raw[3]]);
        let age = self.seconds(now).checked_sub(seconds);
        if age.is_none_or(|age| u64::from(age) > LIFETIME.as_secs()) {
            return false;
        }
        let matches = |&key: &(u64, u64)| mac(key, seconds, client).ct_eq(&raw[4..]).into();
        self.keys.iter().any(matches)
    }

    fn seconds(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.start).as_secs();
        u32::try_from(elapsed).unwrap_or(u32::MAX)
    }

    fn rotate(&mut self, seconds: u32, next_key: impl FnOnce() -> (u64, u64)) {
        let hour = u64::from(seconds) / LIFETIME.as_secs();
        if hour > self.hour {
            self.hour = hour;
            self.keys = [next_key(), self.keys[0]];
        }
    }
}

impl std::fmt::Debug for Nonces {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Nonces(..)")
    }
}

fn mac(key: (u64, u64), seconds: u32, client: Client) -> [u8; 8] {
    let mut hasher = SipHasher24::new_with_keys(key.0, key.1);
    hasher.write(&seconds.to_be_bytes());
    // The same for every connection of an address: a nonce outlives the one it was given on.
    hasher.write_u8(u8::from(client.transport != Transport::Udp));
    hasher.write(&client.address.port().to_be_bytes());
    match client.address.ip() {
        IpAddr::V4(ip) => hasher.write(&ip.octets()),
        IpAddr::V6(ip) => hasher.write(&ip.octets()),
    }
    hasher.finish().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::StreamId;

    const HOUR: Duration = Duration::from_secs(3600);

    fn address(text: &str) -> Client {
        Client::udp(text.parse().expect("address"))
    }

    #[test]
    fn a_nonce_is_good_for_its_client_and_an_hour() {
        let start = Instant::now();
        let mut nonces = Nonces::new(start, (1, 2));
        let (alice, bob) = (address("192.0.2.1:1000"), address("192.0.2.1:1001"));
        let nonce = nonces.issue(start, alice, || (3, 4));
        assert!(nonces.is_valid(start, alice, &nonce));
        assert!(nonces.is_valid(start + HOUR, alice, &nonce));
        assert!(!nonces.is_valid(start + HOUR + Duration::from_secs(1), alice, &nonce));
        assert!(!nonces.is_valid(start, bob, &nonce));
        let stream = Client::stream(StreamId(1), alice.address);
        assert!(!nonces.is_valid(start, stream, &nonce), "another transport");
        let mut changed = nonce;
        changed[NONCE - 1] ^= 1;
        assert!(!nonces.is_valid(start, alice, &changed));
        assert!(!nonces.is_valid(start, alice, b""));
    }

    #[test]
    fn a_nonce_outlives_one_change_of_keys_but_not_two() {
        let start = Instant::now();
        let mut nonces = Nonces::new(start, (1, 2));
        let client = address("[2001:db8::1]:9");
        let late = start + HOUR - Duration::from_secs(1);
        let nonce = nonces.issue(late, client, || (3, 4));
        let next = nonces.issue(start + HOUR, client, || (3, 4));
        assert!(nonces.is_valid(start + HOUR, client, &nonce));
        assert!(nonces.is_valid(start + HOUR, client, &next));
        nonces.issue(start + HOUR * 2, client, || (5, 6));
        assert!(!nonces.is_valid(late + HOUR, client, &nonce), "first key is gone");
    }
}
