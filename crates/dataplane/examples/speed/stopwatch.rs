//! Time of this thread alone, and samples.

use std::time::Duration;

/// Adds up the time of what it is asked to time.
#[derive(Default)]
pub(crate) struct Stopwatch(Duration);

impl Stopwatch {
    pub(crate) fn time<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let begin = thread_time();
        let result = run();
        self.0 += thread_time() - begin;
        result
    }

    /// Nanoseconds so far, for each of so many pieces of work.
    pub(crate) fn nanoseconds_each(&self, pieces: usize) -> f64 {
        self.0.as_nanos() as f64 / pieces as f64
    }
}

/// Processor time of this thread.
#[cfg(target_os = "linux")]
fn thread_time() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

/// Where no such clock is at hand: all time, waiting included.
#[cfg(not(target_os = "linux"))]
fn thread_time() -> Duration {
    static START: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
    START.elapsed()
}

/// Runs all subjects in turn, `repetitions` times, and returns the least figure of each.
pub(crate) fn least_of_each<S>(
    subjects: &mut [S],
    repetitions: usize,
    mut measure: impl FnMut(&mut S) -> f64,
) -> Vec<f64> {
    let mut least = vec![f64::MAX; subjects.len()];
    for _ in 0..repetitions {
        for (subject, least) in subjects.iter_mut().zip(&mut least) {
            *least = least.min(measure(subject));
        }
    }
    least
}

/// Prints one sample.
pub(crate) fn sample(figure: &str, whose: &str, round: u32, value: f64) {
    println!("{figure} {whose} {round} {value}");
}
