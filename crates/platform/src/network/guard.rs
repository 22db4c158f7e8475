//! What stands behind the tunnel's default route: nothing leaves beside the tunnel while it is wanted.
//!
//! Routes through the interface go away with it, when its process is killed for instance, but rules stay. Without more,
//! the host would then look on and find its own default route. So the table of the tunnel's default routes also holds a
//! route that refuses, which counts only when no other is there. It outlives the process, until a later run has set the
//! state that is wanted, or has taken everything back.

use std::net::{Ipv4Addr, Ipv6Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteMessage, RouteType};
use rtnetlink::RouteMessageBuilder;

use super::linux::{forgive_missing, refused};
use super::rules::PROTOCOL;
use super::{Bypass, NetworkError};
use crate::netlink::Session;

/// Behind every other route.
const METRIC: u32 = u32::MAX - 1;

/// Sets or removes the guard of one family.
pub(super) async fn set(
    session: &Session,
    bypass: &Bypass,
    family: AddressFamily,
    is_wanted: bool,
) -> Result<(), NetworkError> {
    let stands = stands(session, bypass, family).await?;
    if stands == is_wanted {
        return Ok(());
    }
    let route = route(bypass, family);
    if is_wanted {
        let added = session.handle.route().add(route).replace().execute().await;
        added.map_err(|error| refused("guard the default route", error))
    } else {
        let removed = session.handle.route().del(route).execute().await;
        forgive_missing(removed, "remove the guard of the default route")
    }
}

/// Whether the guard of one family is there.
pub(super) async fn stands(
    session: &Session,
    bypass: &Bypass,
    family: AddressFamily,
) -> Result<bool, NetworkError> {
    let found = session.refusing_routes(family, PROTOCOL, table(bypass)).await;
    found.map(|count| count > 0).map_err(|error| refused("list the routes", error))
}

const fn table(bypass: &Bypass) -> u32 {
    bypass.table + 1
}

fn route(bypass: &Bypass, family: AddressFamily) -> RouteMessage {
    match family {
        AddressFamily::Inet => refusing(RouteMessageBuilder::<Ipv4Addr>::new(), bypass),
        _ => refusing(RouteMessageBuilder::<Ipv6Addr>::new(), bypass),
    }
}

fn refusing<T>(builder: RouteMessageBuilder<T>, bypass: &Bypass) -> RouteMessage {
    builder.kind(RouteType::Unreachable).table_id(table(bypass)).protocol(PROTOCOL).priority(METRIC).build()
}
