//! The one kernel setting that the program needs.
//!
//! The kernel tells a program the way to an address only on behalf of an interface that forwards. Making a relay's
//! network card forward would make the machine a router. So the program asks on behalf of the loopback interface,
//! for which the kernel looks ways up as it does for the relay's own sockets; there, forwarding concerns only
//! packets that this machine sends to itself. The setting stays when the relay ends, since another relay may rest
//! on it.

use std::fs::File;
use std::io;

use crate::{Addresses, XdpError};

const IPV4: &str = "/proc/sys/net/ipv4/conf/lo/forwarding";
const IPV6: &str = "/proc/sys/net/ipv6/conf/lo/forwarding";

/// Makes the setting for each family that the relay has.
pub(crate) fn ensure_forwarding(addresses: &Addresses) -> Result<(), XdpError> {
    of(addresses).try_for_each(|path| {
        if is_made(path) { Ok(()) } else { std::fs::write(path, "1").map_err(|source| refused(path, source)) }
    })
}

/// Whether it is made, or could be.
pub(crate) fn check_forwarding(addresses: &Addresses) -> Result<(), XdpError> {
    of(addresses).try_for_each(|path| {
        let may = || File::options().write(true).open(path).map(drop).map_err(|source| refused(path, source));
        if is_made(path) { Ok(()) } else { may() }
    })
}

/// The settings of the relay's families.
fn of(addresses: &Addresses) -> impl Iterator<Item = &'static str> {
    let v4 = addresses.local_v4.map(|_| IPV4);
    v4.into_iter().chain(addresses.local_v6.map(|_| IPV6))
}

fn is_made(path: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1")
}

fn refused(path: &'static str, source: io::Error) -> XdpError {
    XdpError::Forwarding { path, source }
}
