//! NetworkManager where it writes `/etc/resolv.conf` itself: its *global* DNS configuration.
//!
//! A global configuration takes the place of what all connections bring, in every mode that NetworkManager has
//! (plain file, dnsmasq, resolvconf). NetworkManager keeps it across restarts, so we note that it is ours before
//! we set it, and take it back after a crash. Where an administrator has configured a global one in a file,
//! NetworkManager refuses ours, and names stay as they are.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use zbus::{OwnedObjectPath, OwnedVariant, Variant};

use super::bus::{self, Bus, Conversation, Object};
use super::{DnsControl, DnsControlError, DnsFuture, DnsSettings, known};
use crate::atomic_file;

/// The root object of NetworkManager.
pub(super) const ROOT: Object = Object {
    service: "NetworkManager",
    destination: "org.freedesktop.NetworkManager",
    path: "/org/freedesktop/NetworkManager",
    interface: "org.freedesktop.NetworkManager",
};

const GLOBAL: &str = "GlobalDnsConfiguration";

/// More devices than this are not looked at for their servers.
const MAX_DEVICES: usize = 256;

/// Sets NetworkManager's global DNS configuration.
#[derive(Clone, Debug)]
pub struct NetworkManager {
    bus: Bus,
    interface: String,
    note: PathBuf,
}

type Dictionary<'a> = HashMap<&'a str, Variant<'a>>;

impl NetworkManager {
    /// `interface` is the tunnel's; the note that the configuration is ours is kept in `state_directory`.
    #[must_use]
    pub fn new(interface: &str, state_directory: &Path, bus: Bus) -> Self {
        let note = state_directory.join("network-manager-dns.ours");
        Self { bus, interface: interface.to_owned(), note }
    }

    async fn put(&self, settings: &DnsSettings) -> Result<(), DnsControlError> {
        if settings.servers.is_empty() {
            return Err(DnsControlError::NoServers);
        }
        let manager = self.bus.open(ROOT).await?;
        let note = |error| DnsControlError::File { action: "write", path: self.note.clone(), error };
        if let Some(directory) = self.note.parent() {
            fs::create_dir_all(directory).map_err(note)?;
        }
        atomic_file::replace(&self.note, b"", 0o600).map_err(note)?;
        set_global(&manager, configuration(settings)).await
    }

    async fn take_back(&self) -> Result<(), DnsControlError> {
        // One that does not run writes nothing now; it is asked when it runs, for the note stays.
        if !self.note.exists() || !self.bus.has(ROOT).await {
            return Ok(());
        }
        set_global(&self.bus.open(ROOT).await?, Dictionary::new()).await?;
        fs::remove_file(&self.note).map_err(|error| DnsControlError::File {
            action: "remove",
            path: self.note.clone(),
            error,
        })
    }

    /// What the devices' connections bring, ours aside.
    async fn servers(&self) -> Result<Vec<IpAddr>, DnsControlError> {
        let manager = self.bus.open(ROOT).await?;
        let devices: Vec<OwnedObjectPath> =
            value(manager.property(ROOT.path, ROOT.interface, "Devices").await?)?;
        let mut servers = Vec::new();
        for device in devices.iter().take(MAX_DEVICES) {
            let name: String = device_property(&manager, device, "Interface").await?;
            if name != self.interface {
                servers.extend(servers_of(&manager, device).await?);
            }
        }
        Ok(servers)
    }
}

fn configuration(settings: &DnsSettings) -> Dictionary<'_> {
    let servers: Vec<String> = settings.servers.iter().map(IpAddr::to_string).collect();
    let every_name = Dictionary::from([("servers", Variant::from(servers))]);
    let domains = Dictionary::from([("*", Variant::from(every_name))]);
    let search: Vec<&str> = settings.search.iter().map(String::as_str).collect();
    Dictionary::from([("searches", Variant::from(search)), ("domains", Variant::from(domains))])
}

async fn set_global(manager: &Conversation, wanted: Dictionary<'_>) -> Result<(), DnsControlError> {
    let body = (ROOT.interface, GLOBAL, Variant::from(wanted));
    let properties = "org.freedesktop.DBus.Properties";
    manager.call_on(ROOT.path, properties, "Set", "take our servers", &body).await
}

async fn device_property<T>(
    manager: &Conversation,
    device: &OwnedObjectPath,
    name: &str,
) -> Result<T, DnsControlError>
where
    T: TryFrom<OwnedVariant>,
    T::Error: std::fmt::Display,
{
    value(manager.property(device.as_str(), "org.freedesktop.NetworkManager.Device", name).await?)
}

async fn servers_of(
    manager: &Conversation,
    device: &OwnedObjectPath,
) -> Result<Vec<IpAddr>, DnsControlError> {
    let mut servers = Vec::new();
    for (property, interface) in [
        ("Ip4Config", "org.freedesktop.NetworkManager.IP4Config"),
        ("Ip6Config", "org.freedesktop.NetworkManager.IP6Config"),
    ] {
        let configuration: OwnedObjectPath = device_property(manager, device, property).await?;
        if configuration.as_str() == "/" {
            continue;
        }
        let of_v4 = property == "Ip4Config";
        let name = if of_v4 { "NameserverData" } else { "Nameservers" };
        // It may have gone since.
        let Ok(found) = manager.property(configuration.as_str(), interface, name).await else { continue };
        servers.extend(if of_v4 { in_data(found)? } else { in_bytes(found)? });
    }
    Ok(servers)
}

fn in_data(found: OwnedVariant) -> Result<Vec<IpAddr>, DnsControlError> {
    let entries: Vec<HashMap<String, OwnedVariant>> = value(found)?;
    let addresses = entries.into_iter().filter_map(|mut entry| entry.remove("address"));
    Ok(addresses.filter_map(|address| String::try_from(address).ok()?.parse().ok()).collect())
}

fn in_bytes(found: OwnedVariant) -> Result<Vec<IpAddr>, DnsControlError> {
    let entries: Vec<Vec<u8>> = value(found)?;
    Ok(entries.iter().filter_map(|bytes| bus::server_address(bytes)).collect())
}

fn value<T>(found: OwnedVariant) -> Result<T, DnsControlError>
where
    T: TryFrom<OwnedVariant>,
    T::Error: std::fmt::Display,
{
    T::try_from(found).map_err(|error| bus::failed(ROOT, "say its servers", error))
}

impl DnsControl for NetworkManager {
    fn apply<'a>(&'a mut self, settings: &'a DnsSettings) -> DnsFuture<'a, ()> {
        Box::pin(self.put(settings))
    }

    fn clear(&mut self) -> DnsFuture<'_, ()> {
        Box::pin(self.take_back())
    }

    fn recover(&mut self) -> DnsFuture<'_, ()> {
        Box::pin(self.take_back())
    }

    fn upstreams(&mut self) -> BoxFuture<'_, Vec<IpAddr>> {
        Box::pin(async { known(self.servers().await) })
    }

    fn name(&self) -> &'static str {
        "NetworkManager"
    }
}
