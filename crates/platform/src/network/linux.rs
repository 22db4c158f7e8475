//! [`NetworkControl`] over rtnetlink and `/proc/sys`.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt as _;
use futures_util::future::BoxFuture;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::LinkAttribute;
use netlink_packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteScope};
use rtnetlink::{LinkUnspec, RouteMessageBuilder};

use super::{Applied, Bypass, NetworkControl, NetworkError, NetworkState, guard, rules};
use crate::netlink::{Session, destination_of, errno, to_io};
use crate::sysctl::Journal;

const SYSCTL: &str = "/proc/sys";

/// The Linux implementation.
#[derive(Debug)]
pub struct LinuxNetwork {
    bypass: Option<Bypass>,
    record: PathBuf,
    interface: Option<String>,
}

impl LinuxNetwork {
    /// Keeps its record of changes in `state_directory`; without `bypass` routes go to the main table.
    #[must_use]
    pub fn new(state_directory: &Path, bypass: Option<Bypass>) -> Self {
        Self { bypass, record: state_directory.join("network-changes.json"), interface: None }
    }

    async fn set(&mut self, desired: &NetworkState) -> Result<Applied, NetworkError> {
        let session = open()?;
        let index = nix::net::if_::if_nametoindex(desired.interface.as_str())
            .map_err(|_| NetworkError::NoInterface(desired.interface.clone()))?;
        self.interface = Some(desired.interface.clone());
        quieten(&desired.interface);
        bring_up(&session, index, desired.mtu).await?;
        if let Some(bytes) = desired.super_packet {
            limit_super_packets(&session, index, bytes).await;
        }
        let ipv6 = has_ipv6(&desired.interface);
        let usable = |net: &&IpNet| ipv6 || net.addr().is_ipv4();
        let addresses: BTreeSet<IpNet> = desired.addresses.iter().filter(usable).copied().collect();
        set_addresses(&session, index, &addresses).await?;
        let routes: BTreeSet<IpNet> = desired.routes.iter().filter(usable).map(IpNet::trunc).collect();
        for family in families(ipv6) {
            let wanted = routes.iter().filter(|net| of_family(net, family)).copied().collect();
            self.set_routes(&session, index, family, &wanted).await?;
            if let Some(bypass) = &self.bypass {
                let with_default = wanted.iter().any(|net| net.prefix_len() == 0);
                // In this order there is no moment in which something gets past the tunnel.
                if with_default {
                    guard::set(&session, bypass, family, true).await?;
                }
                rules::set(&session, bypass, family, &rules::desired(bypass, family, with_default)).await?;
                if !with_default {
                    guard::set(&session, bypass, family, false).await?;
                }
            }
        }
        let loosened = match &self.bypass {
            Some(bypass) => self.loosen_reverse_path_filter(&session, bypass).await?,
            None => Vec::new(),
        };
        Ok(Applied { ipv6, loosened })
    }

    async fn set_routes(
        &self,
        session: &Session,
        index: u32,
        family: AddressFamily,
        wanted: &BTreeSet<IpNet>,
    ) -> Result<(), NetworkError> {
        let found = session
            .routes_of(family, rules::PROTOCOL, index)
            .await
            .map_err(|error| refused("list the routes", error))?;
        let mut missing: BTreeSet<(u32, IpNet)> =
            wanted.iter().map(|net| (self.table_for(net), *net)).collect();
        for route in found {
            if missing.remove(&(table_of(&route), destination_of(&route))) {
                continue;
            }
            let action = format!("remove the route to {}", destination_of(&route));
            forgive_missing(session.handle.route().del(route).execute().await, &action)?;
        }
        for (table, net) in missing {
            let route = device_route(index, table, &net);
            let added = session.handle.route().add(route).replace().execute().await;
            added.map_err(|error| refused(&format!("add the route to {net}"), error))?;
        }
        Ok(())
    }

