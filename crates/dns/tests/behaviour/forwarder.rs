//! Upstreams that answer, stay silent, fail, lie and cut short.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_dns::{Forwarder, Query, ResponseError, Transport, UpstreamFailure, UpstreamQuery};
use domain::base::iana::{Rcode, Rtype};

use crate::messages::{Seen, addresses, bare, cut, query, query_edns, read};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);

/// A forwarder, its clock and what came out of it.
struct World {
    forwarder: Forwarder<&'static str>,
    now: Instant,
}

fn upstream(number: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, number], 53))
}

impl World {
    fn new(upstreams: u8) -> Self {
        let mut forwarder = Forwarder::new([7; 32]);
        forwarder.set_upstreams((1..=upstreams).map(upstream).collect());
        Self { forwarder, now: Instant::now() }
    }

    fn ask(&mut self, message: &[u8], token: &'static str) {
        self.ask_over(Transport::Udp, message, token);
    }

    fn ask_over(&mut self, transport: Transport, message: &[u8], token: &'static str) {
        let query = Query::parse(message).expect("a valid query");
        self.forwarder.forward(self.now, &query, transport, token);
    }

    fn sent(&mut self) -> Vec<UpstreamQuery> {
        std::iter::from_fn(|| self.forwarder.poll_upstream_query()).collect()
    }

