//! Noise IKpsk2 as WireGuard uses it (WireGuard paper, section 5.4).
//!
//! ```text
//! initiator                                   responder
//!     e, es, s, ss, {timestamp}  ──────────►
//!                                ◄──────────  e, ee, se, psk, {}
//! ```
//!
//! Pure functions over a symmetric state. MACs, indices, replay guard and timers live
//! elsewhere. Every chaining key is wiped when dropped, and nothing that holds one can be
//! printed: those types have no `Debug`.

use std::sync::LazyLock;

use rand::RngCore;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::aead::AeadKey;
use crate::agreement::{Agreement, KeyPair, LowOrder};
use crate::hash::{derive, hash};
use crate::message::{
    INITIATION_LENGTH, INITIATION_TYPE, RESPONSE_LENGTH, RESPONSE_TYPE, field, initiation, response,
};
use crate::tai64n::Tai64N;
use crate::{DropReason, PresharedKey, PublicKey, TAG};

const CONSTRUCTION: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const IDENTIFIER: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// Chaining key and transcript of every handshake before anything is known.
static BEGINNING: LazyLock<([u8; 32], [u8; 32])> = LazyLock::new(|| {
    let chaining_key = hash(&[CONSTRUCTION]);
    (chaining_key, hash(&[&chaining_key, IDENTIFIER]))
});

type Secret = Zeroizing<[u8; 32]>;

impl From<LowOrder> for DropReason {
    fn from(_: LowOrder) -> Self {
        Self::LowOrderKey
    }
}

/// Chaining key and transcript hash.
#[derive(Clone)]
struct SymmetricState {
    chaining_key: Secret,
    transcript: [u8; 32],
}

impl SymmetricState {
    /// Both sides start from the responder's static key (the pre-message of IK).
    fn new(responder: &PublicKey) -> Self {
        let (chaining_key, transcript) = &*BEGINNING;
        let transcript = hash(&[transcript, responder.as_bytes()]);
        Self { chaining_key: Zeroizing::new(*chaining_key), transcript }
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.transcript = hash(&[&self.transcript, data]);
    }

    fn mix_key(&mut self, input: &[u8]) {
        let [chaining_key] = derive(&self.chaining_key, input);
        self.chaining_key = chaining_key;
    }

    fn mix_key_to_cipher(&mut self, input: &[u8]) -> AeadKey {
        let [chaining_key, key] = derive(&self.chaining_key, input);
        self.chaining_key = chaining_key;
        AeadKey::new(&key)
    }

    fn mix_preshared_key(&mut self, preshared_key: &PresharedKey) -> AeadKey {
        let [chaining_key, mix, key] = derive(&self.chaining_key, &preshared_key.0);
        self.chaining_key = chaining_key;
        self.mix_hash(mix.as_slice());
        AeadKey::new(&key)
    }

    /// Encrypts `plaintext` into `output`, which must be `TAG` bytes longer.
    fn encrypt(&mut self, key: &AeadKey, plaintext: &[u8], output: &mut [u8]) {
        let (body, tag) = output.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        // The cipher refuses only inputs of 256 GiB; these are at most 32 bytes.
        tag.copy_from_slice(&key.seal(0, &self.transcript, body).expect("a handshake field is short"));
        self.mix_hash(output);
    }

    fn decrypt<const N: usize>(&mut self, key: &AeadKey, ciphertext: &[u8]) -> Result<[u8; N], DropReason> {
        let mut buffer = [0; 48];
        let buffer = buffer.get_mut(..N + TAG).ok_or(DropReason::HandshakeDecryption)?;
        buffer.copy_from_slice(ciphertext);
        key.open(0, &self.transcript, buffer).map_err(|_| DropReason::HandshakeDecryption)?;
        self.mix_hash(ciphertext);
        Ok(field(buffer, 0..N))
    }

    /// The transport keys: initiator to responder, then back.
    fn split(&self) -> (AeadKey, AeadKey) {
        let [first, second] = derive(&self.chaining_key, &[]);
        (AeadKey::new(&first), AeadKey::new(&second))
    }
}

/// What a handshake needs to know about the other side.
pub(crate) struct PeerKeys {
    pub(crate) public: PublicKey,
    pub(crate) preshared: PresharedKey,
    /// Agreement of both static keys, made once when the peer is added.
    pub(crate) static_secret: Secret,
}

/// The keys of a completed handshake, from our side.
#[derive(Debug)]
pub(crate) struct TransportKeys {
    pub(crate) send: AeadKey,
    pub(crate) receive: AeadKey,
}

/// An initiation that waits for its response.
pub(crate) struct PendingInitiation {
    pub(crate) index: u32,
    state: SymmetricState,
    ephemeral: KeyPair,
}

