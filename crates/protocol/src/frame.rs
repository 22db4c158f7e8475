//! The frame of a control message: `{"v":1,"type":"…","ref":…,"payload":{…}}`.
//!
//! `ref` is optional and echoes the reference of the message that is answered. A frame of
//! an unknown type decodes to [`Decoded::Unknown`], so that a newer portal may say more than
//! an older peer understands.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::FRAME_VERSION;

/// A set of control messages in one direction.
pub trait Message: Sized {
    /// The `type` of every message of this set.
    const KINDS: &'static [&'static str];

    /// The `type` of this message on the wire.
    fn kind(&self) -> &'static str;

    /// The `payload` of this message.
    fn payload(&self) -> Result<Value, serde_json::Error>;

    /// Reads the payload of a message of `kind`; `None` when the kind is unknown.
    fn from_payload(kind: &str, payload: Value) -> Option<Result<Self, serde_json::Error>>;
}

/// What a frame held.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<T> {
    /// A message, with the reference it carried.
    Message {
        /// The message.
        message: T,
        /// The reference that the sender put into the frame.
        reference: Option<u64>,
    },
    /// A message of a kind that this build does not know; to be ignored.
    Unknown {
        /// Its kind, cut to 64 characters.
        kind: String,
    },
}

/// Why a frame could not be read. Always the sender's fault.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Longer than [`crate::MAX_MESSAGE`].
    #[error("the frame has {0} bytes, more than is allowed")]
    TooLarge(usize),
    /// Not JSON, or not a frame.
    #[error("not a frame: {0}")]
    NotAFrame(serde_json::Error),
    /// Another framing version.
    #[error("frame version {0} is not supported")]
    Version(u8),
    /// A known kind with a payload that does not fit it.
    #[error("payload of `{kind}` is wrong: {error}")]
    Payload {
        /// The kind of the message.
        kind: String,
        /// What is wrong with it.
        error: serde_json::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Frame {
    v: u8,
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    reference: Option<u64>,
    #[serde(default)]
    payload: Value,
}

/// Writes `message` as one frame.
///
/// # Errors
///
/// When a value cannot be represented in JSON, which no message of this crate holds.
pub fn encode<T: Message>(message: &T, reference: Option<u64>) -> Result<String, serde_json::Error> {
    let frame =
        Frame { v: FRAME_VERSION, kind: message.kind().to_owned(), reference, payload: message.payload()? };
    serde_json::to_string(&frame)
}

/// Reads one frame.
///
/// # Errors
///
/// When `text` is too large, is not a frame, or holds a known message with a wrong payload.
pub fn decode<T: Message>(text: &str) -> Result<Decoded<T>, DecodeError> {
    if text.len() > crate::MAX_MESSAGE {
        return Err(DecodeError::TooLarge(text.len()));
    }
    let frame: Frame = serde_json::from_str(text).map_err(DecodeError::NotAFrame)?;
    if frame.v != FRAME_VERSION {
        return Err(DecodeError::Version(frame.v));
    }
    let payload = if frame.payload.is_null() { Value::Object(serde_json::Map::new()) } else { frame.payload };
    let kind: String = frame.kind.chars().take(64).collect();
    match T::from_payload(&frame.kind, payload) {
        None => Ok(Decoded::Unknown { kind }),
        Some(Ok(message)) => Ok(Decoded::Message { message, reference: frame.reference }),
        Some(Err(error)) => Err(DecodeError::Payload { kind, error }),
    }
}

/// Declares the messages of one direction: an enum whose variants wrap one payload each.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident($payload:ty) = $kind:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant($payload),)+
        }

        impl $crate::frame::Message for $name {
            const KINDS: &'static [&'static str] = &[$($kind),+];

            fn kind(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $kind,)+
                }
            }

            fn payload(&self) -> Result<serde_json::Value, serde_json::Error> {
                match self {
                    $(Self::$variant(payload) => serde_json::to_value(payload),)+
                }
            }

            fn from_payload(
                kind: &str,
                payload: serde_json::Value,
            ) -> Option<Result<Self, serde_json::Error>> {
                match kind {
                    $($kind => Some(serde_json::from_value(payload).map(Self::$variant)),)+
                    _ => None,
                }
            }
        }
    };
}

pub(crate) use messages;
