//! MAC1, MAC2 and cookies (WireGuard paper, section 5.4.7).
//!
//! MAC1 proves that the sender knows our public key: silence for everybody else. Under load
//! MAC2 proves that the sender receives at its source address: it is made with a *cookie*,
//! a MAC over that address under a secret that we change every two minutes, and which we
//! send encrypted to that address. The receiver of handshakes keeps no state per source.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{Key, Tag, XChaCha20Poly1305, XNonce};
use rand::RngCore;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::hash::{hash, mac};
use crate::message::{COOKIE_REPLY_LENGTH, COOKIE_REPLY_TYPE, cookie_reply, field};
use crate::{DropReason, PublicKey};

/// Bytes of a MAC and of a cookie.
const MAC: usize = 16;
/// How long a cookie secret, and a received cookie, is used.
const COOKIE_LIFETIME: Duration = Duration::from_secs(120);
/// A received cookie is given up a little early, for the time it spends on the way.
const COOKIE_MARGIN: Duration = Duration::from_secs(5);

type Cookie = [u8; MAC];

/// Where the two MACs of a handshake message of `length` bytes begin.
const fn offsets(length: usize) -> (usize, usize) {
    (length - 2 * MAC, length - MAC)
}

/// The keys that belong to the public key of whoever *receives* a handshake message.
#[derive(Debug)]
struct ReceiverKeys {
    mac1: [u8; 32],
    cookie: [u8; 32],
}

impl ReceiverKeys {
    fn new(receiver: &PublicKey) -> Self {
        Self {
            mac1: hash(&[b"mac1----", receiver.as_bytes()]),
            cookie: hash(&[b"cookie--", receiver.as_bytes()]),
        }
    }
}

/// Checks MACs of incoming handshake messages and gives out cookies.
pub(crate) struct CookieIssuer {
    keys: ReceiverKeys,
    secret: Zeroizing<[u8; 32]>,
    secret_since: Instant,
}

impl CookieIssuer {
    pub(crate) fn new(now: Instant, local: &PublicKey, random: &mut impl RngCore) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        random.fill_bytes(secret.as_mut_slice());
        Self { keys: ReceiverKeys::new(local), secret, secret_since: now }
    }

    /// Whether the sender knows our public key.
    pub(crate) fn mac1_is_valid(&self, message: &[u8]) -> bool {
        let (mac1, mac2) = offsets(message.len());
        mac(&self.keys.mac1, &[&message[..mac1]]).ct_eq(&message[mac1..mac2]).into()
    }

    /// Whether the sender was given a cookie at this address. Never true right after rotation.
    pub(crate) fn mac2_is_valid(&self, now: Instant, source: SocketAddr, message: &[u8]) -> bool {
        if now.saturating_duration_since(self.secret_since) >= COOKIE_LIFETIME {
            return false;
        }
        let (_, mac2) = offsets(message.len());
        let cookie = self.cookie(source);
        mac(&cookie, &[&message[..mac2]]).ct_eq(&message[mac2..]).into()
    }

    /// A cookie reply to a handshake message from `source`.
    pub(crate) fn reply(
        &mut self,
        now: Instant,
        source: SocketAddr,
        message: &[u8],
        sender: u32,
        random: &mut impl RngCore,
    ) -> [u8; COOKIE_REPLY_LENGTH] {
        if now.saturating_duration_since(self.secret_since) >= COOKIE_LIFETIME {
            random.fill_bytes(self.secret.as_mut_slice());
            self.secret_since = now;
        }
        let (mac1, mac2) = offsets(message.len());
        let mut reply = [0; COOKIE_REPLY_LENGTH];
        reply[0] = COOKIE_REPLY_TYPE;
        reply[cookie_reply::RECEIVER..][..4].copy_from_slice(&sender.to_le_bytes());
        random.fill_bytes(&mut reply[cookie_reply::NONCE]);
        let nonce: [u8; 24] = field(&reply, cookie_reply::NONCE);
        let mut cookie = self.cookie(source);
        let tag = cipher(&self.keys.cookie)
            .encrypt_in_place_detached(XNonce::from_slice(&nonce), &message[mac1..mac2], &mut cookie)
            .expect("a cookie is short enough for the cipher");
        let (body, end) = reply[cookie_reply::COOKIE].split_at_mut(MAC);
        body.copy_from_slice(&cookie);
        end.copy_from_slice(&tag);
        reply
    }

    fn cookie(&self, source: SocketAddr) -> Cookie {
        let port = source.port().to_be_bytes();
        match source.ip().to_canonical() {
            IpAddr::V4(address) => mac(self.secret.as_slice(), &[&address.octets(), &port]),
            IpAddr::V6(address) => mac(self.secret.as_slice(), &[&address.octets(), &port]),
        }
    }
}

