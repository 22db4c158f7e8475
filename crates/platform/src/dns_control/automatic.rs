//! Finds out who owns the host's resolver, and asks that one.
//!
//! Facts are gathered first and judged by a pure function ([`Facts::manager`]), in the order of what would
//! overwrite what: systemd-resolved if names go through it, NetworkManager if it wrote the file, `resolvconf` if
//! that did, else the file itself. The judgement is made anew for each connection, and kept while settings are in
//! force.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;

use super::{
    Bus, DnsControl, DnsControlError, DnsFuture, DnsSettings, NetworkManager, ResolvConf, Resolvconf,
    Resolved, network_manager, resolv_conf, resolved,
};

/// Where resolved answers programs that ask by DNS.
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// Who sets the host's resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manager {
    /// systemd-resolved.
    Resolved,
    /// NetworkManager, without systemd-resolved.
    NetworkManager,
    /// The program `resolvconf`.
    Resolvconf,
    /// Nobody that we know: the file is written directly.
    ResolvConf,
}

/// What is known about a host.
#[derive(Clone, Debug, Default)]
struct Facts {
    resolv_conf: String,
    nsswitch: String,
    has_resolved: bool,
    has_network_manager: bool,
    has_resolvconf: bool,
}

impl Facts {
    fn manager(&self) -> Manager {
        let servers = resolv_conf::servers_in(&self.resolv_conf);
        let asks_stub = servers.iter().any(|server| STUBS.contains(server));
        if self.has_resolved && (asks_stub || self.asks_resolved()) {
            return Manager::Resolved;
        }
        if self.has_network_manager && self.is_made_by("NetworkManager") {
            return Manager::NetworkManager;
        }
        if self.has_resolvconf && self.is_made_by("resolvconf") {
            return Manager::Resolvconf;
        }
        Manager::ResolvConf
    }

    /// The C library asks resolved before, or instead of, `resolv.conf`.
    fn asks_resolved(&self) -> bool {
        let mut hosts = self.nsswitch.lines().filter_map(|line| line.trim().strip_prefix("hosts:"));
        hosts.any(|sources| {
            let before_dns = sources.split_whitespace().take_while(|source| *source != "dns");
            before_dns.into_iter().any(|source| source == "resolve")
        })
    }

    /// Its comments name the program that wrote the file.
    fn is_made_by(&self, program: &str) -> bool {
        let comments = self.resolv_conf.lines().filter(|line| line.starts_with('#'));
        comments.take(4).any(|line| line.contains(program))
    }
}

/// Asks whoever sets the host's resolver.
pub struct Automatic {
    interface: String,
    state_directory: PathBuf,
    resolv_conf: PathBuf,
    nsswitch: PathBuf,
    resolvconf: Option<PathBuf>,
    bus: Bus,
    chosen: Option<Box<dyn DnsControl>>,
}

impl std::fmt::Debug for Automatic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Automatic").field("chosen", &self.name()).finish_non_exhaustive()
    }
}

impl Automatic {
    /// For the tunnel's `interface`; `resolv_conf` is normally `/etc/resolv.conf`.
    #[must_use]
    pub fn new(interface: &str, resolv_conf: &Path, state_directory: &Path, bus: Bus) -> Self {
        let places = ["/usr/sbin/resolvconf", "/sbin/resolvconf", "/usr/bin/resolvconf"].map(PathBuf::from);
        Self {
            interface: interface.to_owned(),
            state_directory: state_directory.to_owned(),
            resolv_conf: resolv_conf.to_owned(),
            nsswitch: PathBuf::from("/etc/nsswitch.conf"),
            resolvconf: places.into_iter().find(|path| path.is_file()),
            bus,
            chosen: None,
        }
    }

    /// Takes `program` for `resolvconf`, instead of looking where Debian and others put it.
    #[must_use]
    pub fn with_resolvconf(mut self, program: &Path) -> Self {
        self.resolvconf = Some(program.to_owned());
        self
    }

    /// Who sets the resolver of this host now, as far as can be seen.
    pub async fn detect(&self) -> Manager {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let facts = Facts {
            resolv_conf: read(&self.resolv_conf),
            nsswitch: read(&self.nsswitch),
            has_resolved: self.bus.has(resolved::MANAGER).await,
            has_network_manager: self.bus.has(network_manager::ROOT).await,
            has_resolvconf: self.resolvconf.is_some(),
        };
        facts.manager()
    }

