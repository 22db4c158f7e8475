//! systemd-resolved: our servers belong to the tunnel's interface, and all names are routed to it.
//!
//! The settings live in resolved and with the interface: when the interface goes away, by a crash of ours too,
//! they are gone. The domain `~.` on our link takes every name for which no other link claims a longer domain;
//! the search domains stand beside it. What is deliberately absent: taking domains away from other links. A
//! name below a domain that the local network announces is asked there as well as here.

use std::net::IpAddr;

use futures_util::future::BoxFuture;

use super::bus::{Bus, Conversation, Object, server_address};
use super::{DnsControl, DnsControlError, DnsFuture, DnsSettings, known};

/// The manager of systemd-resolved.
pub(super) const MANAGER: Object = Object {
    service: "systemd-resolved",
    destination: "org.freedesktop.resolve1",
    path: "/org/freedesktop/resolve1",
    interface: "org.freedesktop.resolve1.Manager",
};

/// Asks systemd-resolved to use our servers.
#[derive(Clone, Debug)]
pub struct Resolved {
    interface: String,
    bus: Bus,
}

/// A server as resolved wants it: address family and bytes.
type LinkServer = (i32, Vec<u8>);

impl Resolved {
    /// The settings will belong to `interface`, the tunnel's.
    #[must_use]
    pub fn new(interface: &str, bus: Bus) -> Self {
        Self { interface: interface.to_owned(), bus }
    }

    fn index(&self) -> Option<i32> {
        let index = nix::net::if_::if_nametoindex(self.interface.as_str()).ok()?;
        i32::try_from(index).ok()
    }

    async fn put(&self, settings: &DnsSettings) -> Result<(), DnsControlError> {
        if settings.servers.is_empty() {
            return Err(DnsControlError::NoServers);
        }
        let index = self.index().ok_or_else(|| DnsControlError::NoInterface(self.interface.clone()))?;
        let manager = self.bus.open(MANAGER).await?;
        let outcome = put_link(&manager, index, settings).await;
        if outcome.is_err() {
            // Half of it would be worse than nothing; that this may fail too changes nothing.
            let _ = revert(&manager, index).await;
        }
        outcome
    }

    async fn take_back(&self) -> Result<(), DnsControlError> {
        // Without the interface resolved has forgotten already.
        let Some(index) = self.index() else { return Ok(()) };
        if !self.bus.has(MANAGER).await {
            return Ok(());
        }
        revert(&self.bus.open(MANAGER).await?, index).await
    }

    async fn servers(&self) -> Result<Vec<IpAddr>, DnsControlError> {
        let manager = self.bus.open(MANAGER).await?;
        let own = self.index();
        let mut servers = Vec::new();
        for property in ["DNS", "FallbackDNS"] {
            let value = manager.property(MANAGER.path, MANAGER.interface, property).await?;
            let known = Vec::<(i32, i32, Vec<u8>)>::try_from(value)
                .map_err(|error| super::bus::failed(MANAGER, "say its servers", error))?;
            let foreign = known.iter().filter(|(link, ..)| Some(*link) != own);
            servers.extend(foreign.filter_map(|(_, _, bytes)| server_address(bytes)));
            if !servers.is_empty() {
                break;
            }
        }
        Ok(servers)
    }
}

async fn put_link(manager: &Conversation, index: i32, settings: &DnsSettings) -> Result<(), DnsControlError> {
    let servers: Vec<LinkServer> = settings.servers.iter().map(|server| link_server(*server)).collect();
    let search = settings.search.iter().map(|domain| (domain.as_str(), false));
    let domains: Vec<(&str, bool)> = search.chain([(".", true)]).collect();
    let () = manager.call("SetLinkDNS", "take our servers", &(index, servers)).await?;
    let () = manager.call("SetLinkDomains", "route names to us", &(index, domains)).await?;
    let () = manager.call("SetLinkDefaultRoute", "route names to us", &(index, true)).await?;
    // Nobody on the tunnel speaks these, and addresses that stand for resources are not signed.
    for method in ["SetLinkLLMNR", "SetLinkMulticastDNS", "SetLinkDNSSEC", "SetLinkDNSOverTLS"] {
        let () = manager.call(method, "leave the tunnel plain", &(index, "no")).await?;
    }
    manager.call("FlushCaches", "forget what it knew", &()).await
}

async fn revert(manager: &Conversation, index: i32) -> Result<(), DnsControlError> {
    let () = manager.call("RevertLink", "give its settings back", &(index,)).await?;
    manager.call("FlushCaches", "forget what it knew", &()).await
}

fn link_server(address: IpAddr) -> LinkServer {
    match address {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    }
}

impl DnsControl for Resolved {
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
        "systemd-resolved"
    }
}
