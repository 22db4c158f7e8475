//! Rust sources as text without comments, string contents and tests: enough for checks that look for words.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Rust files below a directory, sorted; a missing directory has none.
pub(super) fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

pub(super) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// The source with comments and the contents of strings and characters replaced by blanks; lines stay lines.
pub(super) fn code(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = skip_token(bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    // Only whole comments and literals were replaced, so what remains is whole characters.
    String::from_utf8(out).unwrap_or_default()
}

/// End of the comment or literal that begins at `at`; `at` itself when none does.
fn skip_token(bytes: &[u8], at: usize) -> usize {
    let rest = &bytes[at..];
    let inside_word = at > 0 && is_word(bytes[at - 1]);
    if rest.starts_with(b"//") {
        return find(bytes, at, b"\n");
    }
    if rest.starts_with(b"/*") {
        return skip_block_comment(bytes, at);
    }
    match rest[0] {
        b'"' => skip_string(bytes, at + 1),
        b'r' | b'b' if !inside_word => skip_prefixed(bytes, at),
        b'\'' => skip_character(bytes, at),
        _ => at,
    }
}

fn skip_block_comment(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut at) = (1, at + 2);
    while at < bytes.len() && depth > 0 {
        let rest = &bytes[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
    }
    at
}

fn skip_string(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `b'…'`; anything else is an ordinary word.
fn skip_prefixed(bytes: &[u8], at: usize) -> usize {
    let mut next = at;
    let is_byte = bytes[next] == b'b';
    next += usize::from(is_byte);
    let is_raw = bytes.get(next) == Some(&b'r');
    next += usize::from(is_raw);
    let hashes = if is_raw { bytes[next..].iter().take_while(|byte| **byte == b'#').count() } else { 0 };
    next += hashes;
    match bytes.get(next) {
        Some(b'"') if is_raw => {
            let closing = [&b"\""[..], &vec![b'#'; hashes]].concat();
            (find(bytes, next + 1, &closing) + closing.len()).min(bytes.len())
        }
        Some(b'"') => skip_string(bytes, next + 1),
        Some(b'\'') if is_byte && !is_raw => skip_character(bytes, next),
        _ => at,
    }
}

/// A character literal; a lifetime is left alone.
fn skip_character(bytes: &[u8], at: usize) -> usize {
    if bytes.get(at + 1) == Some(&b'\\') {
        return (find(bytes, at + 3, b"'") + 1).min(bytes.len());
    }
    let width = match bytes.get(at + 1) {
        Some(0xf0..) => 4,
        Some(0xe0..) => 3,
        Some(0xc0..) => 2,
        _ => 1,
    };
    if bytes.get(at + 1 + width) == Some(&b'\'') { at + width + 2 } else { at }
}

/// The code with every item under `#[cfg(test)]` replaced by blanks.
pub(super) fn without_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(offset) = code[from..].find("#[cfg(test)]") {
        let begin = from + offset;
        let end = item_end(code.as_bytes(), begin + "#[cfg(test)]".len());
        for byte in &mut out[begin..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        from = end;
    }
    String::from_utf8(out).unwrap_or_default()
}

/// End of an item: its `;`, or the brace that closes its first one; both outside of parentheses and brackets.
pub(super) fn item_end(code: &[u8], from: usize) -> usize {
    let (mut nested, mut braces) = (0_i32, 0_i32);
    for (at, byte) in code.iter().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested -= 1,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces <= 0 && nested <= 0 {
                    return at + 1;
                }
            }
            b';' if braces == 0 && nested <= 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Byte offsets at which `word` stands alone; a pattern that begins or ends with punctuation matches as it is.
pub(super) fn occurrences<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let end = at + word.len();
        let free_before = *at == 0
            || !is_word(bytes[at - 1])
            || !word.as_bytes().first().is_some_and(|byte| is_word(*byte));
        let free_after = bytes.get(end).is_none_or(|byte| !is_word(*byte))
            || !word.as_bytes().last().is_some_and(|byte| is_word(*byte));
        free_before && free_after
    })
}

/// Number of the line, from 1, that holds a byte offset.
pub(super) fn line_of(code: &str, offset: usize) -> usize {
    code.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let from = from.min(bytes.len());
    bytes[from..]
        .windows(what.len())
        .position(|window| window == what)
        .map_or(bytes.len(), |offset| from + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_vanish_and_code_stays() {
        let text = "let a = \"tokio \\\" x\"; // tokio\n/* unsafe /* nested */ */ fn f<'a>(c: char) { g('\\'', 'x', b'\"', r#\"un\"safe\"#, br\"y\", 'é') }";
        let code = code(text);
        for gone in ["tokio", "unsafe", "nested", "un\"safe", "y\""] {
            assert!(!code.contains(gone), "{gone} in {code}");
        }
        for kept in ["let a =", "fn f<'a>(c: char) { g(", ") }"] {
            assert!(code.contains(kept), "{kept} not in {code}");
        }
        assert_eq!(code.matches('\n').count(), 1);
    }

    #[test]
    fn test_modules_vanish_and_what_follows_stays() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { [1; 2]; } }\nfn c() {}\n#[cfg(test)]\nmod other;\nfn d() {}";
        let code = without_tests(text);
        assert!(code.contains("fn a()") && code.contains("fn c()") && code.contains("fn d()"), "{code}");
        assert!(!code.contains("fn b()") && !code.contains("other"), "{code}");
        assert_eq!(line_of(&code, code.find("fn d").unwrap()), 7);
    }

    #[test]
    fn words_stand_alone() {
        let code = "unsafe_code unsafe{ tokio::x my_tokio std::fs::read";
        assert_eq!(occurrences(code, "unsafe").count(), 1);
        assert_eq!(occurrences(code, "tokio").count(), 1);
        assert_eq!(occurrences(code, "std::fs").count(), 1);
    }
}
