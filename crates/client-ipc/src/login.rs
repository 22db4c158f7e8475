//! Signing in with a browser, as front ends see it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::RequestError;

/// What somebody has to do to sign in. Only for those who may operate the client: whoever else knew it could
/// sign the device in as somebody else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LoginPrompt {
    /// Counts the sign-ins of this run of the daemon.
    pub id: u64,
    /// The page to show to people: to open on this machine without a user code, anywhere with one.
    pub url: String,
    /// A shortcut. Without a user code: an address on this machine that leads to the page once, and says nothing
    /// to those who see it on the browser's command line. With one: the page with the code filled in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_to_open: Option<String>,
    /// What to type there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_code: Option<String>,
    /// When it ends, in Unix milliseconds.
    pub expires_at_ms: u64,
}

impl fmt::Debug for LoginPrompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginPrompt").field("id", &self.id).finish_non_exhaustive()
    }
}

/// How a sign-in ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginEnd {
    /// The [`LoginPrompt::id`] of the sign-in.
    pub id: u64,
    /// Who is signed in now, if it worked and the portal said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Why it did not work; nothing if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RequestError>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_the_door_is_not_printed() {
        let prompt = LoginPrompt {
            id: 1,
            url: "https://portal.example/device?state=sesame".to_owned(),
            user_code: Some("SESA-MEEE".to_owned()),
            url_to_open: None,
            expires_at_ms: 0,
        };
        let text = format!("{prompt:?}").to_lowercase();
        assert!(!text.contains("sesa"), "{text}");
    }
}
