//! From what a machine wants of its interface to what the platform sets.

use adit_platform::network::NetworkState;
use adit_tunnel::Interface;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The network state of the interface called `name`.
pub(crate) fn network_state(name: &str, interface: &Interface) -> NetworkState {
    let mut routes = interface.routes.clone();
    if interface.default_route {
        routes.extend([IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())]);
    }
    NetworkState {
        interface: name.to_owned(),
        mtu: u32::from(interface.mtu),
        addresses: vec![
            IpNet::from(std::net::IpAddr::V4(interface.ipv4)),
            IpNet::from(std::net::IpAddr::V6(interface.ipv6)),
        ],
        routes,
    }
}