/// Writes MACs of outgoing handshake messages to one peer and keeps the cookie it gave us.
pub(crate) struct CookieJar {
    keys: ReceiverKeys,
    cookie: Option<(Cookie, Instant)>,
    /// MAC1 of the last message without answer; a cookie reply is bound to it.
    last_mac1: Option<Cookie>,
}

impl CookieJar {
    pub(crate) fn new(peer: &PublicKey) -> Self {
        Self { keys: ReceiverKeys::new(peer), cookie: None, last_mac1: None }
    }

    /// Fills in both MACs; MAC2 stays zero without a fresh cookie.
    pub(crate) fn sign(&mut self, now: Instant, message: &mut [u8]) {
        let (mac1_at, mac2_at) = offsets(message.len());
        let mac1 = mac(&self.keys.mac1, &[&message[..mac1_at]]);
        message[mac1_at..mac2_at].copy_from_slice(&mac1);
        self.last_mac1 = Some(mac1);
        if let Some((cookie, since)) = self.cookie
            && now.saturating_duration_since(since) < COOKIE_LIFETIME.saturating_sub(COOKIE_MARGIN)
        {
            let mac2 = mac(&cookie, &[&message[..mac2_at]]);
            message[mac2_at..].copy_from_slice(&mac2);
        }
    }

    /// Keeps the cookie of a reply to the last signed message; each message takes one.
    pub(crate) fn accept(
        &mut self,
        now: Instant,
        reply: &[u8; COOKIE_REPLY_LENGTH],
    ) -> Result<(), DropReason> {
        let mac1 = self.last_mac1.ok_or(DropReason::InvalidCookie)?;
        let nonce: [u8; 24] = field(reply, cookie_reply::NONCE);
        let (body, tag) = reply[cookie_reply::COOKIE].split_at(MAC);
        let mut cookie: Cookie = field(body, 0..MAC);
        cipher(&self.keys.cookie)
            .decrypt_in_place_detached(XNonce::from_slice(&nonce), &mac1, &mut cookie, Tag::from_slice(tag))
            .map_err(|_| DropReason::InvalidCookie)?;
        self.cookie = Some((cookie, now));
        self.last_mac1 = None;
        Ok(())
    }
}

fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(Key::from_slice(key))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    const SOURCE: &str = "192.0.2.7:51820";

    struct World {
        now: Instant,
        random: ChaCha20Rng,
        issuer: CookieIssuer,
        jar: CookieJar,
    }

    fn world() -> World {
        let (now, key) = (Instant::now(), PublicKey([4; 32]));
        let mut random = ChaCha20Rng::from_seed([1; 32]);
        let issuer = CookieIssuer::new(now, &key, &mut random);
        World { now, random, issuer, jar: CookieJar::new(&key) }
    }

    #[test]
    fn a_cookie_makes_mac2_valid_for_one_address_and_two_minutes() {
        let mut world = world();
        let source = SOURCE.parse().unwrap();
        let mut message = [7; 148];
        message[116..].fill(0);
        world.jar.sign(world.now, &mut message);
        assert!(world.issuer.mac1_is_valid(&message));
        assert!(!world.issuer.mac2_is_valid(world.now, source, &message));
        let reply = world.issuer.reply(world.now, source, &message, 5, &mut world.random);
        world.jar.accept(world.now, &reply).unwrap();
        world.jar.sign(world.now, &mut message);
        assert!(world.issuer.mac2_is_valid(world.now, source, &message));
        for other in ["192.0.2.7:51821", "192.0.2.8:51820", "[2001:db8::1]:51820"] {
            assert!(!world.issuer.mac2_is_valid(world.now, other.parse().unwrap(), &message), "{other}");
        }
        assert!(!world.issuer.mac2_is_valid(world.now + COOKIE_LIFETIME, source, &message));
    }

    #[test]
    fn forged_and_unasked_cookies_are_refused() {
        let mut world = world();
        let source = SOURCE.parse().unwrap();
        let mut message = [0; 92];
        world.jar.sign(world.now, &mut message);
        let reply = world.issuer.reply(world.now, source, &message, 5, &mut world.random);
        for position in cookie_reply::NONCE.start..COOKIE_REPLY_LENGTH {
            let mut forged = reply;
            forged[position] ^= 1;
            assert_eq!(world.jar.accept(world.now, &forged), Err(DropReason::InvalidCookie));
        }
        assert_eq!(world.jar.accept(world.now, &reply), Ok(()));
        assert_eq!(world.jar.accept(world.now, &reply), Err(DropReason::InvalidCookie), "only once");
    }

    #[test]
    fn every_byte_is_under_mac1() {
        let mut world = world();
        let mut message = [0; 148];
        world.jar.sign(world.now, &mut message);
        for position in 0..132 {
            let mut changed = message;
            changed[position] ^= 0x80;
            assert!(!world.issuer.mac1_is_valid(&changed), "byte {position}");
        }
    }
}