/// Makes an initiation; its MAC fields are still zero.
pub(crate) fn initiate(
    agreement: &mut Agreement,
    random: &mut impl RngCore,
    local: &KeyPair,
    peer: &PeerKeys,
    (index, timestamp): (u32, Tai64N),
) -> Result<(PendingInitiation, [u8; INITIATION_LENGTH]), LowOrder> {
    let mut message = [0; INITIATION_LENGTH];
    let mut state = SymmetricState::new(&peer.public);
    let ephemeral = agreement.generate(random);
    message[0] = INITIATION_TYPE;
    message[initiation::SENDER..][..4].copy_from_slice(&index.to_le_bytes());
    message[initiation::EPHEMERAL].copy_from_slice(ephemeral.public().as_bytes());
    state.mix_key(ephemeral.public().as_bytes());
    state.mix_hash(ephemeral.public().as_bytes());
    let key = state.mix_key_to_cipher(agreement.agree(&ephemeral, &peer.public)?.as_slice());
    state.encrypt(&key, local.public().as_bytes(), &mut message[initiation::STATIC]);
    let key = state.mix_key_to_cipher(peer.static_secret.as_slice());
    state.encrypt(&key, &timestamp.0, &mut message[initiation::TIMESTAMP]);
    Ok((PendingInitiation { index, state, ephemeral }, message))
}

/// An initiation whose static key is known, but not yet proven.
pub(crate) struct ClaimedInitiation {
    /// Who the sender says it is.
    pub(crate) claimed: PublicKey,
    state: SymmetricState,
    ephemeral: PublicKey,
}

/// Decrypts the sender's static key (one X25519 operation).
pub(crate) fn read_claim(
    agreement: &mut Agreement,
    local: &KeyPair,
    message: &[u8; INITIATION_LENGTH],
) -> Result<ClaimedInitiation, DropReason> {
    let mut state = SymmetricState::new(local.public());
    let ephemeral = PublicKey(field(message, initiation::EPHEMERAL));
    state.mix_key(ephemeral.as_bytes());
    state.mix_hash(ephemeral.as_bytes());
    let key = state.mix_key_to_cipher(agreement.agree(local, &ephemeral)?.as_slice());
    let claimed = PublicKey(state.decrypt(&key, &message[initiation::STATIC])?);
    Ok(ClaimedInitiation { claimed, state, ephemeral })
}

/// An initiation that is proven to come from the peer.
pub(crate) struct ProvenInitiation {
    pub(crate) timestamp: Tai64N,
    state: SymmetricState,
    ephemeral: PublicKey,
    sender: u32,
}

/// Proves the claim: only the holder of the static key can have sealed the timestamp.
pub(crate) fn prove_claim(
    claim: ClaimedInitiation,
    peer: &PeerKeys,
    message: &[u8; INITIATION_LENGTH],
) -> Result<ProvenInitiation, DropReason> {
    let ClaimedInitiation { claimed, mut state, ephemeral } = claim;
    if !bool::from(claimed.as_bytes().ct_eq(peer.public.as_bytes())) {
        return Err(DropReason::UnknownPeer);
    }
    let key = state.mix_key_to_cipher(peer.static_secret.as_slice());
    let timestamp = Tai64N(state.decrypt(&key, &message[initiation::TIMESTAMP])?);
    let sender = crate::message::read_u32(message, initiation::SENDER);
    Ok(ProvenInitiation { timestamp, state, ephemeral, sender })
}

/// Our side of a handshake that we answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The response; its MAC fields are still zero.
    pub(crate) message: [u8; RESPONSE_LENGTH],
    pub(crate) keys: TransportKeys,
    pub(crate) remote_index: u32,
}

/// Answers a proven initiation under our index `index`.
pub(crate) fn respond(
    agreement: &mut Agreement,
    random: &mut impl RngCore,
    peer: &PeerKeys,
    proven: ProvenInitiation,
    index: u32,
) -> Result<Answer, LowOrder> {
    let ProvenInitiation { mut state, ephemeral: theirs, sender, .. } = proven;
    let mut message = [0; RESPONSE_LENGTH];
    let ephemeral = agreement.generate(random);
    message[0] = RESPONSE_TYPE;
    message[response::SENDER..][..4].copy_from_slice(&index.to_le_bytes());
    message[response::RECEIVER..][..4].copy_from_slice(&sender.to_le_bytes());
    message[response::EPHEMERAL].copy_from_slice(ephemeral.public().as_bytes());
    state.mix_key(ephemeral.public().as_bytes());
    state.mix_hash(ephemeral.public().as_bytes());
    state.mix_key(agreement.agree(&ephemeral, &theirs)?.as_slice());
    state.mix_key(agreement.agree(&ephemeral, &peer.public)?.as_slice());
    let key = state.mix_preshared_key(&peer.preshared);
    state.encrypt(&key, &[], &mut message[response::NOTHING]);
    let (receive, send) = state.split();
    Ok(Answer { message, keys: TransportKeys { send, receive }, remote_index: sender })
}

