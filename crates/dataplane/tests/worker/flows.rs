//! Lives of flows: misses, refusals, revocation, expiry, TCP state, sessions coming and going.

use std::time::Duration;

use adit_dataplane::{DropReason, EndCause, Event, Flow, FlowKey, GrantId, Origin, PeerId, Sizes, Update};

use crate::world::{
    CLIENT, GATEWAY, GRANT, World, deliver, events, install_flow, seal, socket, tcp, udp, view,
};

const SECOND: Duration = Duration::from_secs(1);

const APP: &str = "100.64.0.1:4000";
const SERVER: &str = "10.0.0.9:53";

fn question() -> Vec<u8> {
    udp(APP, SERVER, b"question")
}

fn answer() -> Vec<u8> {
    udp(SERVER, APP, b"answer")
}

fn ends(worker: &mut adit_dataplane::Worker) -> Vec<EndCause> {
    let cause = |event| match event {
        Event::FlowEnded { cause, .. } => Some(cause),
        Event::PeerActive { .. } | Event::Roamed { .. } => None,
    };
    events(worker).into_iter().filter_map(cause).collect()
}

#[test]
fn packets_travel_both_ways_once_there_is_a_flow() {
    let mut world = World::new();
    assert_eq!(world.forward(&question()), Err("miss".to_owned()));
    world.install(&question(), &question());
    assert_eq!(world.forward(&question()), Ok(question()));
    assert_eq!(world.backward(&answer()), Ok(answer()));
    let counters = world.client.counters();
    assert_eq!((counters.sent_packets, counters.received_packets, counters.misses), (1, 1, 1));
    assert_eq!(counters.sent_bytes, question().len() as u64);
}

#[test]
fn a_peer_gets_in_only_through_its_own_flow() {
    let mut world = World::new();
    let flow = Flow::untranslated(
        FlowKey::new(Origin::Local, view(&question()).flow().unwrap()),
        Origin::Peer(GATEWAY),
        GRANT,
    );
    install_flow(&mut world.client, world.now, flow);
    let missed = format!("miss of {} bytes", question().len());
    assert_eq!(world.forward(&question()), Err(missed.clone()), "the gateway has no flow");
    // A flow of another peer with the same addresses does not help.
    let key = FlowKey::new(Origin::Peer(PeerId(999)), view(&question()).flow().unwrap());
    let flow = Flow::untranslated(key, Origin::Local, GRANT);
    install_flow(&mut world.gateway, world.now, flow);
    assert_eq!(world.forward(&question()), Err(missed));
    // Nor does a reply that nobody asked for.
    assert_eq!(world.backward(&answer()).unwrap_err(), "miss");
}

#[test]
fn a_revoked_grant_stops_its_flows_at_once_and_only_those() {
    let mut world = World::new();
    let other = udp("100.64.0.1:4001", SERVER, b"other grant");
    world.install(&question(), &question());
    for (worker, origin, to) in [
        (&mut world.client, Origin::Local, Origin::Peer(GATEWAY)),
        (&mut world.gateway, Origin::Peer(CLIENT), Origin::Local),
    ] {
        let flow = Flow::untranslated(FlowKey::new(origin, view(&other).flow().unwrap()), to, GrantId(6));
        install_flow(worker, world.now, flow);
    }
    assert!(world.forward(&question()).is_ok());
    world.gateway.apply(world.now, Update::GrantRevoked { grant: GRANT });
    assert!(world.forward(&question()).is_err());
    assert_eq!(world.backward(&answer()), Err("miss".to_owned()));
    assert!(world.forward(&other).is_ok());
    let ended: Vec<_> = events(&mut world.gateway)
        .into_iter()
        .filter(|event| matches!(event, Event::FlowEnded { .. }))
        .collect();
    let [Event::FlowEnded { cause: EndCause::Revoked, counters, .. }] = ended[..] else {
        panic!("{ended:?}")
    };
    assert_eq!((counters.forward_packets, counters.forward_bytes), (1, question().len() as u64));
}

#[test]
fn refusals_are_cached_briefly() {
    let mut world = World::new();
    let key = FlowKey::new(Origin::Local, view(&question()).flow().unwrap());
    let until = world.now + 2 * SECOND;
    world.client.apply(world.now, Update::FlowRefused { key, reason: DropReason::NotAuthorized, until });
    assert_eq!(world.forward(&question()), Err("not_authorized".to_owned()));
    world.now += 2 * SECOND;
    assert_eq!(world.forward(&question()), Err("miss".to_owned()), "even before the sweep");
    assert_eq!(world.client.counters().dropped(DropReason::NotAuthorized), 1);
    assert!(ends(&mut world.client).is_empty(), "a refusal is no flow");
    assert_eq!(world.client.sizes().flows, 0);
    world.install(&question(), &question());
    assert!(world.forward(&question()).is_ok());
}

