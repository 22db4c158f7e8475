//! Random stories, judged by the model, and shortened when they fail.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use crate::model::{Model, Violation};
use crate::transition::Transition;
use crate::world::{Shape, World};

/// Steps of virtual life in one story; more means that something spins.
const MOST_STEPS: u64 = 3_000_000;

/// A story: a world and what happens in it.
#[derive(Clone, Debug)]
pub struct Story {
    /// Decides everything else.
    pub seed: u64,
    /// How the world looks.
    pub shape: Shape,
    /// What happens, in order.
    pub transitions: Vec<Transition>,
}

impl Story {
    /// The story of a seed.
    pub fn of(seed: u64) -> Self {
        // Not the world's own sequence: shortening a story must not change the world.
        let mut random = ChaCha20Rng::seed_from_u64(seed ^ 0x5707_1e5e_ed00_0000);
        let shape = Shape::random(&mut random);
        let mut transitions = vec![traffic(&mut random, shape)];
        for _ in 0..random.random_range(6..24) {
            transitions.push(any(&mut random, shape));
            transitions.push(Transition::Wait(pause(&mut random)));
        }
        Self { seed, shape, transitions }
    }

    /// Plays it to its end: after the last transition everything is repaired, must work, and is then taken away.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn play(&self) -> Result<(), Violation> {
        let mut world = World::new(self.shape, self.seed);
        let mut model = Model::new(&world);
        for transition in self.transitions.iter().chain(&self.ending()) {
            model.note(world.now, transition);
            world.apply(transition);
            model.judge(&mut world)?;
            if world.steps > MOST_STEPS {
                return Err(Violation { what: "the world spins".to_owned(), at: world.now - world.start });
            }
        }
        let at = world.now - world.start;
        world.check_nothing_left().map_err(|what| Violation { what, at })
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        let resources = self.shape.resources();
        (0..self.shape.clients).flat_map(move |client| (0..resources).map(move |resource| (client, resource)))
    }

    fn ending(&self) -> Vec<Transition> {
        let mut ending = vec![Transition::RepairAll];
        for (client, resource) in self.pairs() {
            ending.push(Transition::Grant { client, resource });
            ending.push(Transition::Traffic { client, resource, every_ms: 400 });
        }
        ending.push(Transition::Wait(40_000));
        ending.extend(self.pairs().map(|(client, resource)| Transition::Revoke { client, resource }));
        ending.push(Transition::Wait(5_000));
        ending.extend(self.pairs().map(|(client, resource)| Transition::Traffic {
            client,
            resource,
            every_ms: 0,
        }));
        // What a lost goodbye leaves behind is found by idle checks.
        ending.push(Transition::Wait(if self.shape.loss > 0 { 300_000 } else { 125_000 }));
        ending
    }

    /// A shorter story that still fails, and how.
    pub fn shortened(&self, violation: Violation) -> (Self, Violation) {
        let (mut best, mut how) = (self.clone(), violation);
        let mut chunk = best.transitions.len().div_ceil(2);
        while chunk > 0 {
            let mut at = 0;
            while at < best.transitions.len() {
                let mut shorter = best.clone();
                let end = (at + chunk).min(shorter.transitions.len());
                shorter.transitions.drain(at..end);
                match shorter.play() {
                    Err(violation) => (best, how) = (shorter, violation),
                    Ok(()) => at += chunk,
                }
            }
            chunk /= 2;
        }
        (best, how)
    }
}

fn traffic(random: &mut ChaCha20Rng, shape: Shape) -> Transition {
    Transition::Traffic {
        client: random.random_range(0..shape.clients),
        resource: random.random_range(0..shape.resources()),
        every_ms: [50, 200, 1000, 4000][random.random_range(0..4)],
    }
}

/// Mostly shortly after one another, so that things happen in the middle of others; sometimes long enough to settle.
fn pause(random: &mut ChaCha20Rng) -> u64 {
    match random.random_range(0..10) {
        0..=4 => random.random_range(1..200),
        5..=7 => random.random_range(200..4_000),
        8 => random.random_range(4_000..40_000),
        _ => Duration::from_secs(random.random_range(40..200)).as_secs() * 1000,
    }
}

fn any(random: &mut ChaCha20Rng, shape: Shape) -> Transition {
    let client = random.random_range(0..shape.clients);
    let resource = random.random_range(0..shape.resources());
    let gateway = random.random_range(0..shape.gateways());
    let relay = random.random_range(0..shape.relays);
    match random.random_range(0..42) {
        0..=5 => traffic(random, shape),
        6..=7 => Transition::Revoke { client, resource },
        8..=9 => Transition::Grant { client, resource },
        10 => Transition::SignOut(client),
        11 => Transition::CrashClient(client),
        12..=13 => Transition::StartClient(client),
        14 => Transition::Sleep {
            client,
            for_ms: random.random_range(100..200_000),
            stops_clock: random.random(),
        },
        15..=16 => Transition::Roam(client),
        17 => Transition::CutClient(client),
        18 => Transition::HealClient(client),
        19 => Transition::StopGateway(gateway),
        20..=21 => Transition::RestartGateway { gateway, away_ms: random.random_range(20..12_000) },
        22 => Transition::CrashGateway(gateway),
        23..=24 => Transition::StartGateway(gateway),
        25 => Transition::FreezeGateway { gateway, for_ms: random.random_range(100..60_000) },
        26 => Transition::CutGateway(gateway),
        27 => Transition::HealGateway(gateway),
        28 => Transition::CrashRelay(relay),
        29 => Transition::StartRelay(relay),
        30 => Transition::PortalDown,
        31 => Transition::PortalUp,
        32 => Transition::BlockDirect,
        33 => Transition::UnblockDirect,
        38 => Transition::BlockUdp(client),
        39 => Transition::UnblockUdp(client),
        40 => Transition::BlockGatewayUdp(gateway),
        41 => Transition::UnblockGatewayUdp(gateway),
        34..=35 => Transition::Part { client, gateway },
        36 => Transition::Unpart,
        _ => Transition::ClockJump { relay, by_s: random.random_range(1..7200) },
    }
}