    /// The only message sent since the last look.
    fn sent_one(&mut self) -> UpstreamQuery {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    fn answers(&mut self) -> Vec<(&'static str, Seen)> {
        std::iter::from_fn(|| self.forwarder.poll_answer())
            .map(|answer| (answer.token, read(&answer.message)))
            .collect()
    }

    fn respond(&mut self, to: &UpstreamQuery, response: &[u8]) -> Result<(), ResponseError> {
        self.forwarder.handle_response(self.now, to.id, Ok(response))
    }

    fn fail(&mut self, to: &UpstreamQuery) {
        self.forwarder
            .handle_response(self.now, to.id, Err(UpstreamFailure::Unreachable))
            .expect("still awaited");
    }

    /// Sleeps until the forwarder wants to be woken.
    fn wait(&mut self) -> Duration {
        let (wake, reason) = self.forwarder.poll_timeout().expect("something is under way");
        assert_eq!(reason, "DNS query");
        let slept = wake - self.now;
        self.now = wake;
        self.forwarder.handle_timeout(self.now);
        slept
    }
}

#[test]
fn a_query_goes_out_under_another_identifier_and_comes_back_under_its_own() {
    let mut world = World::new(1);
    let asked = query("Example.com", Rtype::A);
    world.ask(&asked, "app");
    let sent = world.sent_one();
    assert_eq!((sent.server, sent.transport), (upstream(1), Transport::Udp));
    assert_eq!(sent.message[2..], asked[2..], "the rest is untouched");
    world.respond(&sent, &addresses(&sent.message, 300, &[ADDRESS])).expect("believed");
    let answers = world.answers();
    assert_eq!(answers.len(), 1);
    let (token, seen) = &answers[0];
    assert_eq!((*token, seen.id, seen.rcode), ("app", 0x1234, Rcode::NOERROR));
    assert_eq!(seen.records, ["192.0.2.80"]);
    assert_eq!(
        (world.forwarder.pending(), world.forwarder.poll_timeout()),
        (0, None),
        "nothing is left behind"
    );
}

#[test]
fn identifiers_cannot_be_foretold() {
    let mut world = World::new(1);
    let mut ids: Vec<[u8; 2]> = Vec::new();
    for number in 0..100 {
        world.ask(&query(&format!("h{number}.example"), Rtype::A), "app");
        let sent = world.sent_one();
        ids.push([sent.message[0], sent.message[1]]);
    }
    let differences: std::collections::HashSet<u16> = ids
        .windows(2)
        .map(|pair| u16::from_be_bytes(pair[1]).wrapping_sub(u16::from_be_bytes(pair[0])))
        .collect();
    assert!(differences.len() > 90, "identifiers follow a rule");
    let mut other = Forwarder::new([8; 32]);
    other.set_upstreams(vec![upstream(1)]);
    other.forward(
        world.now,
        &Query::parse(&query("h0.example", Rtype::A)).expect("valid"),
        Transport::Udp,
        (),
    );
    assert_ne!(
        other.poll_upstream_query().expect("asked").message[..2],
        ids[0],
        "another seed, other identifiers"
    );
}

#[test]
fn forged_responses_are_refused_and_the_real_one_still_counts() {
    let mut world = World::new(1);
    world.ask(&query("example.com", Rtype::A), "app");
    let sent = world.sent_one();
    let mut wrong_id = addresses(&sent.message, 300, &[ADDRESS]);
    wrong_id[1] ^= 1;
    assert_eq!(world.respond(&sent, &wrong_id), Err(ResponseError::NotTheAnswer));
    let mut other_question = addresses(&query("evil.example", Rtype::A), 300, &[ADDRESS]);
    other_question[..2].copy_from_slice(&sent.message[..2]);
    assert_eq!(world.respond(&sent, &other_question), Err(ResponseError::NotTheAnswer));
    assert_eq!(world.respond(&sent, &sent.message), Err(ResponseError::NotTheAnswer), "an echo is no answer");
    assert_eq!(world.respond(&sent, &[0; 3]), Err(ResponseError::Malformed));
    assert!(world.answers().is_empty());
    let real = addresses(&sent.message, 300, &[ADDRESS]);
    world.respond(&sent, &real).expect("believed");
    assert_eq!(world.answers().len(), 1);
    assert_eq!(world.respond(&sent, &real), Err(ResponseError::Unknown), "once is enough");
}

#[test]
fn a_silent_upstream_is_passed_over_and_remembered() {
    let mut world = World::new(2);
    world.ask(&query("example.com", Rtype::A), "app");
    let first = world.sent_one();
    world.wait();
    let second = world.sent_one();
    assert_eq!(second.server, upstream(2));
    assert_ne!(first.message[..2], second.message[..2], "a new attempt has a new identifier");
    world.respond(&second, &addresses(&second.message, 0, &[ADDRESS])).expect("believed");
    assert_eq!(world.answers().len(), 1);
    world.ask(&query("example.org", Rtype::A), "app");
    assert_eq!(world.sent_one().server, upstream(2), "who answered is asked first");
}

#[test]
fn a_slow_upstream_may_still_answer_after_the_next_was_asked() {
    let mut world = World::new(2);
    world.ask(&query("example.com", Rtype::A), "app");
    let first = world.sent_one();
    world.wait();
    let second = world.sent_one();
    world.respond(&first, &addresses(&first.message, 300, &[ADDRESS])).expect("believed");
    assert_eq!(world.answers().len(), 1);
    let late = addresses(&second.message, 300, &[ADDRESS]);
    assert_eq!(world.respond(&second, &late), Err(ResponseError::Unknown));
    assert!(world.answers().is_empty());
}

#[test]
fn servfail_and_refusals_lead_to_the_next_upstream() {
    for rcode in [Rcode::SERVFAIL, Rcode::REFUSED, Rcode::NOTIMP] {
        let mut world = World::new(2);
        world.ask(&query("example.com", Rtype::A), "app");
        let first = world.sent_one();
        world.respond(&first, &bare(&first.message, rcode)).expect("believed");
        let second = world.sent_one();
        assert_eq!(second.server, upstream(2));
        world.respond(&second, &addresses(&second.message, 300, &[ADDRESS])).expect("believed");
        assert_eq!(world.answers()[0].1.rcode, Rcode::NOERROR);
    }
}

#[test]
fn when_all_fail_the_client_hears_what_they_said() {
    let mut world = World::new(2);
    world.ask(&query("example.com", Rtype::A), "app");
    let first = world.sent_one();
    world.respond(&first, &bare(&first.message, Rcode::REFUSED)).expect("believed");
    let second = world.sent_one();
    world.fail(&second);
    let answers = world.answers();
    assert_eq!((answers[0].1.rcode, answers[0].1.id), (Rcode::REFUSED, 0x1234));
}

#[test]
fn when_all_are_unreachable_the_client_hears_it_at_once() {
    let mut world = World::new(2);
    world.ask(&query("example.com", Rtype::A), "app");
    for _ in 0..2 {
        let sent = world.sent_one();
        world.fail(&sent);
    }
    assert_eq!(world.answers()[0].1.rcode, Rcode::SERVFAIL);
}

#[test]
fn when_all_are_silent_the_client_hears_it_after_five_seconds() {
    for upstreams in [1, 3] {
        let mut world = World::new(upstreams);
        world.ask(&query("example.com", Rtype::A), "app");
        let mut waited = Duration::ZERO;
        while world.forwarder.pending() > 0 {
            waited += world.wait();
        }
        assert_eq!(waited, Duration::from_secs(5));
        assert_eq!(world.sent().len(), 4, "attempts are limited");
        assert_eq!(world.answers()[0].1.rcode, Rcode::SERVFAIL);
        assert_eq!(world.forwarder.poll_timeout(), None);
    }
}

#[test]
fn a_truncated_response_is_asked_for_again_over_tcp() {
    let mut world = World::new(1);
    world.ask(&query_edns("example.com", Rtype::A, 1232, false), "app");
    let udp = world.sent_one();
    world.respond(&udp, &cut(&udp.message)).expect("believed");
    let tcp = world.sent_one();
    assert_eq!((tcp.server, tcp.transport), (udp.server, Transport::Tcp));
    world.respond(&tcp, &addresses(&tcp.message, 300, &[ADDRESS; 20])).expect("believed");
    let answers = world.answers();
    assert_eq!((answers[0].1.truncated, answers[0].1.records.len()), (false, 20));
}

#[test]
fn what_does_not_fit_the_client_is_truncated_and_ready_over_tcp() {
    let mut world = World::new(1);
    let asked = query("example.com", Rtype::A);
    world.ask(&asked, "datagram");
    let udp = world.sent_one();
    world.respond(&udp, &cut(&udp.message)).expect("believed");
    let tcp = world.sent_one();
    world.respond(&tcp, &addresses(&tcp.message, 300, &[ADDRESS; 100])).expect("believed");
    let answers = world.answers();
    assert_eq!((answers[0].1.truncated, answers[0].1.records.len()), (true, 0));
    world.ask_over(Transport::Tcp, &asked, "stream");
    assert!(world.sent().is_empty(), "the cache has it");
    let answers = world.answers();
    assert_eq!((answers[0].0, answers[0].1.truncated, answers[0].1.records.len()), ("stream", false, 100));
}

#[test]
fn without_upstreams_there_is_no_waiting() {
    let mut world = World::new(0);
    world.ask(&query("example.com", Rtype::A), "app");
    assert_eq!(world.answers()[0].1.rcode, Rcode::SERVFAIL);
}

#[test]
fn upstreams_may_vanish_while_a_query_is_under_way() {
    let mut world = World::new(2);
    world.ask(&query("example.com", Rtype::A), "app");
    world.sent_one();
    world.forwarder.set_upstreams(Vec::new());
    world.wait();
    assert_eq!(world.answers()[0].1.rcode, Rcode::SERVFAIL);
}

#[test]
fn a_flood_of_queries_is_bounded() {
    let mut world = World::new(1);
    for number in 0..3000 {
        world.ask(&query(&format!("h{number}.example"), Rtype::A), "app");
    }
    assert_eq!(world.forwarder.pending(), 1024);
    let refused = world.answers();
    assert_eq!(refused.len(), 3000 - 1024);
    assert!(refused.iter().all(|(_, seen)| seen.rcode == Rcode::SERVFAIL));
    while world.forwarder.pending() > 0 {
        world.wait();
    }
    assert_eq!(world.answers().len(), 1024, "every client hears something");
}
