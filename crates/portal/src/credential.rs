//! Secrets: tokens, pre-shared keys of connections, credentials of relays.
//!
//! A token reads `adit_<kind>_<id>_<secret>`: the first three parts let secret scanners and
//! people see what it is, the last is 32 random bytes. At rest there is only an HMAC of it
//! under a pepper that lives in a file, so neither a stolen database nor a stolen file of
//! secrets alone lets anyone in.

use std::fmt;

use adit_policy::{RelayId, TokenId};
use adit_protocol::{EncodedKey, IceCredentials, RelayAccess, SecretKey};
use aws_lc_rs::{aead, digest, hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::TryRngCore as _;
use uuid::Uuid;

use crate::store::{LeaseEnd, TokenKind};

/// Characters of ICE user name fragments and passwords (RFC 8445, 5.3: `ice-char`).
const ICE_CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The longest token text that is looked at.
const LONGEST_TOKEN: usize = 256;

/// The operating system gave no randomness; nothing safe can be made then.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the operating system gives no randomness")]
pub(crate) struct NoRandomness;

/// 32 bytes from the operating system.
pub(crate) fn random_bytes() -> Result<[u8; 32], NoRandomness> {
    let mut bytes = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// The secrets of this portal.
pub(crate) struct Secrets {
    pepper: hmac::Key,
    connections: hkdf::Prk,
    relays: aead::RandomizedNonceKey,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// A token as it is handed out, once.
pub(crate) struct MintedToken {
    /// Its id.
    pub(crate) id: TokenId,
    /// What the peer presents.
    pub(crate) text: String,
    /// What is stored.
    pub(crate) hash: [u8; 32],
}

/// A token that was presented, taken apart.
pub(crate) struct PresentedToken {
    /// Which one it claims to be.
    pub(crate) id: TokenId,
    /// What it claims to be for.
    pub(crate) kind: TokenKind,
    secret: String,
}

impl PresentedToken {
    /// Reads a token; `None` when it has not the form of one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST_TOKEN {
            return None;
        }
        let (kind, rest) = text.strip_prefix("adit_")?.split_once('_')?;
        let (id, secret) = rest.split_once('_')?;
        let id = Uuid::try_parse(id).ok()?;
        Some(Self { id: TokenId::from_uuid(id), kind: kind.parse().ok()?, secret: secret.to_owned() })
    }
}

impl Secrets {
    /// From the two secret files of the data directory.
    ///
    /// # Panics
    ///
    /// Never: keys of 32 bytes are what both algorithms take.
    pub(crate) fn new(pepper: &[u8; 32], portal_secret: &[u8; 32]) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"adit connection pre-shared key v1");
        let relays = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, portal_secret), b"adit relay secrets v1");
        let relays = aead::RandomizedNonceKey::new(&aead::AES_256_GCM, relays.as_ref()).expect("32 bytes");
        Self {
            pepper: hmac::Key::new(hmac::HMAC_SHA256, pepper),
            connections: salt.extract(portal_secret),
            relays,
        }
    }

    /// Encrypts a relay's secret for the other nodes: it passes through the database.
    pub(crate) fn seal(&self, secret: &str) -> Result<String, NoRandomness> {
        let mut text = secret.as_bytes().to_vec();
        let nonce =
            self.relays.seal_in_place_append_tag(aead::Aad::empty(), &mut text).map_err(|_| NoRandomness)?;
        Ok(STANDARD.encode([nonce.as_ref().as_slice(), &text].concat()))
    }

    /// Decrypts what another node has sealed; `None` when it was not sealed under our keys.
    pub(crate) fn open(&self, sealed: &str) -> Option<String> {
        let bytes = STANDARD.decode(sealed).ok()?;
        let (nonce, text) = bytes.split_at_checked(aead::NONCE_LEN)?;
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let text = self.relays.open_in_place(nonce, aead::Aad::empty(), &mut text).ok()?;
        String::from_utf8(text.to_vec()).ok()
    }

    /// A digest of both secret files, which says nothing about them.
    pub(crate) fn digest(&self) -> Result<[u8; 32], NoRandomness> {
        let mut both = [0; 32];
        self.connections
            .expand(&[b"adit digest v1"], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut both))
            .map_err(|_| NoRandomness)?;
        let tag = hmac::sign(&self.pepper, &both);
        both.copy_from_slice(tag.as_ref());
        Ok(both)
    }

    /// Makes a new token.
    pub(crate) fn mint(&self, kind: TokenKind) -> Result<MintedToken, NoRandomness> {
        let id = TokenId::from_uuid(Uuid::now_v7());
        let secret = URL_SAFE_NO_PAD.encode(random_bytes()?);
        let mut hash = [0; 32];
        hash.copy_from_slice(hmac::sign(&self.pepper, &peppered(kind, id, &secret)).as_ref());
        let text = format!("adit_{}_{}_{secret}", kind.name(), id.as_uuid().simple());
        Ok(MintedToken { id, text, hash })
    }

    /// Whether a presented token has this hash; takes the same time whatever differs.
    pub(crate) fn verify(&self, token: &PresentedToken, hash: &[u8]) -> bool {
        hmac::verify(&self.pepper, &peppered(token.kind, token.id, &token.secret), hash).is_ok()
    }

    /// A keyed hash for one purpose: of secrets other than tokens, and what is derived from them.
    pub(crate) fn tag(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.pepper);
        // No token begins like this, and no part can be taken for another.
        for part in [b"adit tag v1".as_slice(), purpose.as_bytes()].iter().chain(parts) {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// The pre-shared key of one epoch: bound to both ids, both keys and the epoch.
    pub(crate) fn preshared_key(
        &self,
        client: &LeaseEnd,
        gateway: &LeaseEnd,
        epoch: u64,
    ) -> Result<SecretKey, NoRandomness> {
        let epoch = epoch.to_be_bytes();
        let info = [
            client.id.as_bytes().as_slice(),
            gateway.id.as_bytes().as_slice(),
            &client.public_key,
            &gateway.public_key,
            &epoch,
        ];
        let mut key = [0; 32];
        self.connections
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut key))
            .map_err(|_| NoRandomness)?;
        Ok(SecretKey(key))
    }
}

