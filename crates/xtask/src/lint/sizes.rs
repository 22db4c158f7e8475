//! Files and functions that have outgrown a reader's patience.

use anyhow::Result;

use super::{Findings, source};
use crate::workspace::Workspace;

/// Lines at which a file should say why it is so long.
const FILE_NOTED: usize = 600;
/// Lines at which a file must be split.
const FILE_LIMIT: usize = 800;
/// Lines of a function that only a flat `match` may have.
const FUNCTION_NOTED: usize = 100;

pub(super) fn check(workspace: &Workspace) -> Result<Findings> {
    let mut findings = Findings::default();
    let (mut files, mut functions) = (Vec::new(), Vec::new());
    for package in workspace.own() {
        for path in source::rust_files(package.directory())? {
            let text = source::read(&path)?;
            let lines = text.lines().count();
            let shown = path.strip_prefix(&workspace.workspace_root).unwrap_or(&path).display().to_string();
            if lines > FILE_LIMIT {
                findings.fail(format!("{shown}: {lines} lines, more than {FILE_LIMIT}"));
            } else if lines > FILE_NOTED {
                findings.note(format!("{shown}: {lines} lines"));
            }
            files.push(lines);
            for (name, line, length) in function_lengths(&source::code(&text)) {
                if length > FUNCTION_NOTED {
                    findings.note(format!("{shown}:{line}: function {name} has {length} lines"));
                }
                functions.push(length);
            }
        }
    }
    files.sort_unstable();
    functions.sort_unstable();
    findings.note(format!(
        "{} files, median {} lines; {} functions, median {} lines, nine in ten up to {}, longest {}",
        files.len(),
        share(&files, 50),
        functions.len(),
        share(&functions, 50),
        share(&functions, 90),
        share(&functions, 100),
    ));
    Ok(findings)
}

/// The value below which `percent` of the sorted values lie.
fn share(sorted: &[usize], percent: usize) -> usize {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or(0)
}

/// Name, first line and number of lines of every function with a body.
fn function_lengths(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for at in source::occurrences(code, "fn") {
        let rest = code[at + 2..].trim_start();
        let name: String =
            rest.chars().take_while(|character| character.is_alphanumeric() || *character == '_').collect();
        let end = source::item_end(code.as_bytes(), at);
        let has_body = code[..end].ends_with('}');
        if !name.is_empty() && has_body {
            let (first, last) = (source::line_of(code, at), source::line_of(code, end));
            found.push((name, first, last - first + 1));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_from_their_name_to_their_brace() {
        let code = "trait T {\n    fn declared(&self) -> [u8; 4];\n}\nfn one() {}\npub fn three<F: Fn(u8)>(\n    f: F) {\n    f(1) }\nlet f: fn(u8) = g;\n";
        let expected = [("one".to_owned(), 4, 1), ("three".to_owned(), 5, 3)];
        assert_eq!(function_lengths(code), expected);
    }
}
