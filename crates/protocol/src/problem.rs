//! Errors of the portal's HTTP interface: problem+json (RFC 9457) with a stable code.

use serde::{Deserialize, Serialize};

/// The media type of a [`Problem`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error of the portal's HTTP interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable, for programs: `invalid_token`, `not_found`, …
    pub code: String,
    /// One sentence for people.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What exactly went wrong, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The codes that end a session for good when they come with status 401.
pub const FINAL_CODES: [&str; 3] = ["invalid_token", "expired_token", "revoked_token"];

impl Problem {
    /// Whether the credentials are dead, so that trying again is useless.
    pub fn is_final(&self) -> bool {
        self.status == 401 && FINAL_CODES.contains(&self.code.as_str())
    }
}
