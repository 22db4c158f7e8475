//! Pure crates read no clock, draw no ambient randomness and touch nothing outside.

use anyhow::Result;

use super::{Findings, layers, source};
use crate::workspace::Workspace;

/// Words that have no place in a pure crate, and what they would bring in.
const FORBIDDEN: &[(&str, &str)] = &[
    ("Instant::now", "a clock read"),
    ("SystemTime::now", "a clock read"),
    (".elapsed()", "a clock read"),
    ("rand::rng", "ambient randomness"),
    ("rand::random", "ambient randomness"),
    ("thread_rng", "ambient randomness"),
    ("OsRng", "ambient randomness"),
    ("from_os_rng", "ambient randomness"),
    ("from_entropy", "ambient randomness"),
    ("getrandom", "ambient randomness"),
    ("fastrand", "ambient randomness"),
    ("SystemRandom", "ambient randomness"),
    ("aws_lc_rs::rand", "ambient randomness"),
    ("UdpSocket", "a socket"),
    ("TcpStream", "a socket"),
    ("TcpListener", "a socket"),
    ("UnixStream", "a socket"),
    ("ToSocketAddrs", "name resolution"),
    ("std::fs", "a file"),
    ("std::thread", "a thread"),
    ("thread::spawn", "a thread"),
    ("thread::sleep", "a thread"),
    ("std::process", "a process"),
    ("std::env", "the environment"),
    ("println!", "output"),
    ("eprintln!", "output"),
    ("tokio", "an async runtime"),
    ("unsafe", "unsafe code"),
];

pub(super) fn check(workspace: &Workspace) -> Result<Findings> {
    let mut findings = Findings::default();
    for name in layers::pure() {
        let Some(package) = workspace.own().find(|package| package.name == format!("adit-{name}")) else {
            continue;
        };
        let sources = package.directory().join("src");
        for path in source::rust_files(&sources)? {
            let text = source::read(&path)?;
            let shown = path.strip_prefix(&workspace.workspace_root).unwrap_or(&path).display().to_string();
            findings.failures.extend(check_text(&text).map(|reason| format!("{shown}:{reason}")));
            if path == sources.join("lib.rs") && !text.contains("#![forbid(unsafe_code)]") {
                findings.fail(format!("{shown}: a pure crate says #![forbid(unsafe_code)]"));
            }
        }
    }
    Ok(findings)
}

fn check_text(text: &str) -> impl Iterator<Item = String> {
    let code = source::without_tests(&source::code(text));
    let mut found: Vec<(usize, String)> = Vec::new();
    for (word, brings) in FORBIDDEN {
        for at in source::occurrences(&code, word) {
            let line = source::line_of(&code, at);
            found.push((line, format!("{line}: `{word}` brings in {brings}")));
        }
    }
    found.sort();
    found.into_iter().map(|(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impure_words_are_found_outside_of_tests_and_comments() {
        let text = "#![forbid(unsafe_code)]\n// std::fs is absent\nfn f() { let now = Instant::now(); }\n\
            #[cfg(test)]\nmod tests { fn t() { std::thread::spawn(|| Instant::now()); } }\nuse tokio::net;\n";
        let found: Vec<String> = check_text(text).collect();
        assert_eq!(
            found,
            ["3: `Instant::now` brings in a clock read", "6: `tokio` brings in an async runtime"]
        );
    }
}
