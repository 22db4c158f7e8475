//! Reset tokens: how a gateway that lost its memory ends a client's wait.
//!
//! A token is a truncated HMAC-SHA256 under a secret that survives restarts, over the receiver
//! index that the gateway chose for a session. That index is the only thing in a data datagram
//! that names the session, so a restarted gateway can make the token again from the datagram
//! alone. The client got it inside the tunnel while the session lived.
//!
//! ```text
//! +------+------+------+------+-----------------------+-----------------
//! | 0x08 |   0  |   0  |   0  | receiver index (4)    | token (16)
//! +------+------+------+------+-----------------------+-----------------
//! ```
//!
//! 24 bytes: less than the shortest data datagram (32), so it amplifies nothing. It is no STUN
//! (the length field would not fit), no WireGuard (types end at 4), no ChannelData (0x40 and up).
//!
//! A client accepts only the token of the session it sends with. The token of an older session
//! proves nothing: a gateway discloses it to anyone who sends data for a session that has ended.

use std::time::{Duration, Instant};

use aws_lc_rs::{constant_time, hmac};

/// Bytes of a token.
pub(crate) const TOKEN: usize = 16;

/// Bytes of a reset datagram.
pub(crate) const RESET: usize = 8 + TOKEN;

/// The first bytes of a reset datagram.
const TYPE: [u8; 4] = [0x08, 0, 0, 0];

/// Keeps tokens of this purpose apart from any other use of the secret.
const LABEL: &[u8] = b"adit reset v1";

/// Resets sent per second, and how many may be saved up.
const RATE: u32 = 200;

/// A token.
pub(crate) type Token = [u8; TOKEN];

/// Makes tokens from the gateway's secret, and says how many may be sent.
#[derive(Debug)]
pub(crate) struct ResetIssuer {
    key: hmac::Key,
    allowance: Duration,
    filled: Instant,
}

impl ResetIssuer {
    pub(crate) fn new(now: Instant, secret: &[u8; 32]) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            allowance: Duration::from_secs(1),
            filled: now,
        }
    }

    /// The token of the session that has this receiver index with us.
    pub(crate) fn token(&self, receiver_index: u32) -> Token {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(LABEL);
        context.update(&receiver_index.to_le_bytes());
        let tag = context.sign();
        let mut token = [0; TOKEN];
        token.copy_from_slice(&tag.as_ref()[..TOKEN]);
        token
    }

    /// The datagram that ends a session, unless too many were sent lately.
    pub(crate) fn reset(&mut self, now: Instant, receiver_index: u32) -> Option<Vec<u8>> {
        let gained = now.saturating_duration_since(self.filled);
        self.filled = now;
        self.allowance = (self.allowance + gained).min(Duration::from_secs(1));
        self.allowance = self.allowance.checked_sub(Duration::from_secs(1) / RATE)?;
        let mut datagram = Vec::with_capacity(RESET);
        datagram.extend_from_slice(&TYPE);
        datagram.extend_from_slice(&receiver_index.to_le_bytes());
        datagram.extend_from_slice(&self.token(receiver_index));
        Some(datagram)
    }
}

/// A reset datagram, not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reset {
    /// The gateway's index of the session.
    pub(crate) receiver_index: u32,
    token: Token,
}

impl Reset {
    /// Reads a datagram; `None` if it is not shaped like a reset.
    pub(crate) fn parse(datagram: &[u8]) -> Option<Self> {
        let datagram: &[u8; RESET] = datagram.try_into().ok()?;
        let (head, token) = datagram.split_first_chunk::<8>()?;
        let (kind, index) = head.split_first_chunk::<4>()?;
        if *kind != TYPE {
            return None;
        }
        let receiver_index = u32::from_le_bytes(index.try_into().ok()?);
        Some(Self { receiver_index, token: token.try_into().ok()? })
    }

    /// Whether it carries this token; takes the same time whatever differs.
    pub(crate) fn carries(&self, token: &Token) -> bool {
        constant_time::verify_slices_are_equal(&self.token, token).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_gateway_makes_the_same_token() {
        let now = Instant::now();
        let ticket = ResetIssuer::new(now, &[7; 32]).token(0x0102_0304);
        let mut restarted = ResetIssuer::new(now, &[7; 32]);
        let reset = Reset::parse(&restarted.reset(now, 0x0102_0304).unwrap()).unwrap();
        assert_eq!(reset.receiver_index, 0x0102_0304);
        assert!(reset.carries(&ticket));
        assert!(!reset.carries(&ResetIssuer::new(now, &[8; 32]).token(0x0102_0304)));
        assert!(!reset.carries(&restarted.token(0x0102_0305)));
    }

    #[test]
    fn resets_are_limited_and_small() {
        let now = Instant::now();
        let mut issuer = ResetIssuer::new(now, &[7; 32]);
        let sent = (0..1000).filter(|_| issuer.reset(now, 1).is_some()).count();
        assert_eq!(sent, RATE as usize);
        let later = now + Duration::from_millis(100);
        assert_eq!((0..1000).filter(|_| issuer.reset(later, 1).is_some()).count(), RATE as usize / 10);
        const { assert!(RESET < adit_wireguard::OVERHEAD) };
    }

    #[test]
    fn it_is_mistaken_for_nothing_else() {
        let mut issuer = ResetIssuer::new(Instant::now(), &[7; 32]);
        let magic = u32::from_le_bytes([0x21, 0x12, 0xa4, 0x42]);
        let datagram = issuer.reset(Instant::now(), magic).unwrap();
        assert!(!adit_wireguard::is_wireguard(&datagram));
        assert!(is::stun::StunMessage::parse(&datagram).is_err());
        assert!(!adit_turn::channel_data::looks_like(&datagram));
        for length in 0..datagram.len() {
            assert_eq!(Reset::parse(&datagram[..length]), None);
        }
    }
}
