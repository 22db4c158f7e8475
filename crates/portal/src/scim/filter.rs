//! Filters and paths (RFC 7644, 3.4.2.2 and 3.5.2), as far as directories send them: `attribute eq "value"`, and for paths
//! `attribute`, `attribute.part`, `attribute[part eq "value"]` and `attribute[part eq "value"].part`, each with or without
//! the URN of its schema before it.

/// A comparison with `eq`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) attribute: String,
    pub(super) value: String,
}

/// Where a change is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Path {
    /// The schema, when it is one of those that add attributes.
    pub(super) extension: Option<String>,
    pub(super) attribute: String,
    pub(super) only: Option<Comparison>,
    pub(super) part: Option<String>,
}

/// The longest filter or path that is read.
const LONGEST: usize = 1000;

/// The schemas whose attributes stand in a resource itself.
const CORE: &str = "urn:ietf:params:scim:schemas:core:2.0:";

impl Comparison {
    /// Reads `attribute eq "value"`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > LONGEST {
            return None;
        }
        let (attribute, rest) = text.split_once(' ')?;
        let (operator, value) = rest.trim_start().split_once(' ')?;
        if !operator.eq_ignore_ascii_case("eq") || !is_name(attribute) {
            return None;
        }
        let value = match serde_json::from_str(value.trim()).ok()? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Bool(value) => value.to_string(),
            _ => return None,
        };
        Some(Self { attribute: attribute.to_owned(), value })
    }
}

impl Path {
    /// Reads a path.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.len() > LONGEST {
            return None;
        }
        let (extension, text) = split_schema(text);
        let (head, only, tail) = match text.split_once('[') {
            Some((head, rest)) => {
                let (filter, tail) = rest.rsplit_once(']')?;
                let part = match tail.strip_prefix('.') {
                    Some(part) => Some(part),
                    None if tail.is_empty() => None,
                    None => return None,
                };
                (head, Some(Comparison::parse(filter)?), part)
            }
            None => match text.split_once('.') {
                Some((head, part)) => (head, None, Some(part)),
                None => (text, None, None),
            },
        };
        if !is_name(head) || tail.is_some_and(|part| !is_name(part)) {
            return None;
        }
        Some(Self { extension, attribute: head.to_owned(), only, part: tail.map(str::to_owned) })
    }
}

/// Takes the URN of a schema off. A schema's name ends with `:User` or `:Group`; it may hold dots.
fn split_schema(text: &str) -> (Option<String>, &str) {
    if !text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("urn:")) {
        return (None, text);
    }
    let end = text.find('[').unwrap_or(text.len());
    let Some(colon) = text[..end].rfind(':') else { return (None, text) };
    let (schema, attribute) = (&text[..colon], &text[colon + 1..]);
    let is_core = schema.get(..CORE.len()).is_some_and(|start| start.eq_ignore_ascii_case(CORE));
    ((!is_core).then(|| schema.to_owned()), attribute)
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'$')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'$'))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts = (Option<String>, String, Option<(String, String)>, Option<String>);

    fn path(text: &str) -> Option<Parts> {
        let path = Path::parse(text)?;
        let only = path.only.map(|only| (only.attribute, only.value));
        Some((path.extension, path.attribute, only, path.part))
    }

    #[test]
    fn comparisons_are_read_as_directories_write_them() {
        for text in
            [r#"userName eq "Ana@corp""#, r#"userName EQ "Ana@corp""#, r#" userName  eq  "Ana@corp" "#]
        {
            let read = Comparison::parse(&text.replace("  ", " ")).unwrap();
            assert_eq!((read.attribute.as_str(), read.value.as_str()), ("userName", "Ana@corp"), "{text}");
        }
        let quoted = Comparison::parse(r#"displayName eq "a \"b\" c""#).unwrap();
        assert_eq!(quoted.value, r#"a "b" c"#);
        for wrong in [
            "",
            "userName",
            "userName eq",
            "userName sw \"a\"",
            "userName eq a",
            "user Name eq \"a\"",
            "eq \"a\"",
        ] {
            assert_eq!(Comparison::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn paths_are_read_as_directories_write_them() {
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(path("active"), Some((None, "active".to_owned(), None, None)));
        assert_eq!(path("name.givenName"), Some((None, "name".to_owned(), None, text("givenName"))));
        assert_eq!(
            path(r#"members[value eq "1"]"#),
            Some((None, "members".to_owned(), Some(("value".to_owned(), "1".to_owned())), None))
        );
        assert_eq!(
            path(r#"emails[type eq "work"].value"#),
            Some((None, "emails".to_owned(), Some(("type".to_owned(), "work".to_owned())), text("value")))
        );
        let enterprise = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
        assert_eq!(
            path(&format!("{enterprise}:department")),
            Some((text(enterprise), "department".to_owned(), None, None))
        );
        assert_eq!(
            path("urn:ietf:params:scim:schemas:core:2.0:User:name.familyName"),
            Some((None, "name".to_owned(), None, text("familyName")))
        );
        for wrong in ["", ".", "a.", "a[", "a[b eq \"c\"", "a]b[", "a[b]", "a[b eq \"c\"]d", "a b", "urn:"] {
            assert_eq!(Path::parse(wrong), None, "{wrong}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in ".{0,80}", inner in "[a-z:.\\[\\]\" eq]{0,40}") {
            let _ = (Path::parse(&text), Comparison::parse(&text), Path::parse(&inner), Comparison::parse(&inner));
        }
    }
}
