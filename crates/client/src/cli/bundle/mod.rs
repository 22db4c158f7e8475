//! `adit debug bundle`: what somebody who helps needs to see, in one file, and nothing that they must not.
//!
//! Every part is gathered with a time limit; one that cannot be had says why in its place. `--preview` shows what
//! would be in it without writing.

mod redact;

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use adit_client_ipc::{FrontEnd, ResourceStatus, Status};
use anyhow::Context as _;
use serde_json::json;
use zip::write::SimpleFileOptions;

pub(super) use self::redact::Redaction;
use self::redact::Redactor;
use super::exit::Failure;
use super::progress::Progress;
use super::render;

/// How long one program may take to say something.
const GATHER_WITHIN: Duration = Duration::from_secs(5);

/// At most so much of each file, its end.
const MOST_BYTES: u64 = 8 * 1024 * 1024;

/// Programs whose words help.
const COMMANDS: [(&str, &[&str]); 7] = [
    ("addresses.txt", &["ip", "address"]),
    ("routes.txt", &["ip", "route", "show", "table", "all"]),
    ("routes6.txt", &["ip", "-6", "route", "show", "table", "all"]),
    ("rules.txt", &["ip", "rule"]),
    ("rules6.txt", &["ip", "-6", "rule"]),
    ("resolved.txt", &["resolvectl", "status", "--no-pager"]),
    ("kernel.txt", &["uname", "-a"]),
];

/// Files that help.
const FILES: [(&str, &str); 5] = [
    ("resolv.conf", "/etc/resolv.conf"),
    ("nsswitch.conf", "/etc/nsswitch.conf"),
    ("os-release", "/etc/os-release"),
    ("sysctl/rp_filter", "/proc/sys/net/ipv4/conf/all/rp_filter"),
    ("sysctl/ipv6_disabled", "/proc/sys/net/ipv6/conf/all/disable_ipv6"),
];

/// What is asked for.
pub(super) struct Wish<'a> {
    pub(super) output: &'a Path,
    pub(super) redaction: Redaction,
    pub(super) preview: bool,
    pub(super) json: bool,
}

struct Part {
    name: String,
    text: String,
}

/// Gathers, redacts, and writes or shows.
pub(super) async fn bundle(daemon: Option<&mut FrontEnd>, wish: Wish<'_>) -> Result<(), Failure> {
    let progress = Progress::start(wish.json, "Asking the daemon");
    let known = match daemon {
        Some(daemon) => {
            // Whoever helps must not be able to sign this device in.
            let status = Status { login: None, ..super::fetch_status(daemon).await? };
            Some((status, super::fetch_resources(daemon).await?))
        }
        None => None,
    };
    let mut parts = gather(known.as_ref(), &progress).await?;
    progress.stage("Redacting");
    let mut redactor = Redactor::new(wish.redaction, words(known.as_ref()));
    for part in &mut parts {
        part.text = redactor.apply(&part.text);
    }
    parts.push(manifest(&parts, wish.redaction));
    if wish.preview {
        drop(progress);
        let list = parts.iter().map(|part| format!("{:>9}  {}\n", part.text.len(), part.name));
        return super::print(&list.collect::<String>());
    }
    let path = wish.output;
    progress.stage("Writing the bundle");
    write(path, &parts).with_context(|| format!("cannot write {}", path.display()))?;
    drop(progress);
    super::print(&if wish.json {
        render::json(&json!({ "file": path.display().to_string() }))?
    } else {
        format!("Wrote {}. Look at it before you send it to anybody.\n", path.display())
    })
}

/// Names of people, machines and resources.
fn words(known: Option<&(Status, Vec<ResourceStatus>)>) -> Vec<(String, &'static str)> {
    let mut words = Vec::new();
    if let Ok(name) = nix::unistd::gethostname() {
        words.push((name.to_string_lossy().into_owned(), "host"));
    }
    let Some((status, resources)) = known else { return words };
    words.extend(status.actor.clone().map(|actor| (actor, "actor")));
    let portal = url::Url::parse(&status.portal).ok();
    words.extend(portal.and_then(|url| Some((url.host_str()?.to_owned(), "portal"))));
    words.extend(status.connections.iter().map(|connection| (connection.name.clone(), "gateway")));
    for resource in resources {
        words.push((resource.name.clone(), "resource"));
        words.push((resource.address.trim_start_matches(['*', '.']).to_owned(), "address"));
        words.push((resource.site.clone(), "site"));
    }
    words
}

