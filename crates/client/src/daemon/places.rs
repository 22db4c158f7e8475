//! Where a daemon keeps things: that of a profile beside the others, and never among theirs.
//!
//! Several daemons on one host need different sockets, interfaces, routing tables and proxy addresses. All but the socket
//! follow from a number. The daemon without a profile has number 0; a profile takes the lowest free one at its first
//! start and keeps it, so that what a crashed daemon left is found again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use adit_client_ipc::Profile;
use adit_engine::client::Place;
use adit_platform::network::{PROFILES, default_interface};
use adit_platform::settings::Setting;
use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};

use super::arguments::Arguments;

/// Holds a profile's number.
const NUMBER: &str = "number";

/// Where one daemon keeps what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Places {
    /// What all daemons of the host share.
    pub(super) shared: PathBuf,
    /// Identity, token and what was changed on the host.
    pub(super) state: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) log: PathBuf,
}

impl Places {
    pub(super) fn of(arguments: &Arguments) -> Self {
        let (shared, log) = (arguments.state_dir.clone(), arguments.log_dir.clone());
        let profile = arguments.profile.as_ref();
        let socket = arguments.socket.clone().unwrap_or_else(|| Profile::default_socket(profile));
        match profile {
            None => Self { state: shared.clone(), shared, socket, log },
            Some(profile) => {
                let state = profiles(&shared).join(profile.as_str());
                Self { state, shared, socket, log: log.join(profile.as_str()) }
            }
        }
    }

    /// What the engine needs to know of the other daemons.
    pub(super) fn place(&self, profile: Option<&Profile>) -> anyhow::Result<Place> {
        let number = match profile {
            None => 0,
            Some(profile) => number_of(&profiles(&self.shared), profile)
                .with_context(|| format!("cannot find a place for the profile {profile}"))?,
        };
        Ok(Place { number, delegations: self.shared.join("resolver") })
    }

    /// Shows what follows from the profile where nobody decided otherwise.
    pub(super) fn complete(&self, settings: &mut [Setting], interface: &str) {
        for setting in settings.iter_mut().filter(|setting| setting.value.is_none()) {
            match setting.name.as_str() {
                "socket" => setting.value = Some(self.socket.display().to_string()),
                "interface" => setting.value = Some(interface.to_owned()),
                _ => {}
            }
        }
    }
}

/// What the interface is called.
pub(super) fn interface(arguments: &Arguments, place: &Place) -> String {
    arguments.interface.clone().unwrap_or_else(|| default_interface(place.number))
}

fn profiles(shared: &Path) -> PathBuf {
    shared.join("profiles")
}

/// The number of a profile; it gets one if it has none.
fn number_of(directory: &Path, profile: &Profile) -> anyhow::Result<u8> {
    let own = directory.join(profile.as_str());
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&own)
        .with_context(|| format!("cannot create {}", own.display()))?;
    // Two that start for the first time must not choose the same one.
    let opened = File::open(directory).with_context(|| format!("cannot open {}", directory.display()))?;
    let _turn = Flock::lock(opened, FlockArg::LockExclusive)
        .map_err(|(_, errno)| io::Error::from(errno))
        .with_context(|| format!("cannot lock {}", directory.display()))?;
    let others = numbers(directory, profile.as_str())?;
    if let Some(number) = read(&own).filter(|number| !others.contains(number)) {
        return Ok(number);
    }
    let Some(number) = (1..PROFILES).find(|number| !others.contains(number)) else {
        bail!(
            "{} profiles are the most, and there are as many; `rm -r` the directory of one in {} to forget it",
            PROFILES - 1,
            directory.display()
        );
    };
    let path = own.join(NUMBER);
    let beside = own.join("number.new");
    fs::write(&beside, format!("{number}\n"))
        .and_then(|()| fs::rename(&beside, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(number)
}

fn numbers(directory: &Path, except: &str) -> anyhow::Result<Vec<u8>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let others = entries.flatten().filter(|entry| entry.file_name() != except);
    Ok(others.filter_map(|entry| read(&entry.path())).collect())
}

/// Anything but a number that a profile can have is none.
fn read(profile: &Path) -> Option<u8> {
    let number = fs::read_to_string(profile.join(NUMBER)).ok()?.trim().parse().ok()?;
    (1..PROFILES).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn arguments(words: &[&str]) -> Arguments {
        let always = ["aditd", "--portal", "wss://portal.example.com"];
        Arguments::parse_from(always.iter().chain(words))
    }

    fn profile(name: &str) -> Profile {
        name.parse().unwrap()
    }

    #[test]
    fn the_daemon_of_a_profile_shares_nothing_by_accident() {
        let first = Places::of(&arguments(&[]));
        let work = Places::of(&arguments(&["--profile", "work"]));
        assert_eq!(first.state, Path::new("/var/lib/adit"));
        assert_eq!(work.state, Path::new("/var/lib/adit/profiles/work"));
        assert_eq!(work.shared, first.shared);
        assert_eq!(first.socket, Path::new("/run/adit/aditd.sock"));
        assert_eq!(work.socket, Path::new("/run/adit/profiles/work.sock"));
        assert_eq!(work.log, Path::new("/var/log/adit/work"));
        let told = Places::of(&arguments(&["--profile", "work", "--socket", "/tmp/mine.sock"]));
        assert_eq!(told.socket, Path::new("/tmp/mine.sock"));
    }

    #[test]
    fn a_profile_keeps_the_lowest_number_that_was_free() {
        let directory = tempfile::tempdir().unwrap();
        let number = |name: &str| number_of(directory.path(), &profile(name));
        assert_eq!([number("work").unwrap(), number("home").unwrap()], [1, 2]);
        assert_eq!(number("work").unwrap(), 1);
        fs::remove_dir_all(directory.path().join("work")).unwrap();
        assert_eq!([number("lab").unwrap(), number("home").unwrap()], [1, 2]);
        assert_eq!([number("three").unwrap(), number("four").unwrap()], [3, 4]);
        let refused = number("five").unwrap_err().to_string();
        assert!(refused.contains("rm -r") && refused.contains("4 profiles"), "{refused}");
    }

    #[test]
    fn a_number_that_is_damaged_or_taken_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let number = |name: &str| number_of(directory.path(), &profile(name)).unwrap();
        assert_eq!([number("one"), number("two")], [1, 2]);
        for damaged in ["", "0", "9", "two", "1"] {
            fs::write(directory.path().join("two").join(NUMBER), damaged).unwrap();
            assert_eq!(number("two"), 2, "{damaged:?}");
        }
    }

    #[test]
    fn what_follows_from_the_profile_is_shown() {
        let places = Places::of(&arguments(&["--profile", "work"]));
        let named = |name: &str, value: Option<&str>| Setting {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            source: adit_platform::settings::Source::Default,
        };
        let mut settings = [named("socket", None), named("interface", Some("mine")), named("doh", None)];
        places.complete(&mut settings, "adit1");
        assert_eq!(settings[0].value.as_deref(), Some("/run/adit/profiles/work.sock"));
        assert_eq!((settings[1].value.as_deref(), settings[2].value.as_deref()), (Some("mine"), None));
    }
}
