//! What the stub resolver answers itself, what it forwards, and what it drops.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_dns::{Decision, DropReason, StubResolver};
use domain::base::iana::{Class, Rcode, Rtype};

use crate::messages::{Seen, name, query, query_edns, query_in, read};

fn stub() -> StubResolver<u32> {
    let mut stub = StubResolver::new(
        "100.96.0.0/16".parse().expect("a network"),
        "fd00::/100".parse().expect("a network"),
    );
    let resources = [("*.corp", 1), ("wiki.corp", 2), ("**.lab.example", 3)];
    stub.set_resources(resources.map(|(text, key)| (text.parse().expect("a pattern"), key)).into());
    stub
}

fn answer(stub: &mut StubResolver<u32>, message: &[u8]) -> Seen {
    match stub.handle_query(Instant::now(), message) {
        Decision::Answer(answer) => read(&answer),
        other => panic!("expected an answer, got {other:?}"),
    }
}

fn is_forwarded(stub: &mut StubResolver<u32>, message: &[u8]) -> bool {
    matches!(stub.handle_query(Instant::now(), message), Decision::Forward(query) if query.bytes() == message)
}

#[test]
fn a_resource_name_resolves_to_proxy_addresses_for_a_short_time() {
    let mut stub = stub();
    let seen = answer(&mut stub, &query("Wiki.Corp", Rtype::A));
    assert_eq!((seen.id, seen.rcode, seen.truncated), (0x1234, Rcode::NOERROR, false));
    assert_eq!(seen.question, "Wiki.Corp", "the spelling of the question comes back");
    assert_eq!(seen.records, ["100.96.0.4", "100.96.0.5", "100.96.0.6", "100.96.0.7"]);
    assert!(seen.ttls.iter().all(|ttl| (1..=60).contains(ttl)));
    let seen = answer(&mut stub, &query("wiki.corp", Rtype::AAAA));
    assert_eq!(seen.records, ["fd00::4", "fd00::5", "fd00::6", "fd00::7"]);
}

