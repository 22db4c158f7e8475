//! `/etc/resolv.conf`: ours while the tunnel is up, the host's own before and after, crashes included.
//!
//! Order of work: the original (a file's content, or a symbolic link as such) is kept in our state directory
//! and on the disk *before* the path is touched. Our file starts with a magic line. So at any later moment
//! the two files tell what happened: magic line and original kept means that ours is in force; an original
//! without the magic line means that another program has written the path since, and its version stays.
//! Replacement is a rename; where the path is a mount point, as in containers, the file is rewritten in
//! place.

use std::fs::{self, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;

use super::{DnsControl, DnsControlError, DnsFuture, DnsSettings, MAX_SERVERS, ready};
use crate::atomic_file;

/// First line of a file that is ours.
const MAGIC: &str = "# Made by Adit while its tunnel is up.";

/// Controls one `resolv.conf`.
#[derive(Clone, Debug)]
pub struct ResolvConf {
    path: PathBuf,
    original: PathBuf,
}

/// What is at the path now.
enum Present {
    Ours,
    Foreign,
    Nothing,
}

impl ResolvConf {
    /// Controls `path`, normally `/etc/resolv.conf`, and keeps the original in `state_directory`.
    #[must_use]
    pub fn new(path: &Path, state_directory: &Path) -> Self {
        Self { path: path.to_owned(), original: state_directory.join("resolv.conf.original") }
    }

    fn fail(&self, action: &'static str) -> impl Fn(io::Error) -> DnsControlError {
        let path = self.path.clone();
        move |error| DnsControlError::File { action, path: path.clone(), error }
    }

    fn present(&self) -> Present {
        match fs::read(&self.path) {
            Ok(bytes) if bytes.starts_with(MAGIC.as_bytes()) => Present::Ours,
            // An empty file resolves nothing; it is what a crash between truncating and writing leaves.
            Ok(bytes) if bytes.is_empty() && self.has_original() => Present::Ours,
            Ok(_) => Present::Foreign,
            Err(_) if fs::symlink_metadata(&self.path).is_ok() => Present::Foreign, // a dangling link
            // Ours was in force and somebody has deleted it.
            Err(_) if self.has_original() => Present::Ours,
            Err(_) => Present::Nothing,
        }
    }

    fn has_original(&self) -> bool {
        fs::symlink_metadata(&self.original).is_ok()
    }

    /// The original's text: from the kept copy while ours is in force, else from the path.
    fn original_text(&self) -> String {
        let source = match self.present() {
            Present::Ours => match fs::read_link(&self.original) {
                // A relative link counts from where it was.
                Ok(target) => self.path.parent().unwrap_or(Path::new("/")).join(target),
                Err(_) => self.original.clone(),
            },
            Present::Foreign | Present::Nothing => self.path.clone(),
        };
        fs::read_to_string(source).unwrap_or_default()
    }

    fn keep_original(&self) -> io::Result<()> {
        if let Some(directory) = self.original.parent() {
            fs::create_dir_all(directory)?;
        }
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => remove_if_there(&self.original),
            Err(error) => Err(error),
            Ok(metadata) if metadata.is_symlink() => {
                replace_link(&fs::read_link(&self.path)?, &self.original)
            }
            Ok(metadata) => {
                let mode = metadata.permissions().mode() & 0o777;
                atomic_file::replace(&self.original, &fs::read(&self.path)?, mode)
            }
        }
    }

    fn restore(&self) -> io::Result<()> {
        match fs::symlink_metadata(&self.original) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => remove_if_there(&self.path)?, // there was no file
            Err(error) => return Err(error),
            Ok(metadata) if metadata.is_symlink() => {
                replace_link(&fs::read_link(&self.original)?, &self.path)?
            }
            Ok(metadata) => {
                let mode = metadata.permissions().mode() & 0o777;
                write_whole(&self.path, &fs::read(&self.original)?, mode)?;
            }
        }
        remove_if_there(&self.original)
    }

    fn take_back(&self) -> Result<(), DnsControlError> {
        match self.present() {
            Present::Ours => self.restore().map_err(self.fail("restore")),
            // Somebody else has written it since: theirs is newer than what we kept.
            Present::Foreign | Present::Nothing => {
                remove_if_there(&self.original).map_err(self.fail("forget the original of"))
            }
        }
    }

    fn compose(&self, settings: &DnsSettings) -> String {
        let original = self.original_text();
        let mut text = format!(
            "{MAGIC}\n# The original comes back when it stops; it is kept in {}.\n",
            self.original.display()
        );
        for server in settings.servers.iter().take(3) {
            text += &format!("nameserver {server}\n"); // resolvers read three at most
        }
        let mut search = settings.search.clone();
        search.extend(search_in(&original).into_iter().filter(|domain| !settings.search.contains(domain)));
        if !search.is_empty() {
            text += &format!("search {}\n", search.join(" "));
        }
        for options in directives(&original, "options") {
            text += &format!("options {options}\n");
        }
        text
    }
}