    fn table_for(&self, net: &IpNet) -> u32 {
        match &self.bypass {
            None => u32::from(RouteHeader::RT_TABLE_MAIN),
            Some(bypass) => bypass.table + u32::from(net.prefix_len() == 0),
        }
    }

    /// Answers to our marked packets arrive unmarked, so the strict filter looks for their sender in the
    /// tunnel and drops them.
    async fn loosen_reverse_path_filter(
        &self,
        session: &Session,
        bypass: &Bypass,
    ) -> Result<Vec<String>, NetworkError> {
        let system = |action: &str| {
            let action = action.to_owned();
            move |error| NetworkError::System { action, error }
        };
        let egress = session
            .egress(false, Some(bypass.fwmark))
            .await
            .map_err(system("find the way out of this host"))?;
        let Some(name) = egress.and_then(|egress| interface_name(egress.interface)) else {
            return Ok(Vec::new());
        };
        let mut journal = Journal::open(Path::new(SYSCTL), &self.record);
        let setting = |name: &str, key: &str| format!("net/ipv4/conf/{name}/{key}");
        let level = |journal: &Journal, name: &str| -> u8 {
            journal.get(&setting(name, "rp_filter")).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let effective = level(&journal, "all").max(level(&journal, &name));
        if effective != 1 {
            return Ok(Vec::new());
        }
        for (key, value) in [("rp_filter", "2"), ("src_valid_mark", "1")] {
            journal.set(&setting(&name, key), value).map_err(system("loosen the reverse path filter"))?;
        }
        tracing::info!(interface = %name, "strict reverse path filter loosened while the tunnel is up");
        Ok(vec![name])
    }

    async fn take_back(&mut self, keeps_guard: bool) -> Result<(), NetworkError> {
        let session = open()?;
        let mut result = Ok(());
        if let Some(bypass) = &self.bypass {
            for family in families(true) {
                result = result.and(rules::take_back(&session, bypass, family, keeps_guard).await);
            }
        }
        let index = self.interface.take().and_then(|name| nix::net::if_::if_nametoindex(name.as_str()).ok());
        if let Some(index) = index {
            for family in families(true) {
                result = result.and(self.set_routes(&session, index, family, &BTreeSet::new()).await);
            }
            result = result.and(set_addresses(&session, index, &BTreeSet::new()).await);
        }
        let restored = Journal::open(Path::new(SYSCTL), &self.record).restore();
        result.and(restored.map_err(|error| NetworkError::System {
            action: "restore the reverse path filter".to_owned(),
            error,
        }))
    }
}

impl NetworkControl for LinuxNetwork {
    fn apply<'a>(&'a mut self, desired: &'a NetworkState) -> BoxFuture<'a, Result<Applied, NetworkError>> {
        Box::pin(self.set(desired))
    }

    fn clear(&mut self) -> BoxFuture<'_, Result<(), NetworkError>> {
        Box::pin(self.take_back(false))
    }

    // Addresses and routes died with the crashed process's interface; rules and settings did not.
    fn recover(&mut self) -> BoxFuture<'_, Result<(), NetworkError>> {
        Box::pin(self.take_back(true))
    }
}

fn open() -> Result<Session, NetworkError> {
    Session::open().map_err(|error| NetworkError::System { action: "open rtnetlink".to_owned(), error })
}

pub(super) fn refused(action: &str, error: rtnetlink::Error) -> NetworkError {
    match errno(&error) {
        Some(libc::EPERM | libc::EACCES) => NetworkError::NoPermission(action.to_owned()),
        _ => NetworkError::System { action: action.to_owned(), error: to_io(error) },
    }
}

/// Something to be removed may be gone already, or its whole address family.
pub(super) fn forgive_missing(
    result: Result<(), rtnetlink::Error>,
    action: &str,
) -> Result<(), NetworkError> {
    match result {
        Err(error)
            if matches!(
                errno(&error),
                Some(libc::ESRCH | libc::ENOENT | libc::EADDRNOTAVAIL | libc::ENODEV | libc::EAFNOSUPPORT)
            ) =>
        {
            Ok(())
        }
        other => other.map_err(|error| refused(action, error)),
    }
}

