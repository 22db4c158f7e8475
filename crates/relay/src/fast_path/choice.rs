//! Whether the kernel shall forward, how, and on which interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_relay_xdp::{Addresses, Config, Mode, XdpError, interface};
use adit_turn::Family;
use anyhow::{Context as _, ensure};

use crate::arguments::Xdp;
use crate::identity;
use crate::settings::Place;

/// The mode that is to be tried, and whether nothing else will do; `None` if the kernel shall not forward.
pub(crate) const fn wanted(mode: Xdp) -> Option<(Mode, bool)> {
    match mode {
        Xdp::Off => None,
        Xdp::Auto => Some((Mode::Driver, false)),
        Xdp::Driver => Some((Mode::Driver, true)),
        Xdp::Generic => Some((Mode::Generic, true)),
    }
}

/// What to attach, and to the interfaces that clients and peers come in by.
///
/// # Errors
///
/// With the reason why the sockets shall serve everything. The kernel may still have one of its own.
pub(crate) fn choose(place: &Place, mode: Mode, is_certain: bool) -> anyhow::Result<Config> {
    ensure!(adit_relay_xdp::IS_BUILT_IN, XdpError::NotBuilt);
    ensure!(!place.limits.has_rates(), "users have limited rates, which only the relay itself keeps");
    let addresses = addresses(place)?;
    let interfaces = interfaces(place, &addresses)?;
    if !is_certain {
        for name in &interfaces {
            // Whether software like veth sends what a program gives it depends on its other end, of which nobody here knows.
            ensure!(
                interface::is_device(name),
                "{name} is no device; --xdp driver or generic would try all the same"
            );
        }
    }
    let capacity = place.xdp.routes;
    let (first, second): ([u8; 8], [u8; 8]) = (identity::random()?, identity::random()?);
    let secret = (u64::from_ne_bytes(first), u64::from_ne_bytes(second));
    Ok(Config { interfaces, mode, addresses, capacity, secret })
}

/// The addresses that frames for the relay bear.
fn addresses(place: &Place) -> anyhow::Result<Addresses> {
    let local = |family| match place.address(family) {
        None => Ok(None),
        Some(address) if !address.bind.is_unspecified() => Ok(Some(address.bind)),
        Some(_) => {
            let local = interface::address_to_the_internet(family == Family::V6);
            local.map(Some).context("cannot tell the relay's own address; give --bind-ipv4 or --bind-ipv6")
        }
    };
    let v4 = |ip: Option<IpAddr>| ip.and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None });
    let v6 = |ip: Option<IpAddr>| ip.and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
    let (local_v4, local_v6): (Option<Ipv4Addr>, Option<Ipv6Addr>) =
        (v4(local(Family::V4)?), v6(local(Family::V6)?));
    Ok(Addresses { local_v4, local_v6, listener_port: place.port, ports: place.ports.clone() })
}

/// Those that were named, or those that have the relay's addresses.
fn interfaces(place: &Place, addresses: &Addresses) -> anyhow::Result<Vec<String>> {
    if !place.xdp.interfaces.is_empty() {
        return Ok(place.xdp.interfaces.clone());
    }
    let own = [addresses.local_v4.map(IpAddr::V4), addresses.local_v6.map(IpAddr::V6)];
    let mut found = Vec::new();
    for ip in own.into_iter().flatten() {
        let name = interface::with_address(ip);
        let name =
            name.with_context(|| format!("no interface has the address {ip}; give --xdp-interface"))?;
        if !found.contains(&name) {
            found.push(name);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::arguments::Arguments;

    fn chosen(more: &str) -> anyhow::Result<Config> {
        let line = format!("adit-relay doctor --public-ipv4 127.0.0.1 --bind-ipv4 127.0.0.1 {more}");
        let place = Place::new(&Arguments::parse_from(line.split_whitespace())).expect("sound");
        let (mode, is_certain) = wanted(place.xdp.mode).expect("asked for");
        choose(&place, mode, is_certain)
    }

    #[test]
    fn off_asks_for_nothing() {
        assert_eq!(wanted(Xdp::Off), None);
    }

    #[cfg(not(feature = "xdp"))]
    #[test]
    fn a_build_without_the_program_says_so() {
        let error = chosen("--xdp auto").expect_err("lacks the program");
        assert!(error.to_string().contains("--features xdp"), "{error}");
    }

    #[cfg(feature = "xdp")]
    #[test]
    fn limited_rates_keep_everything_in_the_sockets() {
        for limit in ["--max-packets-per-second 100000", "--max-bytes-per-second 100000000"] {
            for mode in ["auto", "driver", "generic"] {
                let error = chosen(&format!("--xdp {mode} {limit}")).expect_err("has rates");
                assert!(error.to_string().contains("limited rates"), "{error}");
            }
        }
    }

    #[cfg(feature = "xdp")]
    #[test]
    fn only_devices_are_chosen_without_being_asked_for() {
        let error = chosen("--xdp auto").expect_err("loopback is no device");
        assert!(error.to_string().contains("lo is no device"), "{error}");
        let config = chosen("--xdp driver --xdp-routes 7").expect("asked for");
        assert_eq!(
            (config.interfaces, config.mode, config.capacity),
            (vec!["lo".to_owned()], Mode::Driver, 7)
        );
        assert_eq!(config.addresses.local_v4, Some(Ipv4Addr::LOCALHOST));
        let config = chosen("--xdp generic --xdp-interface eth7,eth8").expect("asked for");
        assert_eq!(
            (config.interfaces, config.mode),
            (vec!["eth7".to_owned(), "eth8".to_owned()], Mode::Generic)
        );
    }
}