impl ResolvConf {
    fn put(&self, settings: &DnsSettings) -> Result<(), DnsControlError> {
        if settings.servers.is_empty() {
            return Err(DnsControlError::NoServers);
        }
        let text = self.compose(settings);
        if matches!(self.present(), Present::Foreign | Present::Nothing) {
            self.keep_original().map_err(self.fail("keep the original of"))?;
        }
        if fs::read(&self.path).is_ok_and(|now| now == text.as_bytes()) {
            return Ok(());
        }
        write_whole(&self.path, text.as_bytes(), 0o644).map_err(self.fail("write"))
    }
}

impl DnsControl for ResolvConf {
    fn apply<'a>(&'a mut self, settings: &'a DnsSettings) -> DnsFuture<'a, ()> {
        ready(self.put(settings))
    }

    fn clear(&mut self) -> DnsFuture<'_, ()> {
        ready(self.take_back())
    }

    fn recover(&mut self) -> DnsFuture<'_, ()> {
        ready(self.take_back())
    }

    fn upstreams(&mut self) -> BoxFuture<'_, Vec<IpAddr>> {
        Box::pin(std::future::ready(servers_in(&self.original_text())))
    }

    fn name(&self) -> &'static str {
        "resolv.conf"
    }
}

/// Replaces the file; in place where it is a mount point or its directory cannot be written.
fn write_whole(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let error = match atomic_file::replace(path, contents, mode) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    let in_place = matches!(
        error.raw_os_error(),
        Some(libc::EBUSY | libc::EXDEV | libc::EROFS | libc::EACCES | libc::EPERM)
    );
    // Never through a link: what it leads to belongs to another program and is not what we have kept.
    if !in_place || !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file()) {
        return Err(error);
    }
    // Write first and shorten after, so that the file is at no moment empty.
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(contents)?;
    file.set_len(contents.len() as u64)?;
    file.sync_all()
}

fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    let mut temporary = link.as_os_str().to_owned();
    temporary.push(".adit-new");
    let temporary = PathBuf::from(temporary);
    remove_if_there(&temporary)?;
    std::os::unix::fs::symlink(target, &temporary)?;
    fs::rename(&temporary, link)
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The values of all lines with this keyword.
fn directives<'a>(text: &'a str, keyword: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let (word, value) = line.trim().split_once(char::is_whitespace)?;
        (word == keyword).then(|| value.trim())
    })
}

/// The name servers of a `resolv.conf`; addresses with a zone (`fe80::1%eth0`) are left out.
pub(super) fn servers_in(text: &str) -> Vec<IpAddr> {
    directives(text, "nameserver").filter_map(|value| value.parse().ok()).take(MAX_SERVERS).collect()
}

/// The last `search` or `domain` line counts.
fn search_in(text: &str) -> Vec<String> {
    let mut domains = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("search" | "domain")) {
            domains = words.map(str::to_owned).collect();
        }
    }
    domains
}