#[test]
fn idle_flows_end_by_timer() {
    let mut world = World::new();
    world.install(&question(), &question());
    for _ in 0..5 {
        world.wait(100 * SECOND / 5);
        assert!(world.forward(&question()).is_ok());
    }
    world.wait(119 * SECOND);
    assert_eq!(world.client.sizes().flows, 1);
    world.wait(2 * SECOND);
    assert_eq!(world.client.sizes().flows, 0);
    assert_eq!(world.client.poll_timeout(), None);
    assert_eq!(ends(&mut world.client), [EndCause::Idle]);
}

#[test]
fn tcp_flows_live_by_the_state_of_the_connection() {
    let (app, server) = ("100.64.0.1:4000", "10.0.0.9:443");
    let mut world = World::new();
    let syn = tcp(app, server, "S");
    world.install(&syn, &syn);
    let talk = |world: &mut World, forward: &[&str], backward: &[&str]| {
        for flags in forward {
            seal(&mut world.client, world.now, &tcp(app, server, flags)).expect("a flow");
        }
        for flags in backward {
            seal(&mut world.gateway, world.now, &tcp(server, app, flags)).expect("a flow");
        }
    };
    // The client's worker sees one direction only in this test, so it stays transitory.
    talk(&mut world, &["S", "A"], &[]);
    assert!(world.client.poll_timeout().unwrap().0 <= world.now + 241 * SECOND);
    // Only the gateway's worker sees the reset.
    talk(&mut world, &[], &["SA", "R"]);
    assert!(seal(&mut world.gateway, world.now, &tcp(server, app, "A")).is_ok(), "for the last packets");
    world.wait(12 * SECOND);
    assert_eq!((world.client.sizes().flows, world.gateway.sizes().flows), (1, 0));
    assert_eq!(ends(&mut world.gateway), [EndCause::Closed]);
    world.wait(240 * SECOND);
    assert_eq!(ends(&mut world.client), [EndCause::Idle]);
}

#[test]
fn established_connections_survive_an_hour_of_silence() {
    let (app, server) = ("[fd00::1]:4000", "[fd00::9]:443");
    let mut world = World::new();
    let syn = tcp(app, server, "S");
    world.install(&syn, &syn);
    let exchange = |world: &mut World| {
        world.forward(&tcp(app, server, "A")).expect("forward");
        world.backward(&tcp(server, app, "A")).expect("backward");
    };
    exchange(&mut world);
    // Sessions end after 180 s; new ones come from the control thread.
    world.wait(3600 * SECOND);
    assert_eq!((world.client.sizes().flows, world.gateway.sizes().flows), (1, 1));
    assert_eq!(world.forward(&tcp(app, server, "A")), Err("miss".to_owned()), "no live session: a miss");
    world.wait(3600 * SECOND);
    assert_eq!(world.client.sizes().flows, 0);
}

#[test]
fn a_replaced_flow_leaves_nothing_of_the_old_one() {
    let mut world = World::new();
    world.install(&question(), &udp("100.64.0.1:4000", "10.0.0.1:53", b""));
    world.install(&question(), &udp("100.64.0.1:4000", "10.0.0.2:53", b""));
    assert_eq!(world.gateway.sizes().flows, 1);
    assert_eq!(ends(&mut world.gateway), [EndCause::Replaced]);
    let passed = world.forward(&question()).unwrap();
    assert_eq!(view(&passed).destination().to_string(), "10.0.0.2");
    let stale = udp("10.0.0.1:53", APP, b"");
    assert_eq!(world.backward(&stale), Err("miss".to_owned()));
}

#[test]
fn a_flow_that_contradicts_itself_is_not_installed() {
    let mut world = World::new();
    let key = FlowKey::new(Origin::Local, view(&question()).flow().unwrap());
    let good = Flow::untranslated(key, Origin::Peer(GATEWAY), GRANT);
    let mut wrong_rewrite = good;
    wrong_rewrite.forward.destination = Some("10.9.9.9".parse().unwrap());
    let mut wrong_hop = good;
    wrong_hop.to = adit_dataplane::NextHop::Tun;
    let local_to_local = Flow::untranslated(key, Origin::Local, GRANT);
    let between_peers =
        Flow::untranslated(FlowKey { origin: Origin::Peer(CLIENT), ..key }, Origin::Peer(GATEWAY), GRANT);
    let mut families = good;
    families.reply_key.source = "fd00::1".parse().unwrap();
    for flow in [wrong_rewrite, wrong_hop, local_to_local, between_peers, families] {
        install_flow(&mut world.client, world.now, flow);
        assert_eq!(world.forward(&question()), Err("miss".to_owned()));
    }
    assert_eq!(world.client.counters().dropped(DropReason::InconsistentFlow), 5);
    let mut spelled_out = good;
    spelled_out.forward.source = Some(key.source);
    install_flow(&mut world.client, world.now, spelled_out);
    assert!(seal(&mut world.client, world.now, &question()).is_ok(), "naming an unchanged field is fine");
}

