//! Profiles: several networks on one device at the same time.
//!
//! Each profile has a daemon, an identity, a tunnel and a socket of its own, so nothing that happens to one happens to
//! another. The one without a name is what most devices have.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use crate::status::{State, Status};

/// Where the daemon of the profile without a name listens, unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/adit/aditd.sock";

/// Where the daemons of the others listen, unless they are told otherwise.
pub const PROFILE_SOCKETS: &str = "/run/adit/profiles";

/// The name of a profile: 1 to 32 lower-case letters, digits and dashes, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Profile(String);

impl Profile {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where the daemon of a profile, or of the one without a name, listens unless it is told otherwise.
    #[must_use]
    pub fn default_socket(profile: Option<&Self>) -> PathBuf {
        match profile {
            None => PathBuf::from(DEFAULT_SOCKET),
            Some(Self(name)) => PathBuf::from(PROFILE_SOCKETS).join(format!("{name}.sock")),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A daemon of this device, as `adit profiles` lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProfileStatus {
    /// Its profile; absent for the one without a name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// What it is doing.
    pub state: State,
    /// The portal's URL.
    pub portal: String,
    /// The name of its tunnel interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Who is signed in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
}

impl From<Status> for ProfileStatus {
    fn from(status: Status) -> Self {
        let Status { profile, state, portal, interface, actor, .. } = status;
        Self { profile, state, portal, interface, actor }
    }
}

/// Text that names no profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a profile's name is 1 to 32 lower-case letters, digits and dashes, and begins with a letter")]
pub struct InvalidProfile;

impl FromStr for Profile {
    type Err = InvalidProfile;

    fn from_str(text: &str) -> Result<Self, InvalidProfile> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let begins_well = text.starts_with(|c: char| c.is_ascii_lowercase());
        let is_valid = begins_well && text.len() <= 32 && text.chars().all(is_plain);
        if is_valid { Ok(Self(text.to_owned())) } else { Err(InvalidProfile) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_a_file_and_an_instance_of_a_unit() {
        for name in ["work", "a", "customer-2"] {
            assert_eq!(name.parse::<Profile>().unwrap().as_str(), name);
        }
        for text in ["", "Work", "../x", "a b", "2nd", "-x", "ü", "a%n", &"a".repeat(33)] {
            assert_eq!(text.parse::<Profile>(), Err(InvalidProfile), "{text}");
        }
        let work = "work".parse().unwrap();
        assert_eq!(Profile::default_socket(Some(&work)), PathBuf::from("/run/adit/profiles/work.sock"));
        assert_eq!(Profile::default_socket(None), PathBuf::from(DEFAULT_SOCKET));
    }
}
