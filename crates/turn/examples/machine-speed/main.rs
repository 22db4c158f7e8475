//! How fast the server machine is, with few allocations and with as many as there are ports; what
//! `cargo xtask bench relay` runs for the figures `machine_*`.
//!
//! ```text
//! machine-speed [ROUNDS]      prints a figure and a value on each line
//! ```
//!
//! A relayed packet is ChannelData with 160 bytes, half of them on their way to peers and half to
//! clients, all quotas switched on. `machine_ns_N` is for N allocations of N users that are served in
//! random order, no flow twice before all others had their turn: nothing is left in a cache from
//! the last time. Packets come in batches of 32, as from one system call, and each batch is announced
//! to the machine, so that it waits for memory once for all of them; `machine_single_ns_N` is without that.
//! `machine_active_ns_N` is for ten flows in random order while the other allocations are there and silent:
//! what the number of allocations costs by itself. `machine_train_ns_N` is for trains of 16 packets per flow, which is how a tunnel's bulk traffic arrives.
//!
//! What the loop around the machine costs is measured alone (`machine_loop_ns_N`) and taken off. A figure
//! is the best of many short runs, in time that this thread had a processor, because
//! neighbours only ever add to a time. That nothing is allocated on the way is asserted.

mod population;
mod traffic;

use adit_turn::server::Server;
use population::Population;
use std::hint::black_box;
use std::time::Duration;
use traffic::{Mode, Traffic};

/// How many allocations there are; the last is about as many as there are ports.
const SIZES: [usize; 3] = [10, 1_000, 60_000];
/// Packets in one run.
const PACKETS: usize = 24_000;

/// A server and the ways in which its flows are used.
struct Subject {
    population: Population,
    cold: Traffic,
    active: Traffic,
    trains: Traffic,
}

fn main() {
    let rounds = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(40);
    let mut subjects: Vec<Subject> = SIZES
        .map(|size| {
            let population = Population::new(size);
            println!("machine_bytes_per_allocation_{size} {:.0}", population.bytes_per_allocation);
            println!("machine_allocate_us_{size} {:.2}", population.microseconds_per_allocation);
            let cold = Traffic::new(&population.flows, PACKETS, 1);
            let active = Traffic::new(&population.flows[..SIZES[0]], PACKETS, 1);
            let trains = Traffic::new(&population.flows, PACKETS, 16);
            Subject { population, cold, active, trains }
        })
        .into();
    let mut best = [[f64::MAX; 7]; SIZES.len()];
    for _ in 0..rounds {
        // In turn, so that a busy moment of the machine hurts all of them.
        for (subject, best) in subjects.iter_mut().zip(&mut best) {
            let Subject { population, cold, active, trains } = subject;
            let mut run = |figure: usize, traffic: &mut Traffic, mode| {
                best[figure] = best[figure].min(time(PACKETS, || traffic.run(population, mode)));
            };
            run(0, cold, Mode::Announced);
            run(1, cold, Mode::Single);
            run(2, cold, Mode::Idle);
            run(3, trains, Mode::Single);
            run(4, trains, Mode::Idle);
            run(5, active, Mode::Announced);
            best[6] = best[6].min(time(1000, || poll(&population.server)));
        }
    }
    for (size, best) in SIZES.into_iter().zip(&best) {
        println!("machine_ns_{size} {:.1}", best[0] - best[2]);
        println!("machine_single_ns_{size} {:.1}", best[1] - best[2]);
        println!("machine_train_ns_{size} {:.1}", best[3] - best[4]);
        println!("machine_active_ns_{size} {:.1}", best[5] - best[2]);
        println!("machine_loop_ns_{size} {:.1}", best[2]);
        println!("machine_poll_timeout_ns_{size} {:.1}", best[6]);
    }
    let spread = |figure: usize| {
        let all = best.iter().map(|best| best[figure] - best[2]);
        all.clone().fold(0.0, f64::max) / all.fold(f64::MAX, f64::min)
    };
    println!("machine_spread {:.3}", spread(0));
    println!("machine_active_spread {:.3}", spread(5));
    for Subject { population, cold, trains, .. } in &mut subjects {
        let allocations = allocation_counter::measure(|| {
            cold.run(population, Mode::Announced);
            trains.run(population, Mode::Single);
        });
        assert_eq!(allocations.count_total, 0, "the data path allocates");
    }
    println!("machine_memory_allocations_per_packet 0");
}

/// Asks a thousand times when the next deadline is.
fn poll(server: &Server) {
    for _ in 0..1000 {
        black_box(server.poll_timeout());
    }
}

/// Nanoseconds for each of so many pieces of work.
fn time(pieces: usize, work: impl FnOnce()) -> f64 {
    let begin = thread_time();
    work();
    (thread_time() - begin).as_nanos() as f64 / pieces as f64
}

/// Processor time of this thread.
#[cfg(target_os = "linux")]
pub(crate) fn thread_time() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

/// Where no such clock is at hand: all time, waiting included.
#[cfg(not(target_os = "linux"))]
pub(crate) fn thread_time() -> Duration {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed()
}