fn peppered(kind: TokenKind, id: TokenId, secret: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + secret.len());
    bytes.extend_from_slice(kind.name().as_bytes());
    bytes.push(b'_');
    bytes.extend_from_slice(id.as_uuid().as_bytes());
    bytes.extend_from_slice(secret.as_bytes());
    bytes
}

/// Credentials of one end of a connection epoch: 48 bits of name, 192 bits of password.
pub(crate) fn ice_credentials() -> Result<IceCredentials, NoRandomness> {
    let random = random_bytes()?;
    let text = |bytes: &[u8]| -> String {
        bytes.iter().map(|byte| char::from(ICE_CHARACTERS[usize::from(byte & 63)])).collect()
    };
    Ok(IceCredentials { ufrag: text(&random[..8]), password: text(&random) })
}

/// Credentials for one device on one relay, in the TURN REST form.
///
/// The salt is the same for a device whatever the relay, so that a relay can hold a device to
/// one quota, and says nothing about the device to anyone else.
pub(crate) fn relay_username(device: Uuid, expires_ms: i64) -> String {
    let hash = digest::digest(&digest::SHA256, device.as_bytes());
    format!("{}:{}", expires_ms / 1000, URL_SAFE_NO_PAD.encode(&hash.as_ref()[..12]))
}

/// The password that belongs to a user name under a relay's secret.
pub(crate) fn relay_password(secret: &str, username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    STANDARD.encode(hmac::sign(&key, username.as_bytes()))
}

/// Whether a key can be a peer's: the all-zero key is nobody's.
pub(crate) fn is_usable_key(key: &EncodedKey) -> bool {
    key.0 != [0; 32]
}

