//! Scopes: what an API token may be used for, always within what the role of its actor allows at the moment.
//!
//! `read` and `write` are for everything, `sites:read` or `policies:write` for one noun. Who may write may read. A token
//! without scopes is for everything.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

use super::Failure;

/// The nouns that scopes name: the first part of the paths below `/api/v1`.
pub(super) const NOUNS: [&str; 16] = [
    "actors",
    "audit",
    "authorizations",
    "devices",
    "explain",
    "flows",
    "gateways",
    "groups",
    "policies",
    "providers",
    "relays",
    "resources",
    "sessions",
    "settings",
    "sites",
    "tokens",
];

/// One thing that a token may be used for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Scope {
    /// Everything when absent.
    noun: Option<&'static str>,
    writes: bool,
}

impl Scope {
    /// To read or write one noun, or everything.
    pub(super) const fn new(noun: Option<&'static str>, writes: bool) -> Self {
        Self { noun, writes }
    }

    /// Whether it is for changes.
    pub(super) const fn writes(&self) -> bool {
        self.writes
    }

    /// Whether who has this may do what `other` is for.
    fn covers(&self, other: &Self) -> bool {
        (self.noun.is_none() || self.noun == other.noun) && (self.writes || !other.writes)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.writes { "write" } else { "read" };
        match self.noun {
            Some(noun) => write!(f, "{noun}:{access}"),
            None => f.write_str(access),
        }
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{}` is no scope; write read, write, or sites:read", text.escape_debug());
        let (noun, access) = match text.split_once(':') {
            Some((noun, access)) => {
                (Some(NOUNS.into_iter().find(|known| *known == noun).ok_or_else(wrong)?), access)
            }
            None => (None, text),
        };
        match access {
            "read" => Ok(Self::new(noun, false)),
            "write" => Ok(Self::new(noun, true)),
            _ => Err(wrong()),
        }
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.chars().take(64).collect::<String>().parse().map_err(serde::de::Error::custom)
    }
}

/// What one token may be used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scopes(Option<BTreeSet<Scope>>);

impl Scopes {
    /// From what is stored with a token; what cannot be read allows nothing.
    pub(super) fn stored(text: Option<&str>) -> Self {
        Self(text.map(|text| text.split_whitespace().filter_map(|scope| scope.parse().ok()).collect()))
    }

    /// From what somebody asks for a new token.
    pub(super) fn wanted(scopes: Option<Vec<Scope>>) -> Result<Self, Failure> {
        let scopes: Option<BTreeSet<Scope>> = scopes.map(|scopes| scopes.into_iter().collect());
        if scopes.as_ref().is_some_and(BTreeSet::is_empty) {
            return Err(Failure::invalid("a token without any scope would be good for nothing"));
        }
        Ok(Self(scopes))
    }

    /// What is stored with a token.
    pub(super) fn text(&self) -> Option<String> {
        let scopes = self.0.as_ref()?;
        Some(scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    /// Whether they allow it.
    pub(super) fn allow(&self, scope: &Scope) -> bool {
        self.0.as_ref().is_none_or(|scopes| scopes.iter().any(|own| own.covers(scope)))
    }

    /// Whether they allow everything that `others` allow.
    pub(super) fn cover(&self, others: &Self) -> bool {
        match &others.0 {
            Some(others) => others.iter().all(|scope| self.allow(scope)),
            None => self.0.as_ref().is_none_or(|own| own.contains(&Scope::new(None, true))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &str) -> Scopes {
        Scopes::stored(Some(text))
    }

    #[test]
    fn who_may_write_may_read_and_no_noun_means_all() {
        for (has, asks, allowed) in [
            ("read", "sites:read", true),
            ("read", "sites:write", false),
            ("write", "sites:write", true),
            ("sites:write", "sites:read", true),
            ("sites:write", "policies:read", false),
            ("sites:read policies:write", "policies:write", true),
            ("sites:read", "read", false),
            ("", "sites:read", false),
            ("nonsense", "sites:read", false),
        ] {
            assert_eq!(scopes(has).allow(&asks.parse().unwrap()), allowed, "{has} for {asks}");
        }
        assert!(Scopes::stored(None).allow(&"write".parse().unwrap()));
    }

    #[test]
    fn nobody_hands_out_more_than_they_have() {
        for (has, gives, may) in [
            (None, None, true),
            (None, Some("write"), true),
            (Some("write"), None, true),
            (Some("read"), None, false),
            (Some("tokens:write"), Some("tokens:read"), true),
            (Some("tokens:write"), Some("read"), false),
            (Some("tokens:write"), None, false),
        ] {
            assert_eq!(Scopes::stored(has).cover(&Scopes::stored(gives)), may, "{has:?} {gives:?}");
        }
    }

    #[test]
    fn scopes_are_written_as_they_are_read() {
        for text in ["read", "write", "sites:read", "tokens:write"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for wrong in ["", "sites", "sites:own", "site:read", ":read", "read:", "READ"] {
            assert!(wrong.parse::<Scope>().is_err(), "{wrong}");
        }
    }
}
