//! Answers are kept as long as their TTL allows, and never confused.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_dns::{Forwarder, Query, Transport};
use domain::base::iana::{Rcode, Rtype};

use crate::messages::{Seen, addresses, bare, negative, query, query_edns, read};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

struct World {
    forwarder: Forwarder<()>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let mut forwarder = Forwarder::new([7; 32]);
        forwarder.set_upstreams(vec![SocketAddr::from(([198, 51, 100, 1], 53))]);
        Self { forwarder, now: Instant::now() }
    }

    /// Asks over TCP, so that size plays no role. The upstream, if it is asked, answers with what `respond` makes.
    fn ask(&mut self, message: &[u8], respond: impl FnOnce(&[u8]) -> Vec<u8>) -> (bool, Seen) {
        let query = Query::parse(message).expect("a valid query");
        self.forwarder.forward(self.now, &query, Transport::Tcp, ());
        let sent = self.forwarder.poll_upstream_query();
        let was_asked = sent.is_some();
        if let Some(sent) = sent {
            let response = respond(&sent.message);
            self.forwarder.handle_response(self.now, sent.id, Ok(&response)).expect("believed");
        }
        (was_asked, read(&self.forwarder.poll_answer().expect("an answer").message))
    }

    fn asks_upstream(&mut self, message: &[u8], respond: impl FnOnce(&[u8]) -> Vec<u8>) -> bool {
        self.ask(message, respond).0
    }

    fn sleep(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

fn one(ttl: u32) -> impl Fn(&[u8]) -> Vec<u8> {
    move |query| addresses(query, ttl, &[ADDRESS])
}

#[test]
fn a_kept_answer_counts_down_and_expires() {
    let mut world = World::new();
    let asked = query("example.com", Rtype::A);
    assert!(world.asks_upstream(&asked, one(300)));
    world.sleep(100);
    let (was_asked, seen) = world.ask(&asked, one(1));
    assert_eq!((was_asked, seen.ttls, seen.records.len()), (false, vec![200], 1));
    world.sleep(199);
    assert_eq!(world.ask(&asked, one(1)).1.ttls, [1]);
    world.sleep(1);
    assert!(world.asks_upstream(&asked, one(300)), "expired");
}

#[test]
fn a_kept_answer_wears_the_identifier_and_the_spelling_of_the_question() {
    let mut world = World::new();
    world.ask(&query("example.com", Rtype::A), one(300));
    let mut again = query("eXaMpLe.CoM", Rtype::A);
    again[..2].copy_from_slice(&[0xab, 0xcd]);
    let (was_asked, seen) = world.ask(&again, one(300));
    assert!(!was_asked);
    assert_eq!((seen.id, seen.question.as_str()), (0xabcd, "eXaMpLe.CoM"));
}

#[test]
fn names_that_do_not_exist_are_remembered_as_their_zone_says() {
    for rcode in [Rcode::NXDOMAIN, Rcode::NOERROR] {
        let mut world = World::new();
        let asked = query("nope.example", Rtype::A);
        assert!(world.asks_upstream(&asked, |query| negative(query, rcode, 60)));
        world.sleep(59);
        let (was_asked, seen) = world.ask(&asked, one(1));
        assert_eq!((was_asked, seen.rcode), (false, rcode));
        world.sleep(1);
        assert!(world.asks_upstream(&asked, one(1)));
    }
}

#[test]
fn answers_that_say_nothing_about_time_are_not_kept() {
    let mut world = World::new();
    let asked = query("example.com", Rtype::A);
    assert!(world.asks_upstream(&asked, one(0)));
    assert!(world.asks_upstream(&asked, one(0x8000_0000)), "RFC 2181, 8: the highest bit means zero");
    assert!(world.asks_upstream(&asked, |query| bare(query, Rcode::NXDOMAIN)), "no SOA, no negative TTL");
    assert!(world.asks_upstream(&asked, |query| bare(query, Rcode::SERVFAIL)));
    assert!(world.asks_upstream(&asked, one(1)));
}

#[test]
fn long_lives_are_shortened() {
    let mut world = World::new();
    let asked = query("example.com", Rtype::A);
    world.ask(&asked, one(10_000_000));
    world.sleep(86_400);
    assert!(world.asks_upstream(&asked, |query| negative(query, Rcode::NXDOMAIN, 90_000)));
    world.sleep(3600);
    assert!(world.asks_upstream(&asked, one(1)));
}

#[test]
fn different_questions_do_not_share_an_answer() {
    let mut world = World::new();
    let mut without_recursion = query("example.com", Rtype::A);
    without_recursion[2] &= !1;
    let mut checking_disabled = query("example.com", Rtype::A);
    checking_disabled[3] |= 0x10;
    let questions = [
        query("example.com", Rtype::A),
        query("example.org", Rtype::A),
        query("example.com", Rtype::MX),
        query_edns("example.com", Rtype::A, 1232, false),
        query_edns("example.com", Rtype::A, 1232, true),
        without_recursion,
        checking_disabled,
    ];
    for question in &questions {
        assert!(world.asks_upstream(question, one(300)));
    }
    for question in &questions {
        assert!(!world.asks_upstream(question, one(300)));
    }
}

#[test]
fn the_flags_of_edns_are_no_ttl() {
    let mut world = World::new();
    let asked = query_edns("example.com", Rtype::A, 1232, true);
    // The OPT record of the query, DO bit and all, comes back behind the answer.
    let opt = asked[asked.len() - 11..].to_vec();
    let with_opt = |query: &[u8]| {
        let mut response = addresses(query, 300, &[ADDRESS]);
        response[11] = 1;
        response.extend_from_slice(&opt);
        response
    };
    assert!(world.asks_upstream(&asked, with_opt));
    world.sleep(10);
    let query = Query::parse(&asked).expect("a valid query");
    world.forwarder.forward(world.now, &query, Transport::Tcp, ());
    let kept = world.forwarder.poll_answer().expect("kept").message;
    assert_eq!(read(&kept).ttls, [290]);
    assert!(kept.ends_with(&opt), "flags do not count down");
}

#[test]
fn answers_made_for_one_client_are_not_kept_for_another() {
    let mut world = World::new();
    // A cookie (RFC 7873) is an EDNS option of the client's own.
    let mut with_cookie = query_edns("example.com", Rtype::A, 1232, false);
    let length_at = with_cookie.len() - 1;
    with_cookie[length_at] = 12;
    with_cookie.extend_from_slice(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(world.asks_upstream(&with_cookie, one(300)));
    assert!(world.asks_upstream(&with_cookie, one(300)));
}

#[test]
fn new_upstreams_start_with_an_empty_memory() {
    let mut world = World::new();
    let asked = query("example.com", Rtype::A);
    world.ask(&asked, one(300));
    world.forwarder.set_upstreams(vec![SocketAddr::from(([198, 51, 100, 1], 53))]);
    assert!(!world.asks_upstream(&asked, one(300)), "the same upstreams are no change");
    world.forwarder.set_upstreams(vec![SocketAddr::from(([198, 51, 100, 2], 53))]);
    assert!(world.asks_upstream(&asked, one(300)));
}

#[test]
fn the_memory_is_bounded_and_what_expires_first_goes_first() {
    let mut world = World::new();
    let asked = |number: u32| query(&format!("h{number}.example"), Rtype::A);
    world.ask(&asked(0), one(80_000));
    for number in 1..6000 {
        world.ask(&asked(number), one(100 + number));
    }
    assert!(!world.asks_upstream(&asked(0), one(80_000)), "lives longest");
    assert!(!world.asks_upstream(&asked(5999), one(1)));
    assert!(world.asks_upstream(&asked(1), one(1)), "made room");
    let big = |query: &[u8]| addresses(query, 80_000, &[ADDRESS; 1000]);
    for number in 10_000..10_200 {
        world.ask(&asked(number), big);
    }
    let kept = (10_000..10_200).filter(|number| !world.asks_upstream(&asked(*number), one(1))).count();
    assert!((100..150).contains(&kept), "4 MiB hold {kept} answers of 30 KB");
}