/// Access to a relay for one device.
pub(crate) fn relay_access(
    relay: RelayId,
    details: &crate::hub::RelayDetails,
    device: Uuid,
    expires_ms: i64,
) -> RelayAccess {
    let username = relay_username(device, expires_ms);
    RelayAccess {
        id: relay,
        ipv4: details.ipv4,
        ipv6: details.ipv6,
        tcp_port: details.tcp_port,
        tls: details.tls.clone(),
        password: relay_password(&details.secret, &username),
        username,
        expires_at_ms: crate::clock::wire_ms(expires_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets() -> Secrets {
        Secrets::new(&[1; 32], &[2; 32])
    }

    #[test]
    fn a_token_is_accepted_only_as_it_was_minted() {
        let minted = secrets().mint(TokenKind::Client).unwrap();
        let presented = PresentedToken::parse(&minted.text).unwrap();
        assert_eq!(presented.id, minted.id);
        assert!(secrets().verify(&presented, &minted.hash));
        let other_kind = minted.text.replace("adit_client_", "adit_api_");
        assert!(!secrets().verify(&PresentedToken::parse(&other_kind).unwrap(), &minted.hash));
        let other_pepper = Secrets::new(&[9; 32], &[2; 32]);
        assert!(!other_pepper.verify(&presented, &minted.hash));
        let mut forged = minted.text.clone();
        forged.push('A');
        assert!(!secrets().verify(&PresentedToken::parse(&forged).unwrap(), &minted.hash));
    }

    #[test]
    fn a_relays_secret_is_opened_by_our_own_nodes_only() {
        let sealed = secrets().seal("relay secret").unwrap();
        assert!(!sealed.contains("relay") && sealed != secrets().seal("relay secret").unwrap());
        assert_eq!(secrets().open(&sealed).as_deref(), Some("relay secret"));
        assert_eq!(Secrets::new(&[1; 32], &[3; 32]).open(&sealed), None);
        for wrong in ["", "AAAA", "!", &sealed[4..]] {
            assert_eq!(secrets().open(wrong), None);
        }
    }

    #[test]
    fn the_digest_tells_secrets_apart() {
        let digest = secrets().digest().unwrap();
        assert_eq!(digest, secrets().digest().unwrap());
        assert_ne!(digest, Secrets::new(&[9; 32], &[2; 32]).digest().unwrap());
        assert_ne!(digest, Secrets::new(&[1; 32], &[9; 32]).digest().unwrap());
    }

    #[test]
    fn what_is_no_token_is_not_read_as_one() {
        for text in ["", "adit_", "adit_client_x_y", "adit_root_00000000000000000000000000000000_x", "Bearer"]
        {
            assert!(PresentedToken::parse(text).is_none(), "{text}");
        }
        assert!(PresentedToken::parse(&format!("adit_client_{}_x", "0".repeat(300))).is_none());
    }

    /// The example of the TURN REST draft has no published vector; this one was computed with
    /// `printf 1700000000:salt | openssl dgst -sha1 -hmac secret -binary | base64`.
    #[test]
    fn relay_passwords_are_hmac_sha1_of_the_user_name() {
        assert_eq!(relay_password("secret", "1700000000:salt"), "NWW+6EIp/zW0gJmHnGRbgbg1dNA=");
        assert!(relay_username(Uuid::nil(), 1_700_000_000_999).starts_with("1700000000:"));
    }

    #[test]
    fn preshared_keys_depend_on_everything_they_are_bound_to() {
        let end = |id: u128, key: u8| LeaseEnd {
            id: Uuid::from_u128(id),
            name: String::new(),
            public_key: [key; 32],
            address_index: 1,
        };
        let key = |a: &LeaseEnd, b: &LeaseEnd, epoch| secrets().preshared_key(a, b, epoch).unwrap().0;
        let base = key(&end(1, 1), &end(2, 2), 1);
        assert_eq!(base, key(&end(1, 1), &end(2, 2), 1));
        for other in [
            key(&end(3, 1), &end(2, 2), 1),
            key(&end(1, 3), &end(2, 2), 1),
            key(&end(1, 1), &end(3, 2), 1),
            key(&end(1, 1), &end(2, 3), 1),
            key(&end(1, 1), &end(2, 2), 2),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn ice_credentials_are_long_and_never_the_same() {
        let (one, two) = (ice_credentials().unwrap(), ice_credentials().unwrap());
        assert_eq!((one.ufrag.len(), one.password.len()), (8, 32));
        assert_ne!(one, two);
    }
}
