//! The policy rules of a [`Bypass`].
//!
//! Up to three per family, in this order:
//!
//! 1. not our mark → the table of the tunnel's routes;
//! 2. not our mark → the main table, default routes ignored, so that directly connected networks stay
//!    reachable beside rule 3;
//! 3. not our mark → the table of the tunnel's default routes.
//!
//! The last two exist only while the tunnel has a default route, and stand behind the first rules of all tunnels of the
//! host, so that the default route of one takes nothing from the networks of another. Our rules are known by their
//! priority and by the protocol number that they carry.

use futures_util::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{RouteHeader, RouteProtocol};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::IpVersion;

use super::linux::{forgive_missing, refused};
use super::{Bypass, FWMARK_MASK, NetworkError, guard};
use crate::netlink::{Session, errno};

/// Marks routes and rules as ours (`ip route show proto 173`).
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(173);

/// The rules that should exist.
pub(super) fn desired(bypass: &Bypass, family: AddressFamily, with_default: bool) -> Vec<RuleMessage> {
    let mut rules = vec![rule(bypass, family, bypass.priority, bypass.table, None)];
    if with_default {
        let (priority, main) = (bypass.default_priority, u32::from(RouteHeader::RT_TABLE_MAIN));
        rules.push(rule(bypass, family, priority, main, Some(0)));
        rules.push(rule(bypass, family, priority + 1, bypass.table + 1, None));
    }
    rules
}

fn rule(
    bypass: &Bypass,
    family: AddressFamily,
    priority: u32,
    table: u32,
    suppress: Option<u32>,
) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.header.flags = RuleFlags::Invert;
    message.attributes = vec![
        RuleAttribute::Priority(priority),
        RuleAttribute::FwMark(bypass.fwmark & FWMARK_MASK),
        RuleAttribute::FwMask(FWMARK_MASK),
        RuleAttribute::Protocol(PROTOCOL),
    ];
    match u8::try_from(table) {
        Ok(small) => message.header.table = small,
        Err(_) => message.attributes.push(RuleAttribute::Table(table)),
    }
    if let Some(length) = suppress {
        message.attributes.push(RuleAttribute::SuppressPrefixLen(length));
    }
    message
}

/// Whether a rule of the host is one of ours, current or stale.
pub(super) fn is_ours(bypass: &Bypass, rule: &RuleMessage) -> bool {
    let ours = rule.attributes.contains(&RuleAttribute::Protocol(PROTOCOL));
    let of_default = [bypass.default_priority, bypass.default_priority + 1];
    ours && priority(rule).is_some_and(|own| own == bypass.priority || of_default.contains(&own))
}

/// Whether two rules do the same; the kernel adds attributes of its own to what it reports.
pub(super) fn same(wanted: &RuleMessage, found: &RuleMessage) -> bool {
    wanted.header.family == found.header.family
        && table(wanted) == table(found)
        && found.header.flags.contains(RuleFlags::Invert)
        && wanted.attributes.iter().all(|attribute| found.attributes.contains(attribute))
        && suppress(wanted) == suppress(found)
}

/// Makes the rules of one family these, as far as they are ours.
pub(super) async fn set(
    session: &Session,
    bypass: &Bypass,
    family: AddressFamily,
    wanted: &[RuleMessage],
) -> Result<(), NetworkError> {
    let version = if family == AddressFamily::Inet { IpVersion::V4 } else { IpVersion::V6 };
    let mut dump = session.handle.rule().get(version).execute();
    let mut present = vec![false; wanted.len()];
    let mut stale = Vec::new();
    loop {
        let rule = match dump.try_next().await {
            Ok(Some(rule)) => rule,
            Ok(None) => break,
            Err(error) if errno(&error) == Some(libc::EAFNOSUPPORT) => return Ok(()), // no IPv6 in this kernel
            Err(error) => return Err(refused("list the policy rules", error)),
        };
        if rule.header.family != family || !is_ours(bypass, &rule) {
            continue;
        }
        match wanted.iter().position(|wanted| same(wanted, &rule)).filter(|&at| !present[at]) {
            Some(at) => present[at] = true,
            None => stale.push(rule),
        }
    }
    for rule in stale {
        forgive_missing(session.handle.rule().del(rule).execute().await, "remove a policy rule")?;
    }
    for (rule, _) in wanted.iter().zip(present).filter(|(_, present)| !present) {
        let mut request = session.handle.rule().add();
        *request.message_mut() = rule.clone();
        request.execute().await.map_err(|error| refused("add a policy rule", error))?;
    }
    Ok(())
}

