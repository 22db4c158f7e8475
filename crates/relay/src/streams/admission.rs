//! How many connections there may be, in all and from one address.
//!
//! All shards share the count, because the kernel spreads one address's connections over them. Its lock is taken when a connection comes
//! and when it goes, never for a packet.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Refusal;

/// The bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Connections at a time.
    pub(crate) connections: usize,
    /// Connections from one IPv4 address or IPv6 /64 at a time.
    pub(crate) per_address: usize,
    /// How long one may stay without an allocation.
    pub(crate) idle_timeout: Duration,
}

/// The door; clones lead to the same room.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    limits: Limits,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    connections: usize,
    by_prefix: HashMap<IpAddr, usize>,
}

/// Somebody's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Admission,
    prefix: IpAddr,
}

impl Admission {
    /// Nobody inside.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, inside: Arc::default() }
    }

    /// The bounds.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes a place.
    ///
    /// # Errors
    ///
    /// When there is none left.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<Permit, Refusal> {
        let prefix = prefix(address);
        let mut inside = self.lock();
        if inside.connections >= self.limits.connections {
            return Err(Refusal::TooMany);
        }
        let here = inside.by_prefix.get(&prefix).copied().unwrap_or(0);
        if here >= self.limits.per_address {
            return Err(Refusal::TooManyFromAddress);
        }
        inside.by_prefix.insert(prefix, here + 1);
        inside.connections += 1;
        Ok(Permit { admission: self.clone(), prefix })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inside = self.admission.lock();
        inside.connections -= 1;
        let here = inside.by_prefix.get(&self.prefix).copied().unwrap_or(0);
        if here > 1 {
            inside.by_prefix.insert(self.prefix, here - 1);
        } else {
            inside.by_prefix.remove(&self.prefix);
        }
    }
}

/// What one subscriber has: an IPv4 address or an IPv6 /64.
fn prefix(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_per_address_and_in_all_and_given_back() {
        let admission =
            Admission::new(Limits { connections: 4, per_address: 2, idle_timeout: Duration::MAX });
        let admit = |ip: &str| admission.clone().admit(ip.parse().expect("address"));
        let first = admit("192.0.2.1").expect("room");
        let second = admit("192.0.2.1").expect("room");
        assert_eq!(admit("192.0.2.1").err(), Some(Refusal::TooManyFromAddress));
        let _third = admit("2001:db8::1").expect("room");
        let _fourth = admit("2001:db8::2").expect("room");
        drop(first);
        assert_eq!(admit("2001:db8::ffff:0:0:1").err(), Some(Refusal::TooManyFromAddress), "the same /64");
        let _fifth = admit("192.0.2.2").expect("room");
        assert_eq!(admit("192.0.2.1").err(), Some(Refusal::TooMany));
        drop(second);
        assert!(admit("192.0.2.1").is_ok());
        assert_eq!(admission.lock().by_prefix.len(), 2, "nobody is remembered who has left");
    }
}
