//! The seal of an entry: HMAC-SHA256 over the seal before it and everything it says.
//!
//! The key comes from the secret files, so whoever has only the database cannot make a seal.
//! What is sealed is written without ambiguity: numbers in eight bytes, texts behind their
//! length, and a byte before everything that may be absent.

use aws_lc_rs::hmac;
use uuid::Uuid;

use super::AuditRow;

/// Of an entry without a sealed one before it.
const NONE: [u8; 32] = [0; 32];

/// Makes and checks seals.
pub(crate) struct Sealer(hmac::Key);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(…)")
    }
}

impl Sealer {
    /// Under a key of the secret files.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The seal of an entry that follows one with the seal `before`.
    pub(super) fn seal(&self, before: Option<&[u8]>, account: Uuid, row: &AuditRow) -> [u8; 32] {
        let tag = hmac::sign(&self.0, &written(before, account, row));
        let mut seal = [0; 32];
        seal.copy_from_slice(tag.as_ref());
        seal
    }

    /// Whether an entry has the seal that it must have; takes the same time whatever differs.
    pub(super) fn is_sealed(&self, before: Option<&[u8]>, account: Uuid, row: &AuditRow) -> bool {
        let seal = row.seal.as_deref().unwrap_or_default();
        hmac::verify(&self.0, &written(before, account, row), seal).is_ok()
    }
}

fn written(before: Option<&[u8]>, account: Uuid, row: &AuditRow) -> Vec<u8> {
    let mut bytes = b"adit audit v1".to_vec();
    bytes.extend_from_slice(before.unwrap_or(&NONE));
    bytes.extend_from_slice(account.as_bytes());
    bytes.extend_from_slice(row.id.as_bytes());
    bytes.extend_from_slice(&row.seq.to_be_bytes());
    bytes.extend_from_slice(&row.at_ms.to_be_bytes());
    for text in [&row.who, &row.address, &row.action, &row.subject_kind, &row.detail] {
        put(&mut bytes, Some(text.as_bytes()));
    }
    put(&mut bytes, row.subject_id.as_ref().map(|id| id.as_bytes().as_slice()));
    put(&mut bytes, row.before.as_ref().map(String::as_bytes));
    put(&mut bytes, row.after.as_ref().map(String::as_bytes));
    bytes
}

fn put(bytes: &mut Vec<u8>, value: Option<&[u8]>) {
    bytes.push(u8::from(value.is_some()));
    if let Some(value) = value {
        bytes.extend_from_slice(&(value.len() as u64).to_be_bytes());
        bytes.extend_from_slice(value);
    }
}

/// As it is written down and compared by people.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`hex`] wrote.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (text.len().is_multiple_of(2)).then(|| (0..text.len()).step_by(2).map(digit).collect())?
}