#[test]
fn a_removed_peer_leaves_nothing_behind() {
    let mut world = World::new();
    world.install(&question(), &question());
    let (datagram, _) = seal(&mut world.client, world.now, &question()).unwrap();
    world.gateway.apply(world.now, Update::PeerRemoved { peer: CLIENT });
    let addresses = [socket("198.51.100.1:6000"), socket("192.0.2.1:5000")];
    assert_eq!(deliver(&mut world.gateway, world.now, addresses, datagram), Err("not mine".to_owned()));
    assert_eq!(world.gateway.sizes(), Sizes { flows: 1, peers: 0, sessions: 0 }, "its flows are misses");
    world.gateway.apply(world.now, Update::FlowsForgotten { peer: CLIENT });
    assert_eq!(world.gateway.sizes(), Sizes { flows: 0, peers: 0, sessions: 0 });
    assert_eq!(world.gateway.poll_timeout(), None);
    assert_eq!(ends(&mut world.gateway), [EndCause::PeerGone]);
}

#[test]
fn forgotten_flows_are_misses_and_the_peer_stays() {
    let mut world = World::new();
    world.install(&question(), &question());
    world.client.apply(world.now, Update::FlowsForgotten { peer: GATEWAY });
    assert_eq!(world.forward(&question()), Err("miss".to_owned()));
    assert_eq!(world.client.sizes(), Sizes { flows: 0, peers: 1, sessions: 1 });
}

#[test]
fn without_a_session_packets_are_misses() {
    let mut world = World::new();
    world.install(&question(), &question());
    let receiver_index = world.sessions[0].receiver_index();
    world.client.apply(world.now, Update::SessionRemoved { receiver_index });
    assert_eq!(world.forward(&question()), Err("miss".to_owned()));
    let [ours, _] = world.sessions.clone();
    world.client.apply(world.now, Update::SendSession { peer: GATEWAY, session: ours });
    assert!(world.forward(&question()).is_ok());
    world.now += 180 * SECOND;
    world.install(&question(), &question());
    assert_eq!(world.forward(&question()), Err("miss".to_owned()), "past its end of life");
}

#[test]
fn expired_sessions_do_not_open() {
    let mut world = World::new();
    world.install(&question(), &question());
    let (datagram, _) = seal(&mut world.client, world.now, &question()).unwrap();
    world.now += 180 * SECOND;
    let addresses = [socket("198.51.100.1:6000"), socket("192.0.2.1:5000")];
    assert_eq!(
        deliver(&mut world.gateway, world.now, addresses, datagram),
        Err("session_expired".to_owned())
    );
}

#[test]
fn first_traffic_after_quiet_is_told_once() {
    let mut world = World::new();
    world.install(&question(), &question());
    for _ in 0..3 {
        world.forward(&question()).unwrap();
    }
    // The confirming keepalive of the handshake was the gateway's first traffic.
    let told = [events(&mut world.client), events(&mut world.gateway)];
    assert!(told.iter().all(|events| events.len() <= 1), "{told:?}");
    let (sent, _) = world.sessions[0].activity().sent();
    assert_eq!(sent, 4, "the confirmation and three packets");
    let (received, bytes) = world.sessions[1].activity().received();
    assert_eq!((received, bytes), (4, 3 * question().len().next_multiple_of(16) as u64));
}

#[test]
fn a_new_flow_overtakes_nothing_that_the_control_thread_still_has() {
    let mut world = World::new();
    let packet = question();
    let tuple = view(&packet).flow().unwrap();
    let miss = Err("miss".to_owned());
    for _ in 0..2 {
        assert_eq!(seal(&mut world.client, world.now, &packet).map(drop), miss);
        world.client.note_miss();
    }
    // The first of the two is dealt with.
    let flow = Flow::untranslated(FlowKey::new(Origin::Local, tuple), Origin::Peer(GATEWAY), GRANT);
    world.client.apply(world.now, Update::install(flow));
    assert_eq!(seal(&mut world.client, world.now, &packet).map(drop), miss, "nothing has been sent yet");
    world.client.note_miss();
    let reply = FlowKey::new(Origin::Peer(CLIENT), view(&answer()).flow().unwrap());
    let there = Flow::untranslated(FlowKey::new(Origin::Local, reply.tuple()), Origin::Peer(CLIENT), GRANT);
    install_flow(&mut world.gateway, world.now, there);
    assert_eq!(world.backward(&answer()), Ok(answer()), "but what comes back is not held");
    world.client.apply(world.now, Update::Flushed { misses: 1 });
    assert_eq!(seal(&mut world.client, world.now, &packet).map(drop), miss, "the second is on its way");
    world.client.apply(world.now, Update::Flushed { misses: 2 });
    assert_eq!(seal(&mut world.client, world.now, &packet).map(drop), miss, "the third was handed over too");
    world.client.apply(world.now, Update::Flushed { misses: 3 });
    assert!(seal(&mut world.client, world.now, &packet).is_ok(), "the fourth was not: there was no room");
}
