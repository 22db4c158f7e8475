//! What this processor can do: the ciphers alone, and a key agreement.

use std::hint::black_box;

use ::ring::aead as ring;
use ::ring::agreement as ring_agreement;
use aws_lc_rs::aead as aws;
use aws_lc_rs::agreement as aws_agreement;

use crate::packets::{FULL, SMALL};
use crate::stopwatch::{Stopwatch, least_of_each, sample};

const TAG: usize = 16;
/// Packets that are sealed or opened in a row; together they fit into the second-level cache.
const PACKETS: usize = 128;
/// Times that all of them are, in one run.
const PASSES: usize = 8;
/// Key agreements in one run.
const AGREEMENTS: usize = 32;
/// Runs of which the best counts.
const REPETITIONS: usize = 12;

/// A cipher with its key.
trait Cipher {
    /// Encrypts all but the last 16 bytes, and writes the tag there.
    fn seal(&self, counter: u64, packet: &mut [u8]);
    /// Decrypts what `seal` made.
    fn open(&self, counter: u64, packet: &mut [u8]);
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    nonce
}

/// The two libraries have the same interface, which is not a trait.
macro_rules! cipher {
    ($name:ident, $library:ident) => {
        struct $name($library::LessSafeKey);

        impl $name {
            fn boxed(algorithm: &'static $library::Algorithm) -> Box<dyn Cipher> {
                let key = $library::UnboundKey::new(algorithm, &[9; 32]).expect("a key of 32 bytes");
                Box::new(Self($library::LessSafeKey::new(key)))
            }
        }

        impl Cipher for $name {
            fn seal(&self, counter: u64, packet: &mut [u8]) {
                let nonce = $library::Nonce::assume_unique_for_key(nonce(counter));
                let (message, tag) = packet.split_at_mut(packet.len() - TAG);
                let made = self.0.seal_in_place_separate_tag(nonce, $library::Aad::empty(), message);
                tag.copy_from_slice(made.expect("a short message").as_ref());
            }

            fn open(&self, counter: u64, packet: &mut [u8]) {
                let nonce = $library::Nonce::assume_unique_for_key(nonce(counter));
                self.0.open_in_place(nonce, $library::Aad::empty(), packet).expect("authentic data");
            }
        }
    };
}

cipher!(AwsLc, aws);
cipher!(Ring, ring);

/// Makes a cipher with a key.
type Make = fn() -> Box<dyn Cipher>;

/// One kind of work by one library.
struct Subject {
    figure: String,
    library: &'static str,
    work: Work,
}

enum Work {
    Seal(Box<dyn Cipher>, usize),
    Open(Box<dyn Cipher>, usize),
    Agree(fn()),
}

pub(crate) fn run(rounds: u32) {
    let mut subjects = subjects();
    for round in 1..=rounds {
        let least = least_of_each(&mut subjects, REPETITIONS, |subject| measure(&subject.work));
        for (subject, nanoseconds) in subjects.iter().zip(least) {
            print(subject, round, nanoseconds);
        }
    }
}

fn print(subject: &Subject, round: u32, nanoseconds: f64) {
    let Subject { figure, library, work } = subject;
    match work {
        Work::Seal(_, length) | Work::Open(_, length) => {
            sample(&format!("{figure}_ns"), library, round, nanoseconds);
            sample(&format!("{figure}_gbit_s"), library, round, (length * 8) as f64 / nanoseconds);
        }
        Work::Agree(_) => sample(&format!("{figure}_us"), library, round, nanoseconds / 1e3),
    }
}

fn subjects() -> Vec<Subject> {
    let ciphers: [(&str, &str, Make); 4] = [
        ("chacha20_poly1305", "aws-lc-rs", || AwsLc::boxed(&aws::CHACHA20_POLY1305)),
        ("chacha20_poly1305", "ring", || Ring::boxed(&ring::CHACHA20_POLY1305)),
        ("aes_256_gcm", "aws-lc-rs", || AwsLc::boxed(&aws::AES_256_GCM)),
        ("aes_256_gcm", "ring", || Ring::boxed(&ring::AES_256_GCM)),
    ];
    let mut subjects = Vec::new();
    for length in [FULL, SMALL] {
        for (cipher, library, make) in ciphers {
            let mut add = |figure, work| subjects.push(Subject { figure, library, work });
            add(format!("{cipher}_seal_{length}"), Work::Seal(make(), length));
            add(format!("{cipher}_open_{length}"), Work::Open(make(), length));
        }
    }
    let figure = "x25519_keypair_and_dh";
    for (library, agree) in [("aws-lc-rs", agree_with_aws_lc as fn()), ("ring", agree_with_ring)] {
        subjects.push(Subject { figure: figure.to_owned(), library, work: Work::Agree(agree) });
    }
    subjects
}

/// Nanoseconds of one piece of work.
fn measure(work: &Work) -> f64 {
    match work {
        Work::Seal(cipher, length) => each_packet(cipher.as_ref(), *length)[0],
        Work::Open(cipher, length) => each_packet(cipher.as_ref(), *length)[1],
        Work::Agree(agree) => {
            let mut stopwatch = Stopwatch::default();
            stopwatch.time(|| (0..AGREEMENTS).for_each(|_| agree()));
            stopwatch.nanoseconds_each(AGREEMENTS)
        }
    }
}

/// Nanoseconds to seal and to open a packet. Both are done, since only what was sealed can be opened.
fn each_packet(cipher: &dyn Cipher, length: usize) -> [f64; 2] {
    let mut packets = vec![vec![0x5a; length + TAG]; PACKETS];
    let (mut sealing, mut opening) = (Stopwatch::default(), Stopwatch::default());
    for pass in 0..PASSES {
        let each = |packets: &mut Vec<Vec<u8>>, work: &dyn Fn(u64, &mut [u8])| {
            let numbered = packets.iter_mut().enumerate();
            numbered.for_each(|(number, packet)| work((pass * PACKETS + number) as u64, packet));
        };
        sealing.time(|| each(&mut packets, &|counter, packet| cipher.seal(counter, packet)));
        opening.time(|| each(&mut packets, &|counter, packet| cipher.open(counter, packet)));
    }
    black_box(&packets);
    [sealing, opening].map(|stopwatch| stopwatch.nanoseconds_each(PASSES * PACKETS))
}

/// What each side does twice in a handshake: a new key pair, and a shared secret with it.
fn agree_with_aws_lc() {
    let own = aws_agreement::PrivateKey::generate(&aws_agreement::X25519).expect("randomness");
    black_box(own.compute_public_key().expect("a public key"));
    let other = aws_agreement::UnparsedPublicKey::new(&aws_agreement::X25519, BASE);
    aws_agreement::agree(&own, other, (), |secret| black_box(secret).first().copied().ok_or(()))
        .expect("a good key");
}

fn agree_with_ring() {
    let random = ::ring::rand::SystemRandom::new();
    let own =
        ring_agreement::EphemeralPrivateKey::generate(&ring_agreement::X25519, &random).expect("randomness");
    black_box(own.compute_public_key().expect("a public key"));
    let other = ring_agreement::UnparsedPublicKey::new(&ring_agreement::X25519, BASE);
    ring_agreement::agree_ephemeral(own, &other, |secret| black_box(secret).first().copied())
        .expect("a good key");
}

/// A point that has the order of the group: the base point itself.
const BASE: [u8; 32] = {
    let mut point = [0; 32];
    point[0] = 9;
    point
};