/// Removes the rules of one family; those of a default route that is guarded stay, if `keeps_guard` says so.
pub(super) async fn take_back(
    session: &Session,
    bypass: &Bypass,
    family: AddressFamily,
    keeps_guard: bool,
) -> Result<(), NetworkError> {
    if keeps_guard && guard::stands(session, bypass, family).await? {
        return set(session, bypass, family, &desired(bypass, family, true)).await;
    }
    set(session, bypass, family, &[]).await?;
    guard::set(session, bypass, family, false).await
}

fn priority(rule: &RuleMessage) -> Option<u32> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    })
}

fn table(rule: &RuleMessage) -> u32 {
    rule.attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or_else(|| u32::from(rule.header.table))
}

fn suppress(rule: &RuleMessage) -> Option<u32> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        // The kernel reports "suppress nothing" as all ones.
        RuleAttribute::SuppressPrefixLen(length) if *length != u32::MAX => Some(*length),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::PROFILES;
    use super::*;

    #[test]
    fn a_default_route_adds_the_rules_that_keep_local_networks_reachable() {
        let bypass = Bypass::default();
        assert_eq!(desired(&bypass, AddressFamily::Inet, false).len(), 1);
        let rules = desired(&bypass, AddressFamily::Inet6, true);
        assert_eq!(rules.iter().map(table).collect::<Vec<_>>(), [0xad17, 254, 0xad18]);
        assert_eq!(rules.iter().map(priority).collect::<Vec<_>>(), [Some(5_100), Some(5_110), Some(5_111)]);
        assert_eq!(rules.iter().map(suppress).collect::<Vec<_>>(), [None, Some(0), None]);
        assert!(rules.iter().all(|rule| is_ours(&bypass, rule)));
    }

    #[test]
    fn the_rules_of_tunnels_are_told_apart_and_default_routes_come_last() {
        let all: Vec<Bypass> = (0..PROFILES).map(Bypass::of_profile).collect();
        let rules = |bypass: &Bypass| desired(bypass, AddressFamily::Inet, true);
        for (number, bypass) in all.iter().enumerate() {
            for (other, foreign) in all.iter().enumerate() {
                assert!(rules(foreign).iter().all(|rule| is_ours(bypass, rule) == (number == other)));
            }
        }
        let last_of_routes = all.iter().map(|bypass| bypass.priority).max();
        let first_of_defaults = all.iter().map(|bypass| bypass.default_priority).min();
        assert!(last_of_routes < first_of_defaults);
    }

    #[test]
    fn rules_of_others_are_not_ours() {
        let bypass = Bypass::default();
        let mut foreign = desired(&bypass, AddressFamily::Inet, false).remove(0);
        foreign.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::Protocol(_)));
        assert!(!is_ours(&bypass, &foreign));
        let elsewhere = desired(&Bypass { priority: 9_000, ..bypass }, AddressFamily::Inet, false).remove(0);
        assert!(!is_ours(&bypass, &elsewhere));
    }

    #[test]
    fn a_reported_rule_is_recognised_despite_added_attributes() {
        let wanted = desired(&Bypass::default(), AddressFamily::Inet, false).remove(0);
        let mut found = wanted.clone();
        found.attributes.push(RuleAttribute::SuppressPrefixLen(u32::MAX));
        assert!(same(&wanted, &found));
        found.header.flags = RuleFlags::empty();
        assert!(!same(&wanted, &found));
    }
}
