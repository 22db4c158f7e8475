//! The four goodbyes at every moment of a connection's life: whatever they meet, nothing is left behind.
//!
//! Each story lets an application send its first packet, waits a while, and then takes the connection's reason away.
//! The while runs through everything that a connection does: asking the portal, ICE checks, handshake, data, and
//! the renewal of the session two minutes later. The network delivers late, twice, out of order, or not at all.

use std::time::Duration;

use adit_sim::model::Model;
use adit_sim::{Shape, Transition, World};

use Transition::{
    BlockDirect, CutClient, Grant, HealClient, Revoke, Roam, SignOut, StopGateway, Traffic, Wait,
};

const TRAFFIC: Transition = Traffic { client: 0, resource: 0, every_ms: 20 };
const SILENCE: Transition = Traffic { client: 0, resource: 0, every_ms: 0 };
const REVOKE: Transition = Revoke { client: 0, resource: 0 };
const REVOKE_NAME: Transition = Revoke { client: 0, resource: 1 };

/// Milliseconds from the first packet to the event: the connection's beginning closely, then its routine, then the
/// renewal of its session.
fn moments() -> impl Iterator<Item = u64> {
    let beginning = (0..500).step_by(9);
    let routine = [1_000, 5_000, 21_000, 60_000];
    let renewal = (119_900..120_400).step_by(23);
    beginning.chain(routine).chain(renewal)
}

/// Plays the event at every moment; afterwards nothing is left within `patience` milliseconds.
fn at_every_moment(shape: Shape, prelude: &[Transition], event: &[Transition], patience: u64) {
    for moment in moments() {
        let mut world = World::new(shape, moment);
        let mut model = Model::new(&world);
        let story = prelude.iter().cloned().chain([TRAFFIC, Wait(moment)]).chain(event.iter().cloned());
        for transition in story.chain([SILENCE, Wait(patience)]) {
            model.note(world.now, &transition);
            world.apply(&transition);
            model.judge(&mut world).unwrap_or_else(|violation| panic!("{moment} ms: {violation:?}"));
        }
        world.check_nothing_left().unwrap_or_else(|what| panic!("{moment} ms: {what}"));
    }
}

/// Whom nobody could tell finds out by itself: ten seconds while connecting, twenty of probes, or the rare checks of
/// a connection that is idle.
const UNTOLD: u64 = 100_000;

/// Every case of the design, and those that meet each other on the way.
fn all_cases(shape: Shape, prelude: &[Transition], patience: u64) {
    for event in [
        vec![REVOKE],
        vec![REVOKE, REVOKE_NAME],
        vec![StopGateway(0)],
        vec![SignOut(0)],
        vec![REVOKE, SignOut(0)],
        vec![StopGateway(0), SignOut(0)],
        vec![SignOut(0), StopGateway(0)],
        vec![REVOKE, StopGateway(0)],
    ] {
        at_every_moment(shape, prelude, &event, patience);
    }
    for event in [vec![Roam(0), REVOKE], vec![REVOKE, Roam(0)], vec![Roam(0), SignOut(0)]] {
        at_every_moment(shape, prelude, &event, UNTOLD);
    }
}

#[test]
fn on_a_good_network_everything_is_gone_in_a_moment() {
    all_cases(Shape::PLAIN, &[], 3_000);
}

#[test]
fn on_a_relayed_path_too() {
    all_cases(Shape::PLAIN, &[BlockDirect], 3_000);
}

#[test]
fn twice_late_and_out_of_order() {
    let shape = Shape { duplication: 500, jitter: Duration::from_millis(150), ..Shape::PLAIN };
    all_cases(shape, &[], UNTOLD);
}

/// Lost goodbyes: the other end finds out by itself, by a reset, by probes, or when it is idle.
#[test]
fn lost_ones_are_made_up_for() {
    let shape = Shape { loss: 200, ..Shape::PLAIN };
    for event in [vec![REVOKE], vec![SignOut(0)], vec![StopGateway(0)]] {
        at_every_moment(shape, &[], &event, 300_000);
    }
}

#[test]
fn one_of_several_authorizations_takes_its_own_flows_along_and_no_others() {
    let other = Traffic { client: 0, resource: 1, every_ms: 20 };
    for moment in moments() {
        let mut world = World::new(Shape::PLAIN, moment);
        let mut model = Model::new(&world);
        // The model demands an answer to every probe for the name three seconds after the revocation.
        for transition in [TRAFFIC, other.clone(), Wait(moment), REVOKE, Wait(8_000)] {
            model.note(world.now, &transition);
            world.apply(&transition);
            model.judge(&mut world).unwrap_or_else(|violation| panic!("{moment} ms: {violation:?}"));
        }
    }
}

#[test]
fn who_missed_the_goodbye_asks_again_with_the_next_packet() {
    for moment in [200, 1_000, 5_000, 60_000] {
        let mut world = World::new(Shape::PLAIN, moment);
        let mut model = Model::new(&world);
        let story = [
            TRAFFIC,
            Wait(moment),
            CutClient(0),
            REVOKE,
            Wait(200),
            HealClient(0),
            Grant { client: 0, resource: 0 },
            Wait(60_000),
        ];
        for transition in story {
            model.note(world.now, &transition);
            world.apply(&transition);
            model.judge(&mut world).unwrap_or_else(|violation| panic!("{moment} ms: {violation:?}"));
        }
    }
}

#[test]
fn a_gateway_that_is_not_ours_any_more_may_say_what_it_likes() {
    let shape = Shape { gateways_per_site: 2, ..Shape::PLAIN };
    for moment in moments() {
        let mut world = World::new(shape, moment);
        let mut model = Model::new(&world);
        // Frozen, given up, replaced; then it wakes, learns that it was given up, and says goodbye.
        let freeze = |gateway| Transition::FreezeGateway { gateway, for_ms: 3_000 };
        for transition in
            [TRAFFIC, Wait(2_000), freeze(0), freeze(1), Wait(moment), StopGateway(0), Wait(45_000)]
        {
            model.note(world.now, &transition);
            world.apply(&transition);
            model.judge(&mut world).unwrap_or_else(|violation| panic!("{moment} ms: {violation:?}"));
        }
    }
}
