//! A short-lived rtnetlink connection and the questions that several modules ask over it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use tokio::task::JoinHandle;

/// Addresses that stand for "the Internet" when asking which way packets leave; nothing is ever sent there.
const FAR_V4: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
const FAR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30);

/// A connection whose background task ends with it.
pub(crate) struct Session {
    pub(crate) handle: Handle,
    task: JoinHandle<()>,
}

impl Session {
    /// Connects to the network namespace of the calling thread; needs a tokio runtime.
    pub(crate) fn open() -> io::Result<Self> {
        // Strict checking lets the kernel filter dumps; kernels before 4.20 lack it and send everything.
        let (connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().or_else(|_| rtnetlink::new_connection())?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }

    /// The interface that packets to far destinations leave through, and the source address they get.
    pub(crate) async fn egress(&self, ipv6: bool, fwmark: Option<u32>) -> io::Result<Option<Egress>> {
        let mut query = if ipv6 {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(FAR_V6, 128).build()
        } else {
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(FAR_V4, 32).build()
        };
        query.header.table = 0;
        query.header.protocol = RouteProtocol::Unspec;
        query.header.scope = RouteScope::Universe;
        query.header.kind = RouteType::Unspec;
        if let Some(mark) = fwmark {
            query.attributes.push(RouteAttribute::Mark(mark));
        }
        match self.handle.route().get(query).execute().try_next().await {
            Ok(route) => Ok(route.as_ref().and_then(read_egress)),
            Err(error) => match errno(&error) {
                Some(
                    libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EAFNOSUPPORT | libc::EACCES | libc::EINVAL,
                ) => Ok(None),
                _ => Err(to_io(error)),
            },
        }
    }

    /// All routes of a protocol through an interface, in any table.
    pub(crate) async fn routes_of(
        &self,
        family: AddressFamily,
        protocol: RouteProtocol,
        interface: u32,
    ) -> Result<Vec<RouteMessage>, rtnetlink::Error> {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        query.header.protocol = protocol;
        query.attributes.push(RouteAttribute::Oif(interface));
        let mut found = Vec::new();
        let mut dump = self.handle.route().get(query).execute();
        while let Some(route) = dump.try_next().await? {
            let through = route.attributes.contains(&RouteAttribute::Oif(interface));
            if through && route.header.protocol == protocol {
                found.push(route);
            }
        }
        Ok(found)
    }

    /// How many routes of `protocol` in `table` refuse whatever takes them.
    pub(crate) async fn refusing_routes(
        &self,
        family: AddressFamily,
        protocol: RouteProtocol,
        table: u32,
    ) -> Result<usize, rtnetlink::Error> {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        let mut count = 0;
        let mut dump = self.handle.route().get(query).execute();
        while let Some(route) = dump.try_next().await? {
            let refuses = route.header.kind == RouteType::Unreachable && route.header.protocol == protocol;
            if refuses && route.attributes.contains(&RouteAttribute::Table(table)) {
                count += 1;
            }
        }
        Ok(count)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where packets to far destinations leave the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Interface index.
    pub interface: u32,
    /// Source address that the kernel would choose.
    pub source: Option<IpAddr>,
    /// Next router.
    pub gateway: Option<IpAddr>,
}

fn read_egress(route: &RouteMessage) -> Option<Egress> {
    let mut egress = Egress { interface: 0, source: None, gateway: None };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => egress.interface = *index,
            RouteAttribute::PrefSource(address) => egress.source = ip(address),
            RouteAttribute::Gateway(address) => egress.gateway = ip(address),
            _ => {}
        }
    }
    (egress.interface != 0 && route.header.kind == RouteType::Unicast).then_some(egress)
}

/// The network that a route leads to.
pub(crate) fn destination_of(route: &RouteMessage) -> IpNet {
    let unspecified = match route.header.address_family {
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let address = address.unwrap_or(unspecified);
    IpNet::new(address, route.header.destination_prefix_length).unwrap_or_else(|_| IpNet::from(address))
}

pub(crate) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// The positive error number of a refused request.
pub(crate) fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(message.raw_code().saturating_abs()),
        _ => None,
    }
}

pub(crate) fn to_io(error: rtnetlink::Error) -> io::Error {
    errno(&error).map_or_else(|| io::Error::other(error), io::Error::from_raw_os_error)
}