/// Completes the handshake on the initiator's side. A bad response changes nothing.
pub(crate) fn complete(
    agreement: &mut Agreement,
    local: &KeyPair,
    pending: &PendingInitiation,
    peer: &PeerKeys,
    message: &[u8; RESPONSE_LENGTH],
) -> Result<TransportKeys, DropReason> {
    let mut state = pending.state.clone();
    let ephemeral = PublicKey(field(message, response::EPHEMERAL));
    state.mix_key(ephemeral.as_bytes());
    state.mix_hash(ephemeral.as_bytes());
    state.mix_key(agreement.agree(&pending.ephemeral, &ephemeral)?.as_slice());
    state.mix_key(agreement.agree(local, &ephemeral)?.as_slice());
    let key = state.mix_preshared_key(&peer.preshared);
    let [] = state.decrypt::<0>(&key, &message[response::NOTHING])?;
    let (send, receive) = state.split();
    Ok(TransportKeys { send, receive })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;
    use crate::PrivateKey;

    struct Side {
        pair: KeyPair,
        peer: PeerKeys,
    }

    fn sides(psk_a: u8, psk_b: u8) -> (Side, Side) {
        let keys = [1, 2].map(|byte| KeyPair::from_private(&PrivateKey::from_bytes([byte; 32])));
        let [a, b] = keys;
        let secret = Agreement::default().agree(&a, b.public()).unwrap();
        let peer = |public: &KeyPair, psk| PeerKeys {
            public: *public.public(),
            preshared: PresharedKey([psk; 32]),
            static_secret: secret.clone(),
        };
        let (peer_b, peer_a) = (peer(&b, psk_a), peer(&a, psk_b));
        (Side { pair: a, peer: peer_b }, Side { pair: b, peer: peer_a })
    }

    fn handshake(psk_a: u8, psk_b: u8) -> Result<(TransportKeys, TransportKeys), DropReason> {
        let (a, b) = sides(psk_a, psk_b);
        let (mut agreement, mut random) = (Agreement::default(), ChaCha20Rng::from_seed([5; 32]));
        let stamp = (77, Tai64N([9; 12]));
        let (pending, message) = initiate(&mut agreement, &mut random, &a.pair, &a.peer, stamp)?;
        let claim = read_claim(&mut agreement, &b.pair, &message)?;
        assert_eq!(claim.claimed, *a.pair.public());
        let proven = prove_claim(claim, &b.peer, &message)?;
        assert_eq!((proven.timestamp, proven.sender), (Tai64N([9; 12]), 77));
        let answer = respond(&mut agreement, &mut random, &b.peer, proven, 88)?;
        assert_eq!(answer.remote_index, 77);
        let ours = complete(&mut agreement, &a.pair, &pending, &a.peer, &answer.message)?;
        Ok((ours, answer.keys))
    }

    #[test]
    fn both_sides_get_the_same_keys() {
        let (a, b) = handshake(3, 3).unwrap();
        for (seal, open) in [(&a.send, &b.receive), (&b.send, &a.receive)] {
            let mut message = [0; 20];
            let tag = seal.seal(1, &[], &mut message[..4]).unwrap();
            message[4..].copy_from_slice(&tag);
            assert!(open.open(1, &[], &mut message).is_ok());
        }
    }

    #[test]
    fn another_preshared_key_does_not_complete() {
        assert_eq!(handshake(3, 4).err(), Some(DropReason::HandshakeDecryption));
    }

    #[test]
    fn every_changed_field_is_noticed() {
        let (a, b) = sides(3, 3);
        let (mut agreement, mut random) = (Agreement::default(), ChaCha20Rng::from_seed([5; 32]));
        let stamp = (77, Tai64N([9; 12]));
        let (_, message) = initiate(&mut agreement, &mut random, &a.pair, &a.peer, stamp).unwrap();
        for position in initiation::EPHEMERAL.start..initiation::TIMESTAMP.end {
            let mut changed = message;
            changed[position] ^= 1;
            let result = read_claim(&mut agreement, &b.pair, &changed)
                .and_then(|claim| prove_claim(claim, &b.peer, &changed).map(|_| ()));
            assert!(result.is_err(), "byte {position}");
        }
    }
}
