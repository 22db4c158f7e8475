//! `cargo xtask sim`: plays the stories of many seeds, and an hour of loss for each.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_sim::explore::Story;
use adit_sim::steady;
use clap::Parser;

/// Searches for orders of events that strand somebody.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seeds to play; without a limit of time, 200 by default.
    #[arg(long)]
    seeds: Option<u64>,
    /// Stop after this many minutes.
    #[arg(long)]
    minutes: Option<u64>,
    /// The first seed, or the only one if neither --seeds nor --minutes is given.
    #[arg(long)]
    seed: Option<u64>,
    /// Leave the hours of loss out.
    #[arg(long)]
    stories_only: bool,
    /// Play nothing but the hours of loss.
    #[arg(long, conflicts_with = "stories_only")]
    hours_only: bool,
}

/// What all threads count together.
#[derive(Default)]
struct Tally {
    next: AtomicU64,
    stories: AtomicU64,
    hours: AtomicU64,
    false_failovers: AtomicU64,
    failures: Mutex<Vec<u64>>,
    stop: AtomicBool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let first = arguments.seed.unwrap_or(1);
    let count = match (arguments.seeds, arguments.minutes, arguments.seed) {
        (Some(count), ..) => count,
        (None, Some(_), _) => u64::MAX - first,
        (None, None, Some(_)) => 1,
        (None, None, None) => 200,
    };
    let deadline = arguments.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
    let begin = Instant::now();
    let tally = Tally::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| work(&arguments, &tally, first, count, deadline));
        }
    });
    summary(&tally, begin.elapsed())
}

fn work(arguments: &Arguments, tally: &Tally, first: u64, count: u64, deadline: Option<Instant>) {
    loop {
        let number = tally.next.fetch_add(1, Ordering::Relaxed);
        let is_over = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if number >= count || is_over || tally.stop.load(Ordering::Relaxed) {
            return;
        }
        let seed = first + number;
        if !arguments.hours_only {
            play(tally, seed);
        }
        if !arguments.stories_only {
            let ended = steady::false_failovers(seed);
            tally.hours.fetch_add(1, Ordering::Relaxed);
            if ended > 0 {
                tally.false_failovers.fetch_add(ended as u64, Ordering::Relaxed);
                println!("seed {seed}: {ended} connections ended in an hour of nothing but loss");
            }
        }
    }
}

fn play(tally: &Tally, seed: u64) {
    let story = Story::of(seed);
    let played = std::panic::catch_unwind(|| story.play());
    tally.stories.fetch_add(1, Ordering::Relaxed);
    let failure = match played {
        Ok(Ok(())) => return,
        Ok(Err(violation)) => {
            let (shorter, violation) = story.shortened(violation);
            format!(
                "seed {seed}: {} at {:?}\n  {:?}\n  {:?}",
                violation.what, violation.at, shorter.shape, shorter.transitions
            )
        }
        Err(_) => format!("seed {seed}: a machine panicked"),
    };
    println!("{failure}");
    let mut failures = tally.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    failures.push(seed);
    if failures.len() >= 20 {
        println!("enough failures to look at");
        tally.stop.store(true, Ordering::Relaxed);
    }
}

fn summary(tally: &Tally, took: Duration) -> ExitCode {
    let failures = tally.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let (stories, hours) = (tally.stories.load(Ordering::Relaxed), tally.hours.load(Ordering::Relaxed));
    let false_failovers = tally.false_failovers.load(Ordering::Relaxed);
    println!("stories: {stories}, failed: {} {failures:?}", failures.len());
    println!("false failovers in {hours} hours at 5 % loss: {false_failovers}");
    println!("{:.1} seeds per second", stories.max(hours) as f64 / took.as_secs_f64());
    if failures.is_empty() && false_failovers == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
