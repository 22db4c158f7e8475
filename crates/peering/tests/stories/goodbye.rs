//! Goodbyes: the other side knows at once, and nothing is left on either side.

use std::time::Duration;

use adit_peering::{CloseReason, Event, Role};
use adit_protocol::peer::GoodbyeReason;

use crate::world::{NatKind, World, ms};

/// Connected with a direct and a relayed path.
fn connected() -> World {
    let mut world = World::new(20);
    world.add_relay("198.51.100.1");
    let nat = world.add_nat(NatKind::PortRestricted, "203.0.113.10");
    world.add_host(Role::Client, &["192.168.1.2:51820"], Some(nat));
    world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
    world.run_for(Duration::from_secs(1));
    world.introduce(0, 1);
    world.exchange(0, b"hello", Duration::from_secs(2)).expect("an answer");
    world.run_for(Duration::from_secs(3));
    world
}

fn say_goodbye(world: &mut World, host: usize, reason: GoodbyeReason) {
    world.with(host, |node, now, id| node.close(now, id, reason, Some(ms(5000))));
}

#[test]
fn either_side_ends_it_in_one_way_trip() {
    for (sender, receiver, reason) in [(0, 1, GoodbyeReason::SignedOut), (1, 0, GoodbyeReason::ShuttingDown)]
    {
        let mut world = connected();
        let said = world.now;
        say_goodbye(&mut world, sender, reason);
        assert_eq!(world.closed(sender), Some((said, CloseReason::Local)));
        world.assert_nothing_left(sender);
        world.run_for(ms(21));
        let (heard, how) = world.closed(receiver).expect("closed");
        assert_eq!(how, CloseReason::Goodbye { reason, retry_after: Some(ms(5000)) });
        assert_eq!(heard - said, ms(20));
        world.run_for(Duration::from_secs(60));
        world.assert_nothing_left(0);
        world.assert_nothing_left(1);
    }
}

#[test]
fn a_goodbye_goes_over_every_path() {
    let mut world = connected();
    // The direct path fails at the very moment.
    world.blocked = Some(Box::new(|datagram| {
        let ends = [datagram.from.ip().to_string(), datagram.to.ip().to_string()];
        ends.contains(&"203.0.113.10".to_owned()) && ends.contains(&"203.0.113.20".to_owned())
    }));
    say_goodbye(&mut world, 1, GoodbyeReason::Revoked);
    world.run_for(ms(100));
    let how = world.closed(0).map(|(_, how)| how);
    assert_eq!(
        how,
        Some(CloseReason::Goodbye { reason: GoodbyeReason::Revoked, retry_after: Some(ms(5000)) })
    );
}

#[test]
fn a_lost_goodbye_is_found_out_by_probes() {
    let mut world = connected();
    world.blocked = Some(Box::new(|_| true));
    say_goodbye(&mut world, 0, GoodbyeReason::SignedOut);
    world.blocked = None;
    // The gateway holds no reset tokens of clients; it notices that nobody answers.
    for _ in 0..300 {
        world.send(1, b"anybody there?");
        world.run_for(ms(100));
    }
    assert_eq!(world.closed(1).map(|(_, how)| how), Some(CloseReason::Liveness));
    world.assert_nothing_left(1);
}

#[test]
fn duplicate_late_and_crossing_goodbyes_are_harmless() {
    let mut world = connected();
    world.duplication = 100;
    world.jitter = ms(200);
    say_goodbye(&mut world, 0, GoodbyeReason::SignedOut);
    say_goodbye(&mut world, 1, GoodbyeReason::ShuttingDown);
    world.run_for(ms(5));
    // A new connection of the same two begins while the old goodbyes are still under way.
    world.introduce(0, 1);
    world.exchange(0, b"again", Duration::from_secs(5)).expect("an answer");
    world.run_for(Duration::from_secs(5));
    for host in [0, 1] {
        assert!(world.hosts[host].connection.is_some(), "the new connection lives");
        let closings = world.hosts[host].events.iter();
        let closings = closings.filter(|(_, event)| matches!(event, Event::Closed { .. }));
        assert_eq!(closings.count(), 1, "each end closed the old one once");
    }
}

#[test]
fn before_there_is_a_session_closing_is_silent_and_complete() {
    let mut world = World::new(21);
    world.add_relay("198.51.100.1");
    world.add_host(Role::Client, &["203.0.113.10:51820"], None);
    world.add_host(Role::Gateway, &["203.0.113.20:51820"], None);
    world.run_for(Duration::from_secs(1));
    world.introduce(0, 1);
    say_goodbye(&mut world, 0, GoodbyeReason::NoResources);
    world.assert_nothing_left(0);
    world.run_for(Duration::from_secs(30));
    assert!(world.closed(1).is_some());
    world.assert_nothing_left(1);
}

#[test]
fn a_new_introduction_replaces_the_old_connection() {
    let mut world = connected();
    world.introduce(0, 1);
    assert_eq!(world.closed(0).map(|(_, how)| how), Some(CloseReason::Replaced));
    assert_eq!(world.closed(1).map(|(_, how)| how), Some(CloseReason::Replaced));
    world.exchange(0, b"again", Duration::from_secs(2)).expect("an answer");
    assert_eq!(world.hosts[0].node.statistics().connections, 1);
    say_goodbye(&mut world, 0, GoodbyeReason::SignedOut);
    world.run_for(ms(50));
    world.assert_nothing_left(0);
    world.assert_nothing_left(1);
}
