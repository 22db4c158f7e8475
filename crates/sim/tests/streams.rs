//! A network that lets no UDP out: how long an application waits, in virtual time.

use std::time::{Duration, Instant};

use adit_sim::{Shape, Transition, World};

use Transition::{BlockUdp, CrashRelay, Roam, Traffic, UnblockUdp, Wait};

const TRAFFIC: Transition = Traffic { client: 0, resource: 0, every_ms: 20 };
const TWO_RELAYS: Shape = Shape { relays: 2, ..Shape::PLAIN };

/// The longest time without an answer from here on, while `events` happen, in milliseconds.
fn outage(world: &mut World, events: &[Transition]) -> u128 {
    world.take_probes(world.now);
    let mut last = world.now;
    for event in events {
        world.apply(event);
    }
    let answers: Vec<Instant> =
        world.take_probes(world.now).into_iter().filter_map(|probe| probe.answered).collect();
    let mut worst = Duration::ZERO;
    for answer in answers {
        worst = worst.max(answer.saturating_duration_since(last));
        last = last.max(answer);
    }
    worst.max(world.now - last).as_millis()
}

/// The worst of many worlds, each after it has carried traffic for a while.
fn worst(shape: Shape, prelude: &[Transition], events: &[Transition]) -> u128 {
    (0..6)
        .map(|seed| {
            let mut world = World::new(shape, seed);
            for transition in [TRAFFIC, Wait(5_000)].iter().chain(prelude) {
                world.apply(transition);
            }
            outage(&mut world, events)
        })
        .max()
        .unwrap_or_default()
}

#[test]
fn a_firewall_that_closes_is_a_pause_of_seconds() {
    let worst = worst(TWO_RELAYS, &[], &[BlockUdp(0), Wait(20_000)]);
    assert!(worst <= 4_000, "{worst} ms");
}

#[test]
fn a_firewall_that_opens_is_no_pause() {
    let prelude = [BlockUdp(0), Wait(30_000)];
    let worst = worst(TWO_RELAYS, &prelude, &[UnblockUdp(0), Wait(60_000)]);
    assert!(worst <= 400, "{worst} ms");
}

#[test]
fn udp_is_used_again_and_the_streams_are_given_back() {
    for seed in 0..6 {
        let mut world = World::new(TWO_RELAYS, seed);
        for transition in [TRAFFIC, Wait(1_000), BlockUdp(0), Wait(20_000)] {
            world.apply(&transition);
        }
        assert_eq!(world.open_streams(0), 2, "seed {seed}");
        world.apply(&UnblockUdp(0));
        world.apply(&Wait(60_000));
        assert_eq!(world.open_streams(0), 0, "seed {seed}");
    }
}

#[test]
fn a_roam_to_an_open_network_takes_no_longer_than_any() {
    let prelude = [BlockUdp(0), Wait(30_000)];
    let worst = worst(TWO_RELAYS, &prelude, &[Roam(0), Wait(15_000)]);
    assert!(worst <= 1_500, "{worst} ms");
}

#[test]
fn a_roam_to_a_network_that_is_known_to_be_blocked_takes_little_longer() {
    let prelude = [BlockUdp(0), Wait(30_000)];
    // Nobody tells that the new network is no better, but streams are tried at once.
    let worst = worst(TWO_RELAYS, &prelude, &[Roam(0), BlockUdp(0), Wait(15_000)]);
    assert!(worst <= 2_500, "{worst} ms");
}

#[test]
fn a_relay_that_dies_under_a_stream_is_left_for_the_other() {
    for relay in [0, 1] {
        let prelude = [BlockUdp(0), Wait(30_000)];
        let worst = worst(TWO_RELAYS, &prelude, &[CrashRelay(relay), Wait(20_000)]);
        assert!(worst <= 2_500, "{worst} ms");
    }
}

/// Loss on the way to the relay makes TCP late, and everything behind what was lost.
#[test]
fn a_lossy_network_without_udp_still_carries() {
    let shape = Shape { loss: 50, jitter: Duration::from_millis(5), ..TWO_RELAYS };
    for seed in 0..4 {
        let mut world = World::new(shape, seed);
        for transition in [TRAFFIC, BlockUdp(0), Wait(30_000)] {
            world.apply(&transition);
        }
        world.take_probes(world.now);
        world.apply(&Wait(60_000));
        let probes = world.take_probes(world.now - Duration::from_secs(2));
        let answered = probes.iter().filter(|probe| probe.answered.is_some()).count();
        // Two of the four ways (to the relay and back) repeat what they lose.
        assert!(answered * 100 > probes.len() * 75, "seed {seed}: {answered} of {}", probes.len());
    }
}
