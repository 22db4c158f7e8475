//! Domain names as keys: lower case, without the trailing dot.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use domain::base::name::ToLabelIter;

/// Longest label in bytes (RFC 1035, 2.3.4).
pub(crate) const LONGEST_LABEL: usize = 63;
/// Longest name in characters without the trailing dot (255 bytes on the wire).
pub(crate) const LONGEST_NAME: usize = 253;

/// A domain name, compared without case; cheap to clone.
///
/// Bytes that are no printable ASCII, and dots and backslashes *inside* a label, appear as `\DDD` (RFC 1035, 5.1), so
/// that every name of the wire has one text and a dot always separates labels.
#[derive(Clone, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Name(Arc<str>);

/// Why text is no domain name.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum NameError {
    /// There is no label at all: the root is not a name that anyone can reach.
    #[error("a name is needed")]
    Empty,
    /// Two dots follow each other.
    #[error("a label is empty")]
    EmptyLabel,
    /// A label is longer than 63 characters.
    #[error("a label has at most 63 characters")]
    LabelTooLong,
    /// The name is longer than 253 characters.
    #[error("a name has at most 253 characters")]
    TooLong,
    /// A character that names do not hold in text form; other scripts are written as A-labels (`xn--`).
    #[error("{0:?} cannot stand in a name")]
    Character(char),
}

impl Name {
    /// The name in text, lower case, without trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels from the leftmost on.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether this name is `parent` or lies below it.
    pub fn is_within(&self, parent: &str) -> bool {
        self.0.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The name in a DNS message; none for the root.
    pub(crate) fn from_wire(name: &impl ToLabelIter) -> Option<Self> {
        let mut text = String::new();
        for label in name.iter_labels().filter(|label| !label.is_root()) {
            if !text.is_empty() {
                text.push('.');
            }
            for byte in label.as_slice() {
                push_byte(&mut text, *byte);
            }
        }
        (!text.is_empty()).then(|| Self(text.into()))
    }
}

fn push_byte(text: &mut String, byte: u8) {
    if byte.is_ascii_graphic() && byte != b'.' && byte != b'\\' {
        text.push(char::from(byte.to_ascii_lowercase()));
    } else {
        text.push_str(&format!("\\{byte:03}"));
    }
}

impl FromStr for Name {
    type Err = NameError;

    /// Reads a name as people write it; a trailing dot is dropped, escapes are not understood.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        check_lengths(text)?;
        match text.chars().find(|character| !character.is_ascii_graphic() || *character == '\\') {
            Some(character) => Err(NameError::Character(character)),
            None => Ok(Self(text.to_ascii_lowercase().into())),
        }
    }
}

/// Checks that `text` without trailing dot consists of labels of the right size.
pub(crate) fn check_lengths(text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > LONGEST_NAME {
        return Err(NameError::TooLong);
    }
    text.split('.').try_for_each(|label| match label.len() {
        0 => Err(NameError::EmptyLabel),
        1..=LONGEST_LABEL => Ok(()),
        _ => Err(NameError::LabelTooLong),
    })
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Result<Name, NameError> {
        text.parse()
    }

    #[test]
    fn case_and_the_trailing_dot_make_no_difference() {
        assert_eq!(name("WWW.Example.COM."), name("www.example.com"));
    }

    #[test]
    fn text_that_is_no_name_says_why() {
        assert_eq!(name(""), Err(NameError::Empty));
        assert_eq!(name("."), Err(NameError::Empty));
        assert_eq!(name("a..b"), Err(NameError::EmptyLabel));
        assert_eq!(name(&"a".repeat(64)), Err(NameError::LabelTooLong));
        assert_eq!(name(&"a.".repeat(127)), Ok(Name("a.".repeat(127)[..253].into())));
        assert_eq!(name(&"a.".repeat(128)), Err(NameError::TooLong));
        assert_eq!(name("bücher.example"), Err(NameError::Character('ü')));
        assert_eq!(name("a b"), Err(NameError::Character(' ')));
    }

    #[test]
    fn a_name_lies_within_its_parents_only() {
        let www = name("www.example.com").expect("valid");
        assert!(www.is_within("example.com") && www.is_within("www.example.com"));
        assert!(!www.is_within("ample.com") && !www.is_within("x.www.example.com"));
    }

    #[test]
    fn odd_bytes_of_the_wire_cannot_pretend_to_be_a_separator() {
        let wire =
            domain::base::Name::<Vec<u8>>::from_octets(b"\x05a.b\\\0\x04Corp\0".to_vec()).expect("valid");
        let name = Name::from_wire(&wire).expect("not the root");
        assert_eq!(name.as_str(), "a\\046b\\092\\000.corp");
        assert_eq!(name.labels().count(), 2);
    }
}
