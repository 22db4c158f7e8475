//! Names of sign-in providers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A sign-in provider by the name that sessions and tokens carry, as `local` or `corp-sso`: 1 to
/// 32 small letters, digits and hyphens, a letter first.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProviderName(String);

/// The text is not the name of a provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a provider's name: small letters, digits and hyphens, a letter first, at most 32")]
pub struct ParseProviderError(String);

impl ProviderName {
    /// The longest name, in characters.
    const LONGEST: usize = 32;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProviderName {
    type Err = ParseProviderError;

    fn from_str(text: &str) -> Result<Self, ParseProviderError> {
        let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let begins = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        if begins && text.len() <= Self::LONGEST && text.bytes().all(is_allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseProviderError(text.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for ProviderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for ProviderName {
    type Error = ParseProviderError;

    fn try_from(text: String) -> Result<Self, ParseProviderError> {
        text.parse()
    }
}

impl From<ProviderName> for String {
    fn from(name: ProviderName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_can_stand_in_an_address_are_names() {
        for name in ["local", "corp-sso", "a1"] {
            assert_eq!(name.parse::<ProviderName>().unwrap().as_str(), name);
        }
        for wrong in ["", "1a", "-a", "Corp", "a b", "ä", "a/b", &"a".repeat(33)] {
            assert!(wrong.parse::<ProviderName>().is_err(), "{wrong}");
        }
    }
}
