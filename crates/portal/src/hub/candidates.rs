//! The candidates of one device: bounded, and none that would harm whoever checks it.

use std::collections::BTreeSet;

use adit_protocol::{Candidate, CandidateUpdate};

/// Candidates that one device may have; more are of no use to anyone.
const MAX_CANDIDATES: usize = 64;

/// Changes a set of candidates and returns what is worth passing on.
pub(super) fn apply(candidates: &mut BTreeSet<Candidate>, update: &CandidateUpdate) -> CandidateUpdate {
    let removed = update.removed.iter().filter(|candidate| candidates.remove(candidate)).copied().collect();
    let mut added = Vec::new();
    for candidate in update.added.iter().filter(|candidate| is_reachable(candidate)) {
        if candidates.len() >= MAX_CANDIDATES && !candidates.contains(candidate) {
            metrics::counter!("adit_portal_candidates_refused_total", "reason" => "too_many").increment(1);
            continue;
        }
        candidates.insert(*candidate);
        added.push(*candidate);
    }
    CandidateUpdate { added, removed }
}

/// Whether checks may be sent there: a peer must not be made to probe its own host or a group.
fn is_reachable(candidate: &Candidate) -> bool {
    let ip = candidate.address.ip().to_canonical();
    let reachable =
        candidate.address.port() != 0 && !ip.is_loopback() && !ip.is_multicast() && !ip.is_unspecified();
    if !reachable {
        metrics::counter!("adit_portal_candidates_refused_total", "reason" => "unreachable").increment(1);
    }
    reachable
}

#[cfg(test)]
mod tests {
    use adit_protocol::CandidateKind;

    use super::*;

    fn candidate(address: &str) -> Candidate {
        Candidate { kind: CandidateKind::Host, address: address.parse().unwrap(), base: None }
    }

    fn update(added: &[&str], removed: &[&str]) -> CandidateUpdate {
        CandidateUpdate {
            added: added.iter().map(|text| candidate(text)).collect(),
            removed: removed.iter().map(|text| candidate(text)).collect(),
        }
    }

    #[test]
    fn candidates_that_nobody_should_probe_are_dropped() {
        let mut set = BTreeSet::new();
        let bad =
            ["127.0.0.1:1", "[::1]:1", "224.0.0.1:1", "0.0.0.0:1", "10.0.0.1:0", "[::ffff:127.0.0.1]:1"];
        assert_eq!(apply(&mut set, &update(&bad, &[])), CandidateUpdate::default());
        let good = update(&["10.0.0.1:1", "[2001:db8::1]:1"], &[]);
        assert_eq!(apply(&mut set, &good), good);
        assert_eq!(
            apply(&mut set, &update(&[], &["10.0.0.1:1", "10.9.9.9:1"])),
            update(&[], &["10.0.0.1:1"])
        );
    }

    #[test]
    fn a_device_cannot_have_more_candidates_than_anyone_needs() {
        let mut set = BTreeSet::new();
        let many: Vec<String> = (1..=200).map(|n| format!("10.0.0.{}:{}", n % 250, n)).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(apply(&mut set, &update(&many, &[])).added.len(), MAX_CANDIDATES);
        assert_eq!(set.len(), MAX_CANDIDATES);
    }
}