fn families(ipv6: bool) -> impl Iterator<Item = AddressFamily> {
    std::iter::once(AddressFamily::Inet).chain(ipv6.then_some(AddressFamily::Inet6))
}

fn of_family(net: &IpNet, family: AddressFamily) -> bool {
    net.addr().is_ipv4() == (family == AddressFamily::Inet)
}

fn has_ipv6(interface: &str) -> bool {
    fs::read_to_string(format!("{SYSCTL}/net/ipv6/conf/{interface}/disable_ipv6"))
        .is_ok_and(|text| text.trim() == "0")
}

/// Keeps the kernel from sending router solicitations and the like into the tunnel. Its own interface, so
/// nothing needs restoring.
fn quieten(interface: &str) {
    let directory = PathBuf::from(format!("{SYSCTL}/net/ipv6/conf/{interface}"));
    let _ = fs::write(directory.join("addr_gen_mode"), "1");
    let _ = fs::write(directory.join("accept_ra"), "0");
}

/// Kernels before 4.16 cannot, and lose nothing but speed.
async fn limit_super_packets(session: &Session, index: u32, bytes: u32) {
    let attribute = LinkAttribute::GsoMaxSize(bytes);
    let message = LinkUnspec::new_with_index(index).append_extra_attribute(attribute).build();
    if let Err(error) = session.handle.link().set(message).execute().await {
        tracing::debug!(%error, bytes, "the kernel does not limit super-packets");
    }
}

async fn bring_up(session: &Session, index: u32, mtu: u32) -> Result<(), NetworkError> {
    let message = LinkUnspec::new_with_index(index).mtu(mtu).up().build();
    let set = session.handle.link().set(message).execute().await;
    set.map_err(|error| refused("bring the interface up", error))
}

async fn set_addresses(session: &Session, index: u32, wanted: &BTreeSet<IpNet>) -> Result<(), NetworkError> {
    let list = |error| refused("list the addresses", error);
    let mut missing = wanted.clone();
    let mut dump = session.handle.address().get().set_link_index_filter(index).execute();
    let mut stale = Vec::new();
    while let Some(message) = dump.try_next().await.map_err(list)? {
        match address_of(&message) {
            Some(net) if !missing.remove(&net) && !is_kernel_made(&net) => stale.push(message),
            _ => {}
        }
    }
    for message in stale {
        let removed = session.handle.address().del(message).execute().await;
        forgive_missing(removed, "remove an address")?;
    }
    for net in missing {
        let mut request = session.handle.address().add(index, net.addr(), net.prefix_len()).replace();
        if net.addr().is_ipv6() {
            // Nobody else is on the link: no need to wait for duplicate address detection.
            request.message_mut().attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let added = request.execute().await;
        added.map_err(|error| refused(&format!("add the address {net}"), error))?;
    }
    Ok(())
}

fn address_of(message: &AddressMessage) -> Option<IpNet> {
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    IpNet::new(local.or(address)?, message.header.prefix_len).ok()
}

fn is_kernel_made(net: &IpNet) -> bool {
    matches!(net.addr(), IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80)
}

fn device_route(index: u32, table: u32, net: &IpNet) -> RouteMessage {
    match net {
        IpNet::V4(net) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .table_id(table)
            .protocol(rules::PROTOCOL)
            .scope(RouteScope::Link)
            .build(),
        IpNet::V6(net) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(net.addr(), net.prefix_len())
            .output_interface(index)
            .table_id(table)
            .protocol(rules::PROTOCOL)
            .build(),
    }
}

fn table_of(route: &RouteMessage) -> u32 {
    let explicit = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    explicit.unwrap_or_else(|| u32::from(route.header.table))
}

fn interface_name(index: u32) -> Option<String> {
    nix::net::if_::if_indextoname(index).ok()?.into_string().ok()
}