async fn gather(
    known: Option<&(Status, Vec<ResourceStatus>)>,
    progress: &Progress,
) -> anyhow::Result<Vec<Part>> {
    progress.stage("Reading the log");
    let mut parts = Vec::new();
    let mut add = |name: &str, text: String| parts.push(Part { name: name.to_owned(), text });
    if let Some((status, resources)) = known {
        add("status.json", render::json(status)?);
        add("resources.json", render::json_list("resources", resources)?);
        for (name, text) in logs(Path::new(&status.log_directory)) {
            add(&name, text);
        }
    } else {
        add("status.json", "the daemon cannot be reached\n".to_owned());
    }
    for (name, words) in COMMANDS {
        progress.stage(format!("Running `{}`", words.join(" ")));
        add(name, output(words).await);
    }
    for (name, path) in FILES {
        add(name, tail(Path::new(path)));
    }
    Ok(parts)
}

fn logs(directory: &Path) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return vec![("logs/absent".to_owned(), format!("{} cannot be read\n", directory.display()))];
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut logs: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort();
    let name = |path: &Path| format!("logs/{}", path.file_name().unwrap_or_default().to_string_lossy());
    logs.iter().map(|path| (name(path), tail(path))).collect()
}

/// The end of a file, or why it cannot be read.
fn tail(path: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = || -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(MOST_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().unwrap_or_else(|error| format!("cannot be read: {error}\n"))
}

/// What a program says, or why it says nothing.
async fn output(words: &[&str]) -> String {
    let Some((program, arguments)) = words.split_first() else { return String::new() };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(GATHER_WITHIN, command.output()).await {
        Err(_) => "it does not end\n".to_owned(),
        Ok(Err(error)) => format!("cannot be started: {error}\n"),
        Ok(Ok(output)) => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            String::from_utf8_lossy(&output.stdout).into_owned() + &errors
        }
    }
}

fn manifest(parts: &[Part], redaction: Redaction) -> Part {
    let files: Vec<_> =
        parts.iter().map(|part| json!({ "name": part.name, "bytes": part.text.len() })).collect();
    let manifest = json!({
        "schema": adit_client_ipc::SCHEMA,
        "adit": env!("CARGO_PKG_VERSION"),
        "redaction": if redaction == Redaction::Strict { "strict" } else { "tokens-only" },
        "files": files,
    });
    Part { name: "manifest.json".to_owned(), text: format!("{manifest:#}\n") }
}

/// Writes beside the name first: a bundle is there whole or not at all.
fn write(path: &Path, parts: &[Part]) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let partial = path.with_extension("partial");
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    let mut archive = zip::ZipWriter::new(file);
    for part in parts {
        archive.start_file(format!("adit-debug/{}", part.name), SimpleFileOptions::default())?;
        archive.write_all(part.text.as_bytes())?;
    }
    archive.finish()?.sync_all()?;
    Ok(std::fs::rename(&partial, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_that_cannot_be_had_says_why() {
        assert!(output(&["/nowhere/program"]).await.contains("cannot be started"));
        assert!(tail(Path::new("/nowhere/file")).contains("cannot be read"));
    }

    #[test]
    fn a_bundle_can_be_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bundle.zip");
        let mut parts = vec![Part { name: "a.txt".to_owned(), text: "hello\n".to_owned() }];
        parts.push(manifest(&parts, Redaction::Strict));
        write(&path, &parts).unwrap();
        let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut archive.by_name("adit-debug/a.txt").unwrap(), &mut text).unwrap();
        assert_eq!(text, "hello\n");
        assert!(archive.by_name("adit-debug/manifest.json").is_ok());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no partial file");
    }
}
