//! Addresses and their changes from rtnetlink.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType};
use rtnetlink::MulticastGroup;
use tokio::sync::watch as cell;

use super::{
    Filter, LONGEST_PAUSE, LocalAddress, LocalNetwork, MOST_NETWORKS, Reach, SHORTEST_PAUSE, Snapshot,
    Watcher, is_network, is_usable,
};
use crate::netlink::{Session, destination_of, errno, to_io};

/// Pause before a broken netlink connection is opened again.
const RETRY: Duration = Duration::from_secs(1);

/// The state right now.
///
/// # Errors
/// When the kernel refuses the questions.
pub async fn list(filter: &Filter) -> io::Result<Snapshot> {
    let session = Session::open()?;
    let links = up_links(&session, filter).await?;
    let mut snapshot = Snapshot {
        addresses: Vec::new(),
        egress_v4: session.egress(false, filter.fwmark).await?,
        egress_v6: session.egress(true, filter.fwmark).await?,
        networks: if filter.lists_networks { networks(&session, &links).await? } else { Vec::new() },
    };
    let mut dump = session.handle.address().get().execute();
    while let Some(message) = dump.try_next().await.map_err(to_io)? {
        let Some(link) = links.get(&message.header.index) else { continue };
        if let Some(address) =
            usable_address(&message).filter(|&address| is_usable(address, &filter.excluded))
        {
            let interface = message.header.index;
            snapshot.addresses.push(LocalAddress { interface, address, name: link.name.clone() });
        }
    }
    snapshot.addresses.sort_unstable();
    snapshot.addresses.dedup();
    Ok(snapshot)
}

/// Watches the network namespace of the calling thread; needs a tokio runtime.
///
/// # Errors
/// When the first look or the subscription fails. Later failures are retried once a second.
pub async fn watch(filter: Filter) -> io::Result<Watcher> {
    let mut changes = subscribe()?;
    let (sender, snapshots) = cell::channel(list(&filter).await?);
    let task = tokio::spawn(async move {
        loop {
            follow(&mut changes, &filter, &sender).await;
            tracing::warn!("lost the subscription to network changes; subscribing again");
            loop {
                tokio::time::sleep(RETRY).await;
                if let Ok(again) = subscribe() {
                    changes = again;
                    publish(&filter, &sender).await;
                    break;
                }
            }
        }
    });
    Ok(Watcher { snapshots, task: Some(task.abort_handle()) })
}

/// Yields once per notification and ends with the connection.
type Changes = std::pin::Pin<Box<dyn futures_util::Stream<Item = ()> + Send>>;

fn subscribe() -> io::Result<Changes> {
    let groups = [
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv6Ifaddr,
        MulticastGroup::Ipv4Route,
        MulticastGroup::Ipv6Route,
    ];
    let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    // The connection lives as long as its handle. A lost notification (overrun) arrives as a message too, and
    // any message means: look again.
    Ok(Box::pin(messages.map(move |_| {
        let _keep = &handle;
    })))
}

/// Looks at once after quiet; each further look of a burst comes after twice the pause of the one before.
async fn follow(changes: &mut Changes, filter: &Filter, sender: &cell::Sender<Snapshot>) {
    while changes.next().await.is_some() {
        let mut pause = SHORTEST_PAUSE;
        while let Burst::GoesOn = look(changes, filter, sender, pause).await {
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// Whether notifications came while nobody looked.
enum Burst {
    GoesOn,
    Over,
}

/// Publishes the state, then lets `pause` pass.
async fn look(
    changes: &mut Changes,
    filter: &Filter,
    sender: &cell::Sender<Snapshot>,
    pause: Duration,
) -> Burst {
    publish(filter, sender).await;
    let window = tokio::time::sleep(pause);
    tokio::pin!(window);
    let mut burst = Burst::Over;
    loop {
        tokio::select! {
            () = &mut window => return burst,
            more = changes.next() => match more {
                Some(()) => burst = Burst::GoesOn,
                None => return Burst::Over,
            },
        }
    }
}

async fn publish(filter: &Filter, sender: &cell::Sender<Snapshot>) {
    match list(filter).await {
        Ok(snapshot) => {
            sender.send_if_modified(|last| {
                let differs = *last != snapshot;
                *last = snapshot;
                differs
            });
        }
        Err(error) => tracing::warn!(%error, "cannot read the addresses of this host"),
    }
}

/// An interface of others that is up.
struct Link {
    name: String,
    /// Whether it carries bare IP packets, as tunnels do.
    is_tunnel: bool,
}

async fn up_links(session: &Session, filter: &Filter) -> io::Result<BTreeMap<u32, Link>> {
    let mut links = BTreeMap::new();
    let mut dump = session.handle.link().get().execute();
    while let Some(link) = dump.try_next().await.map_err(to_io)? {
        let flags = link.header.flags;
        if !flags.contains(LinkFlags::Up | LinkFlags::Running) || flags.contains(LinkFlags::Loopback) {
            continue;
        }
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        if let Some(name) = name.filter(|name| !filter.own_interfaces.contains(name)) {
            let is_tunnel = matches!(link.header.link_layer_type, LinkLayerType::None | LinkLayerType::Ppp);
            links.insert(link.header.index, Link { name, is_tunnel });
        }
    }
    Ok(links)
}

/// The networks that routes through `links` lead to, in any table.
async fn networks(session: &Session, links: &BTreeMap<u32, Link>) -> io::Result<Vec<LocalNetwork>> {
    let mut found = BTreeSet::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        let mut dump = session.handle.route().get(query).execute();
        loop {
            let route = match dump.try_next().await {
                Ok(Some(route)) => route,
                Ok(None) => break,
                Err(error) if errno(&error) == Some(libc::EAFNOSUPPORT) => break, // no IPv6 in this kernel
                Err(error) => return Err(to_io(error)),
            };
            found.extend(local_network(&route, links));
            if found.len() > MOST_NETWORKS {
                found.pop_last();
            }
        }
    }
    Ok(found.into_iter().collect())
}

fn local_network(route: &RouteMessage, links: &BTreeMap<u32, Link>) -> Option<LocalNetwork> {
    if route.header.kind != RouteType::Unicast || route.header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let network = destination_of(route);
    let mut has_router = false;
    let mut through = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => through = Some(*index),
            RouteAttribute::MultiPath(hops) => {
                through = hops.first().map(|hop| hop.interface_index);
                has_router = true;
            }
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => has_router = true,
            _ => {}
        }
    }
    let link = links.get(&through?)?;
    let reach = match (link.is_tunnel, has_router) {
        (true, _) => Reach::Tunnel,
        (false, true) => Reach::Routed,
        (false, false) => Reach::Connected,
    };
    is_network(&network).then(|| LocalNetwork { reach, network, interface: link.name.clone() })
}

/// The interface's own address, unless IPv6 has not proved it unique yet or is about to drop it.
fn usable_address(message: &AddressMessage) -> Option<IpAddr> {
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Flags(flags)
                if flags.intersects(AddressFlags::Dadfailed | AddressFlags::Deprecated)
                    || (flags.contains(AddressFlags::Tentative)
                        && !flags.contains(AddressFlags::Optimistic)) =>
            {
                return None;
            }
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the other end.
    local.or(address)
}
