//! Packages of Debian's newest suite, unpacked and not installed, with apt's own client.
//!
//! apt gets a directory of its own for its lists and its state, so that the machine's stay as they are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

const SUITE: &str = "sid";
const USUAL_MIRROR: &str = "http://deb.debian.org/debian";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked package.
#[derive(Debug)]
pub(super) struct Package {
    directory: PathBuf,
    /// Version, and where it comes from.
    pub(super) version: String,
}

impl Package {
    /// One of its files.
    ///
    /// # Errors
    /// When it has none at this path.
    pub(super) fn program(&self, path: &str) -> Result<PathBuf> {
        let program = self.directory.join(path);
        ensure!(program.is_file(), "the package has no {path}");
        Ok(program)
    }

    /// How to start one of its files with the libraries that were unpacked with it: the suite's own dynamic linker, told
    /// where to look.
    ///
    /// # Errors
    /// When the file or the linker is not there.
    pub(super) fn launcher(&self, path: &str) -> Result<Vec<PathBuf>> {
        let program = self.program(path)?;
        let libraries = fs::read_dir(self.directory.join("usr/lib")).context("no libraries were unpacked")?;
        for directory in libraries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()) {
            let files = fs::read_dir(&directory)?.flatten().map(|entry| entry.path());
            let is_linker = |file: &PathBuf| {
                file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux"))
            };
            if let Some(linker) = files.into_iter().find(is_linker) {
                return Ok(vec![linker, "--library-path".into(), directory, program]);
            }
        }
        bail!("no dynamic linker was unpacked")
    }
}

/// Fetches and unpacks a package below `cache`, unless it is there already.
///
/// # Errors
/// When apt cannot get it.
pub(super) fn unpack(name: &str, cache: &Path) -> Result<Package> {
    unpack_by(name, cache, "download")
}

/// The same with every package that it depends on, for a program that needs newer libraries than this machine has; see
/// [`Package::launcher`].
///
/// # Errors
/// When apt cannot get them.
pub(super) fn unpack_with_libraries(name: &str, cache: &Path) -> Result<Package> {
    unpack_by(name, cache, "install")
}

fn unpack_by(name: &str, cache: &Path, verb: &str) -> Result<Package> {
    let root = cache.join(SUITE);
    let directory = root.join(name);
    let version_file = root.join(format!("{name}.version"));
    if let Ok(version) = fs::read_to_string(&version_file) {
        return Ok(Package { directory, version });
    }
    println!("fetching {name} of Debian {SUITE}, once");
    let archives = download(name, &root, verb)?;
    let own = archives.iter().find(|archive| is_archive_of(name, archive));
    let own = own.with_context(|| format!("apt-get {verb} {name} left no archive"))?;
    for archive in &archives {
        run(Command::new("dpkg-deb").arg("-x").arg(archive).arg(&directory))?;
    }
    let version = run(Command::new("dpkg-deb").arg("-f").arg(own).arg("Version"))?;
    let version = format!("{} (Debian {SUITE})", version.trim());
    for archive in &archives {
        fs::remove_file(archive)?;
    }
    // Last, since it says that all is there.
    fs::write(&version_file, &version)?;
    Ok(Package { directory, version })
}

/// The version of a package that is installed on this machine.
///
/// # Errors
/// When it is not installed.
pub(super) fn installed_version(name: &str) -> Result<String> {
    let version = run(Command::new("dpkg-query").args(["-W", "-f", "${Version}", name]))?;
    Ok(version.trim().to_owned())
}

/// Fetches a package, or with `install` that and what it depends on; the archives.
fn download(name: &str, root: &Path, verb: &str) -> Result<Vec<PathBuf>> {
    let configuration = configure(root)?;
    let directory = root.join("cache/archives");
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        run(command.args(["-qq"]).args(arguments).current_dir(&directory).env("APT_CONFIG", &configuration))
    };
    apt(&["update"])?;
    match verb {
        // Nothing is installed in this apt's eyes, so everything is fetched.
        "install" => apt(&["install", "--yes", "--no-install-recommends", "--download-only", name])?,
        _ => apt(&["download", name])?,
    };
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    Ok(fs::read_dir(&directory)?.flatten().map(|entry| entry.path()).filter(is_archive).collect())
}

fn is_archive_of(name: &str, archive: &Path) -> bool {
    let file = archive.file_name().unwrap_or_default().to_string_lossy();
    file.starts_with(&format!("{name}_"))
}

/// An apt that knows this suite alone and keeps everything below `root`.
fn configure(root: &Path) -> Result<PathBuf> {
    for directory in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(root.join(directory))?;
    }
    let mirror = mirror().unwrap_or_else(|| USUAL_MIRROR.to_owned());
    let sources = root.join("sources.list");
    fs::write(&sources, format!("deb [signed-by={KEYRING}] {mirror} {SUITE} main\n"))?;
    let configuration = root.join("apt.conf");
    let root = root.display();
    let text = format!(
        "Dir::Etc::sourcelist \"{}\";
Dir::Etc::sourceparts \"/dev/null\";
Dir::State::Lists \"{root}/lists\";
Dir::State::status \"/dev/null\";
Dir::Cache \"{root}/cache\";
APT::Sandbox::User \"root\";
",
        sources.display()
    );
    fs::write(&configuration, text)?;
    Ok(configuration)
}

/// The mirror that this machine uses for its own packages.
fn mirror() -> Option<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let more = fs::read_dir("/etc/apt/sources.list.d").ok().into_iter().flatten().flatten();
    files.extend(more.map(|entry| entry.path()));
    files.iter().find_map(|file| mirror_in(&fs::read_to_string(file).ok()?))
}

/// The first archive of Debian's own named in either of apt's formats.
fn mirror_in(sources: &str) -> Option<String> {
    let is_archive = |word: &&str| word.contains("://") && word.trim_end_matches('/').ends_with("/debian");
    let lines =
        sources.lines().map(str::trim).filter(|line| line.starts_with("URIs:") || line.starts_with("deb "));
    lines.flat_map(str::split_whitespace).find(is_archive).map(str::to_owned)
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = complaint.lines().rev().take(4).collect();
        bail!("{command:?} ended with {}: {}", output.status, lines.join("; "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_formats() {
        let new =
            "Types: deb\n# http://snapshot.example/debian\nURIs: http://deb.example/debian/\nSuites: x\n";
        let old = "# deb cdrom:[x]/ y\ndeb http://security.example/debian-security s main\n\
            deb [arch=amd64] https://mirror.example/debian stable main\n";
        assert_eq!(mirror_in(new).as_deref(), Some("http://deb.example/debian/"));
        assert_eq!(mirror_in(old).as_deref(), Some("https://mirror.example/debian"));
        assert_eq!(mirror_in("deb https://other.example/node x main\n# nothing\n"), None);
    }
}
