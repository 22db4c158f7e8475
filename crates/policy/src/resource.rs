//! What a user may reach: a name, an address, a network, or the Internet, at one site.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Filter, ResourceId, SiteId};

/// The place whose gateways serve a resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Site {
    /// Names the site.
    pub id: SiteId,
    /// Shown to people.
    pub name: String,
}

/// Something behind a site's gateways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Resource {
    /// Names the resource.
    pub id: ResourceId,
    /// Shown to people.
    pub name: String,
    /// Where it is.
    pub address: ResourceAddress,
    /// The site whose gateways reach it.
    pub site: Site,
    /// The traffic that is let through; an empty list lets all of it through.
    #[serde(default)]
    pub filters: Vec<Filter>,
}

/// Where a resource is, as its administrator wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResourceAddress {
    /// Names that match a pattern (`*` one label, `**` any depth, `?` one character),
    /// resolved by the gateway where the resource lives.
    Dns {
        /// The pattern, lower case, without a trailing dot.
        pattern: String,
    },
    /// One address.
    Ip {
        /// The address as the gateway reaches it.
        #[cfg_attr(feature = "openapi", schema(value_type = String, example = "192.0.2.7"))]
        address: IpAddr,
    },
    /// A network.
    Cidr {
        /// The network as the gateway reaches it.
        #[cfg_attr(feature = "openapi", schema(value_type = String, example = "192.0.2.0/24"))]
        network: IpNet,
    },
    /// Everything that no other resource covers.
    Internet,
}

impl ResourceAddress {
    /// The network that the address covers; `None` for names and the Internet.
    pub fn network(&self) -> Option<IpNet> {
        match self {
            Self::Ip { address } => Some(IpNet::from(*address)),
            Self::Cidr { network } => Some(network.trunc()),
            Self::Dns { .. } | Self::Internet => None,
        }
    }
}
