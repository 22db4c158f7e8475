//! Several tunnels on one host, each of a profile of its own, and one resolver.
//!
//! A host's programs ask one resolver, so one tunnel holds it, and answers for the others: they say in a directory that
//! all of them share which names are theirs and who answers for these, and the holder delegates such names to them.
//! Each tunnel has a number and two files there:
//!
//! - `N.lock` is locked as long as its process lives, so an entry that a killed process left counts for nothing;
//! - `N.json` holds servers, patterns and search domains while it is connected.
//!
//! The holder has locked the directory. Whoever finds the lock free takes the resolver: when it connects, or when the
//! holder goes away, by being killed too. Deliberately absent: an order among tunnels. Who came first holds it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;

use super::{DnsControl, DnsControlError, DnsSettings};
use crate::atomic_file;
use crate::network::PROFILES;

/// A larger entry is not read.
const LARGEST_ENTRY: u64 = 4 * 1024 * 1024;

/// Names that another tunnel of this host answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// Who answers for them; reached through that tunnel.
    pub servers: Vec<IpAddr>,
    /// Which names: a name, or a pattern with `*`, `**` and `?`.
    pub patterns: Vec<String>,
    /// Its search domains.
    pub search: Vec<String>,
}

/// Sets the resolver of a host on which others may do the same.
pub struct Delegating {
    directory: PathBuf,
    number: u8,
    control: Box<dyn DnsControl>,
    /// Held while this process may have an entry.
    presence: Option<Flock<File>>,
    /// Held while the resolver is ours.
    holding: Option<Flock<File>>,
    entry: Option<Delegation>,
    news: Option<AsyncFd<Watch>>,
}

impl std::fmt::Debug for Delegating {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let holds = self.holding.is_some();
        formatter.debug_struct("Delegating").field("number", &self.number).field("holds", &holds).finish()
    }
}

impl Delegating {
    /// For the tunnel with this number (below [`PROFILES`]); all tunnels of a host share `directory`.
    #[must_use]
    pub fn new(directory: &Path, number: u8, control: Box<dyn DnsControl>) -> Self {
        let directory = directory.to_owned();
        Self { directory, number, control, presence: None, holding: None, entry: None, news: None }
    }

    /// Makes the host ask the servers of `settings`, or whoever holds its resolver delegate `patterns` to them.
    ///
    /// # Errors
    ///
    /// See [`DnsControl::apply`]; also if the directory cannot be used.
    pub async fn apply(
        &mut self,
        settings: &DnsSettings,
        patterns: Vec<String>,
    ) -> Result<(), DnsControlError> {
        let (servers, search) = (settings.servers.clone(), settings.search.clone());
        self.publish(Delegation { servers, patterns, search }).map_err(self.failed("use"))?;
        // Whoever does not set the resolver must not keep others from it.
        if !self.control.is_enabled() || !self.take_hold().map_err(self.failed("lock"))? {
            return Ok(());
        }
        let mut settings = settings.clone();
        for domain in self.delegations().into_iter().flat_map(|other| other.search) {
            if !settings.search.contains(&domain) {
                settings.search.push(domain);
            }
        }
        self.control.apply(&settings).await
    }

    /// Gives the host its own settings back, or leaves it to the tunnel that holds its resolver.
    ///
    /// # Errors
    ///
    /// See [`DnsControl::clear`].
    pub async fn clear(&mut self) -> Result<(), DnsControlError> {
        let outcome = match self.holding {
            Some(_) => self.control.clear().await,
            None => Ok(()),
        };
        self.holding = None;
        // Others look for the lock when the entry goes, so it goes after the lock.
        if self.entry.take().is_some() {
            // What cannot be removed counts only as long as this process lives.
            let _ = fs::remove_file(self.entry_of(self.number));
        }
        outcome
    }

    /// Gives back what a crashed run has taken, unless another tunnel holds the resolver now.
    ///
    /// # Errors
    ///
    /// See [`DnsControl::recover`].
    pub async fn recover(&mut self) -> Result<(), DnsControlError> {
        self.prepare().map_err(self.failed("use"))?;
        let outcome = match self.try_hold().map_err(self.failed("lock"))? {
            Some(_held) => self.control.recover().await,
            None => self.control.recover_interface().await,
        };
        // Closing it tells the others to look whether what they need is still in force.
        drop(self.open_presence().map_err(self.failed("use"))?);
        outcome
    }

    /// The host's own name servers; see [`DnsControl::upstreams`].
    pub async fn upstreams(&mut self) -> Vec<IpAddr> {
        let mut servers = self.control.upstreams().await;
        // Another tunnel's resolver is nobody to ask for everything.
        let others = self.delegations();
        servers.retain(|server| !others.iter().any(|other| other.servers.contains(server)));
        servers
    }

