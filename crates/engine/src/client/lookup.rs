//! Which resource a person means, or a packet goes to.

use std::cmp::Ordering;
use std::net::IpAddr;

use adit_policy::ResourceAddress;
use adit_tunnel::ResourceStatus;

/// Where packets to a destination go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route<'a> {
    /// Into the tunnel, because this resource covers it best.
    Resource(&'a ResourceStatus),
    /// The network's own way: no resource covers it.
    Outside,
}

/// Finds the resource that a destination (a host name or an address) belongs to: of several that cover it the
/// most specific one, as the tunnel itself decides.
#[must_use]
pub fn route<'a>(resources: &'a [ResourceStatus], destination: &str) -> Route<'a> {
    let covering = resources.iter().filter(|resource| covers(&resource.address, destination));
    match covering.max_by(|one, other| by_specificity(&one.address, &other.address)) {
        Some(resource) => Route::Resource(resource),
        None => Route::Outside,
    }
}

/// Finds what a person named: a resource's name or id, or a destination.
#[must_use]
pub fn named<'a>(resources: &'a [ResourceStatus], wanted: &str) -> Option<&'a ResourceStatus> {
    let by_name =
        resources.iter().find(|resource| resource.name == wanted || resource.id.to_string() == wanted);
    by_name.or_else(|| match route(resources, wanted) {
        Route::Resource(resource) => Some(resource),
        Route::Outside => None,
    })
}

fn covers(address: &ResourceAddress, destination: &str) -> bool {
    let ip = destination.parse::<IpAddr>().ok();
    match address {
        ResourceAddress::Dns { pattern } => {
            let pattern = pattern.parse::<adit_dns::Pattern>();
            let name = destination.parse::<adit_dns::Name>();
            ip.is_none() && pattern.ok().zip(name.ok()).is_some_and(|(pattern, name)| pattern.matches(&name))
        }
        ResourceAddress::Ip { .. } | ResourceAddress::Cidr { .. } => {
            address.network().zip(ip).is_some_and(|(network, ip)| network.contains(&ip))
        }
        ResourceAddress::Internet => ip.is_some_and(|ip| !ip.is_loopback()),
    }
}

/// Networks before the Internet, longer prefixes and closer patterns before others.
fn by_specificity(one: &ResourceAddress, other: &ResourceAddress) -> Ordering {
    match (one, other) {
        (ResourceAddress::Dns { pattern: one }, ResourceAddress::Dns { pattern: other }) => {
            match (one.parse::<adit_dns::Pattern>(), other.parse::<adit_dns::Pattern>()) {
                (Ok(one), Ok(other)) => one.cmp_specificity(&other),
                _ => Ordering::Equal,
            }
        }
        _ => {
            let length = |address: &ResourceAddress| address.network().map(|network| network.prefix_len());
            length(one).cmp(&length(other))
        }
    }
}

#[cfg(test)]
mod tests {
    use adit_policy::ResourceId;
    use adit_tunnel::ResourceState;

    use super::*;

    fn resource(name: &str, address: ResourceAddress) -> ResourceStatus {
        ResourceStatus {
            id: ResourceId::from_uuid(uuid::Uuid::from_u128(name.len() as u128)),
            name: name.to_owned(),
            address,
            site: "hq".to_owned(),
            state: ResourceState::NoActivity,
        }
    }

    fn dns(pattern: &str) -> ResourceAddress {
        ResourceAddress::Dns { pattern: pattern.to_owned() }
    }

    fn network(text: &str) -> ResourceAddress {
        ResourceAddress::Cidr { network: text.parse().unwrap() }
    }

    fn resources() -> Vec<ResourceStatus> {
        vec![
            resource("everything", ResourceAddress::Internet),
            resource("office", network("10.0.0.0/8")),
            resource("lab", network("10.1.0.0/16")),
            resource("intranet", dns("**.corp")),
            resource("git", dns("git.corp")),
        ]
    }

    fn name_of(route: &Route<'_>) -> Option<String> {
        match route {
            Route::Resource(resource) => Some(resource.name.clone()),
            Route::Outside => None,
        }
    }

    #[test]
    fn the_most_specific_resource_is_meant() {
        let resources = resources();
        for (destination, expected) in [
            ("10.1.2.3", Some("lab")),
            ("10.2.2.3", Some("office")),
            ("192.0.2.1", Some("everything")),
            ("git.corp", Some("git")),
            ("wiki.corp", Some("intranet")),
            ("example.com", None),
            ("127.0.0.1", None),
        ] {
            assert_eq!(name_of(&route(&resources, destination)).as_deref(), expected, "{destination}");
        }
    }

    #[test]
    fn people_may_say_a_name_or_what_it_covers() {
        let resources = resources();
        assert_eq!(named(&resources, "office").map(|found| &*found.name), Some("office"));
        assert_eq!(named(&resources, "10.1.0.1").map(|found| &*found.name), Some("lab"));
        assert_eq!(named(&resources, "nowhere"), None);
    }
}
