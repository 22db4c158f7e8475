//! Responses: what they must repeat of their request.

use crate::stun::{Class, ErrorCode, Message, Method, TransactionId, Writer};

/// What a response needs to know of its request.
#[derive(Copy, Clone, Debug)]
pub(super) struct Envelope {
    method: Method,
    transaction: TransactionId,
    has_fingerprint: bool,
}

/// A response ready to send.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) error: Option<ErrorCode>,
    pub(super) datagram: Vec<u8>,
}

impl Envelope {
    pub(super) fn of(request: &Message<'_>) -> Self {
        Self {
            method: request.method(),
            transaction: request.transaction(),
            has_fingerprint: request.has_fingerprint(),
        }
    }

    /// Starts a success response.
    pub(super) fn success(&self) -> Writer {
        Writer::new(self.method, Class::Success, self.transaction)
    }

    /// Starts an error response.
    pub(super) fn error(&self, code: ErrorCode) -> Writer {
        Writer::new(self.method, Class::Error, self.transaction).error_code(code)
    }

    /// Ends a response: with FINGERPRINT where the request had one (RFC 8489, section 6.3.1).
    pub(super) fn finish(&self, error: Option<ErrorCode>, writer: Writer) -> Reply {
        let writer = if self.has_fingerprint { writer.fingerprint() } else { writer };
        Reply { error, datagram: writer.finish() }
    }
}
