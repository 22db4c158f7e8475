//! No crate and no module is named after nothing in particular.

use std::path::Path;

use anyhow::Result;

use super::{Findings, source};
use crate::workspace::Workspace;

const FORBIDDEN: &[&str] =
    &["util", "utils", "utility", "common", "shared", "core", "helper", "helpers", "misc", "types"];

pub(super) fn check(workspace: &Workspace) -> Result<Findings> {
    let mut findings = Findings::default();
    for package in workspace.own() {
        if is_forbidden(package.name.trim_start_matches("adit-")) {
            findings.fail(format!("crate {}", package.name));
        }
        for path in source::rust_files(&package.directory().join("src"))? {
            let shown = path.strip_prefix(&workspace.workspace_root).unwrap_or(&path).display();
            if let Some(name) = module_name(&path).filter(|name| is_forbidden(name)) {
                findings.fail(format!("{shown}: module {name}"));
            }
            for name in inline_modules(&source::code(&source::read(&path)?)).filter(|name| is_forbidden(name))
            {
                findings.fail(format!("{shown}: inline module {name}"));
            }
        }
    }
    Ok(findings)
}

fn is_forbidden(name: &str) -> bool {
    FORBIDDEN.contains(&name)
}

/// `src/a/b.rs` and `src/a/b/mod.rs` are both module `b`.
fn module_name(path: &Path) -> Option<&str> {
    let stem = path.file_stem()?.to_str()?;
    if stem == "mod" { path.parent()?.file_name()?.to_str() } else { Some(stem) }
}

fn inline_modules(code: &str) -> impl Iterator<Item = &str> {
    source::occurrences(code, "mod").filter_map(|at| {
        let rest = code[at + 3..].trim_start();
        let name = rest.split(|character: char| !character.is_alphanumeric() && character != '_').next()?;
        rest[name.len()..].trim_start().starts_with('{').then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_by_file_and_by_block() {
        assert_eq!(module_name(Path::new("src/a/util.rs")), Some("util"));
        assert_eq!(module_name(Path::new("src/misc/mod.rs")), Some("misc"));
        let code = "mod a;\npub(crate) mod types { }\nmod tests {}";
        assert_eq!(inline_modules(code).collect::<Vec<_>>(), ["types", "tests"]);
        assert!(is_forbidden("types") && !is_forbidden("session"));
    }
}