    fn control(&self, manager: Manager) -> Box<dyn DnsControl> {
        match (manager, &self.resolvconf) {
            (Manager::Resolved, _) => Box::new(Resolved::new(&self.interface, self.bus.clone())),
            (Manager::NetworkManager, _) => {
                Box::new(NetworkManager::new(&self.interface, &self.state_directory, self.bus.clone()))
            }
            (Manager::Resolvconf, Some(program)) => {
                Box::new(Resolvconf::new(program, &self.interface, &self.resolv_conf))
            }
            (Manager::Resolvconf | Manager::ResolvConf, _) => {
                Box::new(ResolvConf::new(&self.resolv_conf, &self.state_directory))
            }
        }
    }

    async fn chosen(&mut self) -> &mut Box<dyn DnsControl> {
        let chosen = match self.chosen.take() {
            Some(chosen) => chosen,
            None => self.control(self.detect().await),
        };
        self.chosen.insert(chosen)
    }

    /// A crashed run may have asked any of them; the file first, for the others are told by what is in it.
    async fn recover_all(&mut self) -> Result<(), DnsControlError> {
        self.chosen = None;
        let mut outcome = self.control(Manager::ResolvConf).recover().await;
        for manager in [Manager::NetworkManager, Manager::Resolved] {
            outcome = outcome.and(self.control(manager).recover().await);
        }
        outcome.and(self.recover_record().await)
    }

    async fn recover_record(&mut self) -> Result<(), DnsControlError> {
        if self.resolvconf.is_some() && self.detect().await == Manager::Resolvconf {
            return self.control(Manager::Resolvconf).recover_interface().await;
        }
        Ok(())
    }
}

impl DnsControl for Automatic {
    fn apply<'a>(&'a mut self, settings: &'a DnsSettings) -> DnsFuture<'a, ()> {
        Box::pin(async move { self.chosen().await.apply(settings).await })
    }

    fn clear(&mut self) -> DnsFuture<'_, ()> {
        Box::pin(async move {
            match &mut self.chosen {
                Some(chosen) => chosen.clear().await?,
                None => return Ok(()),
            }
            self.chosen = None;
            Ok(())
        })
    }

    fn recover(&mut self) -> DnsFuture<'_, ()> {
        Box::pin(self.recover_all())
    }

    fn recover_interface(&mut self) -> DnsFuture<'_, ()> {
        Box::pin(self.recover_record())
    }

    fn upstreams(&mut self) -> BoxFuture<'_, Vec<IpAddr>> {
        Box::pin(async move { self.chosen().await.upstreams().await })
    }

    fn name(&self) -> &'static str {
        self.chosen.as_ref().map_or("not chosen yet", |chosen| chosen.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(resolv_conf: &str) -> Facts {
        Facts {
            resolv_conf: resolv_conf.to_owned(),
            nsswitch: "hosts: files dns\n".to_owned(),
            has_resolved: true,
            has_network_manager: true,
            has_resolvconf: true,
        }
    }

    #[test]
    fn resolved_is_asked_only_where_names_go_through_it() {
        let stub = host("# systemd-resolved\nnameserver 127.0.0.53\n");
        assert_eq!(stub.manager(), Manager::Resolved);
        assert_eq!(Facts { has_resolved: false, ..stub }.manager(), Manager::ResolvConf);
        let plain = host("nameserver 192.0.2.53\n");
        assert_eq!(plain.manager(), Manager::ResolvConf, "it runs, and nobody asks it");
        let by_library = |hosts: &str| Facts { nsswitch: hosts.to_owned(), ..plain.clone() };
        let usual = "hosts: mymachines resolve [!UNAVAIL=return] files dns\n";
        assert_eq!(by_library(usual).manager(), Manager::Resolved);
        assert_eq!(by_library("hosts: files dns resolve\n").manager(), Manager::ResolvConf);
    }

    #[test]
    fn whoever_wrote_the_file_is_asked() {
        let by = |program: &str| host(&format!("# Generated by {program}\nnameserver 192.0.2.53\n"));
        assert_eq!(by("NetworkManager").manager(), Manager::NetworkManager);
        assert_eq!(by("resolvconf").manager(), Manager::Resolvconf);
        assert_eq!(by("dhclient").manager(), Manager::ResolvConf);
        let gone = Facts { has_network_manager: false, ..by("NetworkManager") };
        assert_eq!(gone.manager(), Manager::ResolvConf, "a file that its writer has left behind");
    }
}