#[test]
fn a_proxy_address_leads_back_to_its_name_and_the_resources_in_order() {
    let mut stub = stub();
    answer(&mut stub, &query("wiki.corp", Rtype::A));
    let (owner, _) = stub.assignment_of("fd00::6".parse().expect("an address")).expect("assigned");
    assert_eq!(owner, &name("wiki.corp"));
    assert_eq!(stub.resources(owner).copied().collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn names_keep_their_addresses_when_resources_change() {
    let mut stub = stub();
    let before = answer(&mut stub, &query("wiki.corp", Rtype::A)).records;
    stub.set_resources(Vec::new());
    assert!(is_forwarded(&mut stub, &query("wiki.corp", Rtype::A)), "no resource any more");
    let address: IpAddr = "100.96.0.4".parse().expect("an address");
    let (owner, _) = stub.assignment_of(address).expect("still assigned");
    assert_eq!(stub.resources(owner).count(), 0);
    stub.set_resources(vec![("wiki.corp".parse().expect("a pattern"), 9)]);
    assert_eq!(answer(&mut stub, &query("wiki.corp", Rtype::A)).records, before);
}

#[test]
fn a_resource_name_never_leaves_whatever_is_asked_about_it() {
    let mut stub = stub();
    for rtype in
        [Rtype::HTTPS, Rtype::SVCB, Rtype::MX, Rtype::TXT, Rtype::SRV, Rtype::SOA, Rtype::NS, Rtype::CNAME]
    {
        let seen = answer(&mut stub, &query("wiki.corp", rtype));
        assert_eq!((seen.rcode, seen.records.len()), (Rcode::NOERROR, 0), "{rtype}");
    }
    assert_eq!(answer(&mut stub, &query("wiki.corp", Rtype::ANY)).records.len(), 4);
}

#[test]
fn other_names_are_forwarded_as_they_came() {
    let mut stub = stub();
    for (text, rtype) in
        [("example.com", Rtype::A), ("corp", Rtype::A), ("a.b.corp", Rtype::HTTPS), (".", Rtype::NS)]
    {
        assert!(is_forwarded(&mut stub, &query(text, rtype)), "{text}");
    }
    assert!(is_forwarded(&mut stub, &query_edns("example.com", Rtype::A, 4096, true)));
}

#[test]
fn reverse_lookups_of_proxy_addresses_find_the_name() {
    let mut stub = stub();
    answer(&mut stub, &query("wiki.corp", Rtype::A));
    let v4 = "5.0.96.100.in-addr.arpa";
    let v6 = "4.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    for reverse in [v4, v6] {
        assert_eq!(answer(&mut stub, &query(reverse, Rtype::PTR)).records, ["wiki.corp."], "{reverse}");
        assert_eq!(answer(&mut stub, &query(reverse, Rtype::TXT)).records.len(), 0);
    }
    let unassigned = answer(&mut stub, &query("200.0.96.100.in-addr.arpa", Rtype::PTR));
    assert_eq!((unassigned.rcode, unassigned.records.len()), (Rcode::NXDOMAIN, 0));
    for elsewhere in [
        "1.1.1.1.in-addr.arpa",
        "96.100.in-addr.arpa",
        "5.0.96.100.5.in-addr.arpa",
        "x.0.96.100.in-addr.arpa",
        "d.f.ip6.arpa",
    ] {
        assert!(is_forwarded(&mut stub, &query(elsewhere, Rtype::PTR)), "{elsewhere}");
    }
}

#[test]
fn clients_learn_that_this_resolver_must_not_be_bypassed() {
    let mut stub = stub();
    let canary = answer(&mut stub, &query("use-application-dns.net", Rtype::A));
    assert_eq!((canary.rcode, canary.records.len()), (Rcode::NXDOMAIN, 0));
    let discovery = answer(&mut stub, &query("_dns.resolver.arpa", Rtype::SVCB));
    assert_eq!((discovery.rcode, discovery.records.len()), (Rcode::NOERROR, 0));
}

#[test]
fn edns_is_answered_with_edns_and_unknown_versions_are_refused() {
    let mut stub = stub();
    assert!(answer(&mut stub, &query_edns("wiki.corp", Rtype::A, 4096, false)).has_edns);
    assert!(!answer(&mut stub, &query("wiki.corp", Rtype::A)).has_edns);
    let mut future = query_edns("wiki.corp", Rtype::A, 4096, false);
    let version = future.len() - 5;
    future[version] = 1;
    let Decision::Answer(refusal) = stub.handle_query(Instant::now(), &future) else { panic!("no answer") };
    let message = domain::base::Message::from_octets(&refusal[..]).expect("a message");
    assert_eq!(message.opt_rcode(), domain::base::iana::OptRcode::BADVERS);
}

#[test]
fn queries_that_make_no_sense_get_the_error_that_says_so() {
    let mut stub = stub();
    let mut notify = query("wiki.corp", Rtype::SOA);
    notify[2] |= 4 << 3;
    assert_eq!(answer(&mut stub, &notify).rcode, Rcode::NOTIMP);
    assert_eq!(answer(&mut stub, &query_in("version.bind", Rtype::TXT, Class::CH)).rcode, Rcode::NOTIMP);
    assert_eq!(answer(&mut stub, &query("example.com", Rtype::AXFR)).rcode, Rcode::REFUSED);
    let mut none = query("wiki.corp", Rtype::A);
    none[5] = 0;
    assert_eq!(answer(&mut stub, &none).rcode, Rcode::FORMERR);
    let mut two = query("wiki.corp", Rtype::A);
    two[5] = 2;
    assert_eq!(answer(&mut stub, &two).rcode, Rcode::FORMERR);
    let mut cut = query("wiki.corp", Rtype::A);
    cut.truncate(20);
    assert_eq!(answer(&mut stub, &cut).rcode, Rcode::FORMERR);
}

#[test]
fn responses_and_fragments_of_headers_are_dropped() {
    let mut stub = stub();
    let now = Instant::now();
    let mut response = query("wiki.corp", Rtype::A);
    response[2] |= 0x80;
    assert!(matches!(stub.handle_query(now, &response), Decision::Drop(DropReason::Response)));
    assert!(matches!(stub.handle_query(now, &response[..11]), Decision::Drop(DropReason::Short)));
    assert!(matches!(stub.handle_query(now, &[]), Decision::Drop(DropReason::Short)));
}

#[test]
fn without_a_free_address_the_client_may_try_again() {
    let mut stub = StubResolver::new(
        "192.0.2.0/28".parse().expect("a network"),
        "fd00::/64".parse().expect("a network"),
    );
    stub.set_resources(vec![("**".parse().expect("a pattern"), ())]);
    let start = Instant::now();
    let mut rcode = |host: &str, after| match stub.handle_query(start + after, &query(host, Rtype::A)) {
        Decision::Answer(answer) => read(&answer).rcode,
        other => panic!("expected an answer, got {other:?}"),
    };
    assert_eq!(rcode("a", Duration::ZERO), Rcode::NOERROR);
    assert_eq!(rcode("b", Duration::ZERO), Rcode::NOERROR);
    assert_eq!(rcode("c", Duration::ZERO), Rcode::SERVFAIL);
    assert_eq!(rcode("c", adit_dns::IDLE), Rcode::NOERROR);
}
