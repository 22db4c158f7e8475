//! Patterns that name DNS resources.
//!
//! A pattern is a name in which some labels are wild:
//!
//! - `*` stands for exactly one label: `*.corp` matches `wiki.corp`, not `corp`, not `a.wiki.corp`.
//! - `**` stands for any number of labels, *none included*: `**.corp` matches `corp`, `wiki.corp` and `a.wiki.corp`.
//! - `?` stands for one character of a label: `db-?.corp` matches `db-1.corp`, not `db-.corp`.
//!
//! `*` and `**` replace whole labels. When several patterns match a name, the most specific wins: labels are compared
//! from the right, and a literal label comes before one with `?` (fewer of them first), before `*`, before `**`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::name::{Name, NameError, check_lengths};

/// A name pattern; see the module for its syntax.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Pattern {
    text: String,
}

/// Why text is no pattern.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// It would not even be a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A star is part of a label.
    #[error("`*` and `**` stand for whole labels")]
    PartialStar,
}

/// One label of a pattern.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum LabelPattern<'a> {
    /// Exactly this label.
    Literal(&'a str),
    /// This label, each `?` being any character.
    Template(&'a str),
    /// Exactly one label.
    Any,
    /// Any number of labels.
    AnyDepth,
}

impl<'a> LabelPattern<'a> {
    fn new(label: &'a str) -> Self {
        match label {
            "*" => Self::Any,
            "**" => Self::AnyDepth,
            _ if label.contains('?') => Self::Template(label),
            _ => Self::Literal(label),
        }
    }

    /// Order of specificity; [`END`] lies between the two stars.
    fn rank(self) -> u8 {
        match self {
            Self::Literal(_) => u8::MAX,
            Self::Template(label) => u8::MAX - 1 - label.bytes().filter(|byte| *byte == b'?').count() as u8,
            Self::Any => END + 1,
            Self::AnyDepth => END - 1,
        }
    }
}

/// Rank of "no more labels": `corp` is more specific than `**.corp`, `*.x.**.corp` more than `**.corp`.
const END: u8 = 1;

impl Pattern {
    /// The pattern in text, lower case, without trailing dot.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The labels from the right, neighbouring `**` merged into one.
    pub(crate) fn labels_from_right(&self) -> impl Iterator<Item = LabelPattern<'_>> {
        let mut after_any_depth = false;
        self.text.rsplit('.').map(LabelPattern::new).filter(move |label| {
            let repeats = after_any_depth && *label == LabelPattern::AnyDepth;
            after_any_depth = *label == LabelPattern::AnyDepth;
            !repeats
        })
    }

    /// Whether `name` is among the names that the pattern stands for.
    ///
    /// For one pattern; many are looked up together in a [`PatternIndex`](crate::PatternIndex).
    pub fn matches(&self, name: &Name) -> bool {
        let mut index = crate::PatternIndex::default();
        index.insert(self, ());
        index.find(name).next().is_some()
    }

    /// Orders patterns that match the same name: the more specific one is the greater.
    pub fn cmp_specificity(&self, other: &Self) -> Ordering {
        let rank = |pattern: &'_ Self| -> Vec<u8> {
            pattern.labels_from_right().map(LabelPattern::rank).chain([END]).collect()
        };
        rank(self).cmp(&rank(other))
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        check_lengths(text)?;
        if let Some(character) =
            text.chars().find(|character| !character.is_ascii_graphic() || *character == '\\')
        {
            return Err(NameError::Character(character).into());
        }
        if text.split('.').any(|label| label.contains('*') && label != "*" && label != "**") {
            return Err(PatternError::PartialStar);
        }
        Ok(Self { text: text.to_ascii_lowercase() })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.text)
    }
}