    /// Who is asked to set the resolver, in a word for people.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.control.name()
    }

    /// What other tunnels answer, in the order of their numbers.
    #[must_use]
    pub fn delegations(&self) -> Vec<Delegation> {
        let others = (0..PROFILES).filter(|number| *number != self.number);
        others.filter(|number| self.is_alive(*number)).filter_map(|number| self.read(number)).collect()
    }

    /// Completes when other tunnels, or what they answer, may have changed: [`apply`](Self::apply) again then. Safe to
    /// drop while it waits; never completes before the first `apply`.
    pub async fn changed(&mut self) {
        let Some(news) = &self.news else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = news.readable().await else { return std::future::pending().await };
            let is_of_others = match ready.get_inner().0.read_events() {
                Ok(events) => {
                    let mut names = events.iter().filter_map(|event| event.name.as_ref()?.to_str());
                    names.any(|name| self.is_of_another(name))
                }
                Err(_) => false,
            };
            ready.clear_ready();
            if is_of_others {
                return;
            }
        }
    }

    fn is_of_another(&self, name: &str) -> bool {
        let number = name.strip_suffix(".json").or_else(|| name.strip_suffix(".lock"));
        number.and_then(|number| number.parse::<u8>().ok()).is_some_and(|number| number != self.number)
    }

    fn prepare(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    fn publish(&mut self, entry: Delegation) -> io::Result<()> {
        self.prepare()?;
        if self.news.is_none() {
            self.news = Some(watch(&self.directory)?);
        }
        if self.presence.is_none() {
            let held = lock(self.open_presence()?, FlockArg::LockExclusiveNonblock)?;
            self.presence = Some(held.ok_or(io::ErrorKind::ResourceBusy)?);
        }
        if self.entry.as_ref() != Some(&entry) {
            let text = serde_json::to_vec(&entry)?;
            atomic_file::replace(&self.entry_of(self.number), &text, 0o600)?;
            self.entry = Some(entry);
        }
        Ok(())
    }

    fn open_presence(&self) -> io::Result<File> {
        let path = self.lock_of(self.number);
        OpenOptions::new().create(true).append(true).mode(0o600).open(path)
    }

    /// Whether the resolver is ours.
    fn take_hold(&mut self) -> io::Result<bool> {
        if self.holding.is_none() {
            self.holding = self.try_hold()?;
        }
        Ok(self.holding.is_some())
    }

    /// The directory itself is what is locked: a file would be seen to change whenever somebody tries.
    fn try_hold(&self) -> io::Result<Option<Flock<File>>> {
        lock(File::open(&self.directory)?, FlockArg::LockExclusiveNonblock)
    }

    fn is_alive(&self, number: u8) -> bool {
        let Ok(file) = File::open(self.lock_of(number)) else { return false };
        matches!(lock(file, FlockArg::LockSharedNonblock), Ok(None))
    }

    fn read(&self, number: u8) -> Option<Delegation> {
        let path = self.entry_of(number);
        if fs::metadata(&path).ok()?.len() > LARGEST_ENTRY {
            return None;
        }
        serde_json::from_slice(&fs::read(&path).ok()?).ok()
    }

    fn entry_of(&self, number: u8) -> PathBuf {
        self.directory.join(format!("{number}.json"))
    }

    fn lock_of(&self, number: u8) -> PathBuf {
        self.directory.join(format!("{number}.lock"))
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> DnsControlError {
        let path = self.directory.clone();
        move |error| DnsControlError::File { action, path: path.clone(), error }
    }
}

/// Nothing if somebody else has the lock.
fn lock(file: File, how: FlockArg) -> io::Result<Option<Flock<File>>> {
    match Flock::lock(file, how) {
        Ok(held) => Ok(Some(held)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

/// Sees what happens in a directory.
struct Watch(Inotify);

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// Entries come by a rename and go by a removal; a process that dies closes its lock.
#[expect(unsafe_code, reason = "the safe constructor is deprecated")]
fn watch(directory: &Path) -> io::Result<AsyncFd<Watch>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let events = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_CLOSE_WRITE;
    inotify.add_watch(directory, events)?;
    // SAFETY: the descriptor is the watch's own and stays the same until it is dropped.
    Ok(unsafe { AsyncFd::register(Watch(inotify)) }?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Disabled, DnsCall, FakeDns};
    use super::*;

    fn settings(server: &str, search: &str) -> DnsSettings {
        DnsSettings { servers: vec![server.parse().unwrap()], search: vec![search.to_owned()] }
    }

    fn tunnel(directory: &Path, number: u8) -> (Delegating, FakeDns) {
        let upstreams = ["192.0.2.53", "100.96.0.1"].map(|server| server.parse().unwrap());
        let fake = FakeDns::new(upstreams.to_vec());
        (Delegating::new(directory, number, Box::new(fake.clone())), fake)
    }

    fn patterns(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    async fn is_told(tunnel: &mut Delegating) -> bool {
        tokio::time::timeout(Duration::from_secs(5), tunnel.changed()).await.is_ok()
    }

    async fn hears_nothing(tunnel: &mut Delegating) -> bool {
        tokio::time::timeout(Duration::from_millis(50), tunnel.changed()).await.is_err()
    }

    #[tokio::test]
    async fn whoever_comes_first_holds_the_resolver_and_answers_for_all() {
        let directory = tempfile::tempdir().unwrap();
        let (mut first, first_calls) = tunnel(directory.path(), 0);
        let (mut second, second_calls) = tunnel(directory.path(), 1);
        first.apply(&settings("100.96.0.1", "one.example"), patterns("**.one.example")).await.unwrap();
        assert!(hears_nothing(&mut first).await, "its own entry is no news");
        second.apply(&settings("100.96.128.1", "two.example"), patterns("**.two.example")).await.unwrap();
        assert!(is_told(&mut first).await);
        assert_eq!(second_calls.calls(), []);
        assert_eq!(
            second.upstreams().await,
            ["192.0.2.53".parse::<IpAddr>().unwrap()],
            "not the other tunnel"
        );
        first.apply(&settings("100.96.0.1", "one.example"), patterns("**.one.example")).await.unwrap();
        let expected = Delegation {
            servers: vec!["100.96.128.1".parse().unwrap()],
            patterns: patterns("**.two.example"),
            search: vec!["two.example".to_owned()],
        };
        assert_eq!(first.delegations(), [expected]);
        let Some(DnsCall::Apply(applied)) = first_calls.calls().last().cloned() else { panic!() };
        assert_eq!(applied.search, ["one.example", "two.example"]);
        assert!(hears_nothing(&mut second).await);

        first.clear().await.unwrap();
        assert_eq!(first_calls.calls().last(), Some(&DnsCall::Clear));
        assert!(is_told(&mut second).await);
        second.apply(&settings("100.96.128.1", "two.example"), patterns("**.two.example")).await.unwrap();
        assert_eq!(second_calls.calls(), [DnsCall::Apply(settings("100.96.128.1", "two.example"))]);
        assert_eq!(second.delegations(), []);
    }

    #[tokio::test]
    async fn what_a_killed_tunnel_left_counts_for_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (mut killed, _) = tunnel(directory.path(), 0);
        let (mut other, calls) = tunnel(directory.path(), 3);
        killed.apply(&settings("100.96.0.1", "one.example"), patterns("**.one.example")).await.unwrap();
        other.apply(&settings("100.96.128.1", "two.example"), patterns("**.two.example")).await.unwrap();
        assert_eq!(other.delegations().len(), 1);
        // As the kernel does it: every lock goes, every file stays.
        drop(killed);
        assert!(directory.path().join("0.json").exists());
        assert!(is_told(&mut other).await);
        assert_eq!(other.delegations(), []);
        other.apply(&settings("100.96.128.1", "two.example"), patterns("**.two.example")).await.unwrap();
        assert_eq!(calls.calls().len(), 1, "it holds the resolver now");

        let (mut back, back_calls) = tunnel(directory.path(), 0);
        back.recover().await.unwrap();
        assert_eq!(back_calls.calls(), [], "what is in force is the other's");
        other.clear().await.unwrap();
        back.recover().await.unwrap();
        assert_eq!(back_calls.calls(), [DnsCall::Recover]);
    }

    #[tokio::test]
    async fn whoever_leaves_the_resolver_alone_leaves_it_to_others() {
        let directory = tempfile::tempdir().unwrap();
        let disabled = Disabled::new(&directory.path().join("resolv.conf"));
        let mut idle = Delegating::new(directory.path(), 0, Box::new(disabled));
        idle.apply(&settings("100.96.0.1", "one.example"), patterns("**.one.example")).await.unwrap();
        let (mut other, calls) = tunnel(directory.path(), 1);
        other.apply(&settings("100.96.128.1", "two.example"), Vec::new()).await.unwrap();
        assert_eq!(calls.calls().len(), 1);
        assert_eq!(other.delegations().len(), 1, "its names are answered all the same");
    }

    #[tokio::test]
    async fn an_entry_that_cannot_be_read_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let (mut broken, _) = tunnel(directory.path(), 2);
        broken.apply(&settings("100.96.0.1", "one.example"), patterns("**.one.example")).await.unwrap();
        let (other, _) = tunnel(directory.path(), 1);
        assert_eq!(other.delegations().len(), 1);
        fs::write(directory.path().join("2.json"), "{\"servers\":[").unwrap();
        assert_eq!(other.delegations(), []);
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_used_is_said() {
        let (mut tunnel, calls) = tunnel(Path::new("/proc/nowhere"), 0);
        let outcome = tunnel.apply(&settings("100.96.0.1", "one.example"), Vec::new()).await;
        assert!(matches!(outcome, Err(DnsControlError::File { .. })));
        assert_eq!(calls.calls(), []);
    }
}
