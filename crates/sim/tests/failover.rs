//! How long an application waits when something breaks, in virtual time: the promises with a number.

use std::time::{Duration, Instant};

use adit_sim::{Shape, Transition, World};

use Transition::{
    BlockDirect, CrashGateway, CrashRelay, CutGateway, FreezeGateway, PortalDown, RestartGateway, Roam,
    StopGateway, Traffic, Wait,
};

const TRAFFIC: Transition = Traffic { client: 0, resource: 0, every_ms: 10 };

/// The longest time without an answer around the event, in milliseconds; the worst of many worlds.
fn worst_outage(shape: Shape, prelude: &[Transition], event: &Transition) -> u128 {
    (0..8).map(|seed| outage(shape, seed, prelude, event)).max().unwrap_or_default()
}

fn outage(shape: Shape, seed: u64, prelude: &[Transition], event: &Transition) -> u128 {
    let mut world = World::new(shape, seed);
    world.apply(&TRAFFIC);
    world.apply(&Wait(5_000));
    for transition in prelude {
        world.apply(transition);
    }
    world.apply(&Wait(10_000));
    let before = world.now;
    world.apply(event);
    world.apply(&Wait(15_000));
    let answers: Vec<Instant> =
        world.take_probes(world.now).into_iter().filter_map(|probe| probe.answered).collect();
    let mut last = before;
    let mut worst = Duration::ZERO;
    for answer in answers.into_iter().filter(|answer| *answer >= before) {
        worst = worst.max(answer.saturating_duration_since(last));
        last = last.max(answer);
    }
    worst.max(world.now - last).as_millis()
}

const TWO_GATEWAYS: Shape = Shape { gateways_per_site: 2, ..Shape::PLAIN };

/// Which gateway is used is the portal's choice: both go through it, one after the other.
fn on_either(event: impl Fn(usize) -> Transition, shape: Shape) -> u128 {
    worst_outage(shape, &[], &event(0)).max(worst_outage(shape, &[], &event(1)))
}

#[test]
fn an_orderly_stop_is_hardly_noticed() {
    let worst = on_either(StopGateway, TWO_GATEWAYS);
    assert!(worst <= 500, "{worst} ms");
}

#[test]
fn a_crash_is_over_soon() {
    // The farthest pairs of these worlds are 240 ms apart, there and back, and may need a relay.
    let worst = on_either(CrashGateway, TWO_GATEWAYS);
    assert!(worst <= 2_300, "{worst} ms");
}

#[test]
fn a_cut_or_frozen_gateway_is_left_in_little_more() {
    // The farthest pairs of these worlds are 240 ms apart, there and back.
    let cut = on_either(CutGateway, TWO_GATEWAYS);
    let frozen = on_either(|gateway| FreezeGateway { gateway, for_ms: 60_000 }, TWO_GATEWAYS);
    assert!(cut <= 2_500 && frozen <= 2_500, "cut {cut} ms, frozen {frozen} ms");
}

#[test]
fn a_planned_restart_is_a_pause() {
    let event = RestartGateway { gateway: 0, away_ms: 300 };
    let worst = worst_outage(Shape::PLAIN, &[], &event);
    assert!(worst <= 300 + 700, "{worst} ms");
}

#[test]
fn a_planned_restart_needs_no_portal() {
    let event = RestartGateway { gateway: 0, away_ms: 300 };
    let worst = worst_outage(Shape::PLAIN, &[PortalDown], &event);
    assert!(worst <= 300 + 1_500, "{worst} ms");
}

#[test]
fn a_roam_is_over_before_anybody_looks_up() {
    let worst = worst_outage(Shape::PLAIN, &[], &Roam(0));
    assert!(worst <= 1_500, "{worst} ms");
}

#[test]
fn a_lost_relay_is_replaced() {
    let shape = Shape { relays: 2, ..Shape::PLAIN };
    let worst = worst_outage(shape, &[BlockDirect], &CrashRelay(0));
    let other = worst_outage(shape, &[BlockDirect], &CrashRelay(1));
    assert!(worst.max(other) <= 2_500, "{worst} ms, {other} ms");
}

#[test]
fn the_portal_is_not_missed() {
    let worst = worst_outage(Shape::PLAIN, &[], &PortalDown);
    assert!(worst <= 50, "{worst} ms");
}
