//! Proxy addresses: what resource names resolve to on the device.
//!
//! A resource name gets four IPv4 and four IPv6 addresses out of the tunnel's proxy ranges and keeps them for the
//! session. Four, so that clients which try several addresses after a failure have something to try; both families, so
//! that it does not matter which one an application prefers. What the name means is resolved by the gateway.
//!
//! Addresses are handed out in blocks. New names take blocks that were never used; only when none is left does the
//! name that was idle for the longest lose its block, and only after [`IDLE`], because an application may still hold
//! the old answer.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::name::Name;

/// Addresses of each family for one name.
pub const ADDRESSES_PER_NAME: usize = 4;
/// A name keeps its addresses at least this long after its last use.
pub const IDLE: Duration = Duration::from_secs(3600);
/// Names at one time, at about 300 bytes each.
const MAXIMUM_NAMES: u32 = 16_384;

/// The proxy addresses of one name.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Assignment {
    /// IPv4 addresses, ascending.
    pub ipv4: [Ipv4Addr; ADDRESSES_PER_NAME],
    /// IPv6 addresses, ascending.
    pub ipv6: [Ipv6Addr; ADDRESSES_PER_NAME],
}

impl Assignment {
    /// All addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.ipv4.into_iter().map(IpAddr::V4).chain(self.ipv6.into_iter().map(IpAddr::V6))
    }
}

/// Every block is in use by a name that was used recently.
#[derive(Copy, Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("all proxy addresses are in use")]
pub struct Exhausted;

/// Who has which proxy addresses.
#[derive(Debug)]
pub struct ProxyAddresses {
    ipv4: Ipv4Net,
    ipv6: Ipv6Net,
    blocks_available: u32,
    /// Block `n` belongs to `owners[n - 1]`: block 0 is never used, because it holds the network's own addresses.
    owners: Vec<Owner>,
    blocks: HashMap<Name, u32>,
    /// All used blocks by last use.
    by_use: BTreeSet<(Instant, u32)>,
}

#[derive(Debug)]
struct Owner {
    name: Name,
    last_use: Instant,
}

impl ProxyAddresses {
    /// Hands out addresses of these ranges; prefixes longer than /29 or /125 hold no block.
    pub fn new(ipv4: Ipv4Net, ipv6: Ipv6Net) -> Self {
        let (ipv4, ipv6) = (ipv4.trunc(), ipv6.trunc());
        // The last block is left out with the first: it holds the broadcast address.
        let blocks = |host_bits: u8| (1u128 << host_bits.min(64)) / ADDRESSES_PER_NAME as u128;
        let smaller = blocks(32 - ipv4.prefix_len()).min(blocks(128 - ipv6.prefix_len())).saturating_sub(2);
        let blocks_available = u32::try_from(smaller).unwrap_or(u32::MAX).min(MAXIMUM_NAMES);
        Self {
            ipv4,
            ipv6,
            blocks_available,
            owners: Vec::new(),
            blocks: HashMap::new(),
            by_use: BTreeSet::new(),
        }
    }

    /// The ranges in use.
    pub const fn ranges(&self) -> (Ipv4Net, Ipv6Net) {
        (self.ipv4, self.ipv6)
    }

    /// Whether `address` is in the ranges, assigned or not.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.contains(&address),
            IpAddr::V6(address) => self.ipv6.contains(&address),
        }
    }

    /// The addresses of `name`, assigned now if it has none; counts as use.
    ///
    /// # Errors
    ///
    /// [`Exhausted`] when there is no block left and none that is idle.
    pub fn assign(&mut self, now: Instant, name: &Name) -> Result<Assignment, Exhausted> {
        let block = match self.blocks.get(name) {
            Some(block) => *block,
            None => self.take_block(now, name)?,
        };
        self.mark_used(now, block);
        Ok(self.assignment(block))
    }

    /// The name that `address` is assigned to.
    pub fn name(&self, address: IpAddr) -> Option<&Name> {
        self.owner(address).map(|(_, owner)| &owner.name)
    }

    /// The name and all addresses of the assignment that `address` belongs to.
    pub fn assignment_of(&self, address: IpAddr) -> Option<(&Name, Assignment)> {
        self.owner(address).map(|(block, owner)| (&owner.name, self.assignment(block)))
    }

    /// Notes that the name behind `address` is in use.
    pub fn touch(&mut self, now: Instant, address: IpAddr) {
        if let Some((block, _)) = self.owner(address) {
            self.mark_used(now, block);
        }
    }

    /// Names that have addresses.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Whether no name has addresses.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    fn owner(&self, address: IpAddr) -> Option<(u32, &Owner)> {
        let offset = match address {
            IpAddr::V4(address) if self.ipv4.contains(&address) => {
                u128::from(address.to_bits() - self.ipv4.network().to_bits())
            }
            IpAddr::V6(address) if self.ipv6.contains(&address) => {
                address.to_bits() - self.ipv6.network().to_bits()
            }
            _ => return None,
        };
        let block = u32::try_from(offset / ADDRESSES_PER_NAME as u128).ok()?;
        let owner = self.owners.get(block.checked_sub(1)? as usize)?;
        Some((block, owner))
    }

    fn take_block(&mut self, now: Instant, name: &Name) -> Result<u32, Exhausted> {
        let owner = Owner { name: name.clone(), last_use: now };
        let block = if (self.owners.len() as u32) < self.blocks_available {
            self.owners.push(owner);
            self.owners.len() as u32
        } else {
            let (last_use, block) = self.by_use.first().copied().ok_or(Exhausted)?;
            if now.saturating_duration_since(last_use) < IDLE {
                return Err(Exhausted);
            }
            self.by_use.remove(&(last_use, block));
            let old = std::mem::replace(&mut self.owners[block as usize - 1], owner);
            self.blocks.remove(&old.name);
            block
        };
        self.blocks.insert(name.clone(), block);
        Ok(block)
    }

    fn mark_used(&mut self, now: Instant, block: u32) {
        let owner = &mut self.owners[block as usize - 1];
        self.by_use.remove(&(owner.last_use, block));
        owner.last_use = now;
        self.by_use.insert((now, block));
    }

    fn assignment(&self, block: u32) -> Assignment {
        let first = block * ADDRESSES_PER_NAME as u32;
        let (ipv4, ipv6) = (self.ipv4.network().to_bits(), self.ipv6.network().to_bits());
        Assignment {
            ipv4: std::array::from_fn(|at| Ipv4Addr::from_bits(ipv4 + first + at as u32)),
            ipv6: std::array::from_fn(|at| Ipv6Addr::from_bits(ipv6 + u128::from(first) + at as u128)),
        }
    }
}
