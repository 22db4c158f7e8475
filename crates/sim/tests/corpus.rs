//! Seeds that once failed, and some that did not, play again.

use adit_sim::explore::Story;
use adit_sim::steady;

const CORPUS: &str = include_str!("../corpus.txt");

fn seeds() -> impl Iterator<Item = u64> {
    let lines = CORPUS.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.parse().expect("a number"))
}

#[test]
fn the_corpus_holds() {
    for seed in seeds() {
        if let Err(violation) = Story::of(seed).play() {
            panic!("seed {seed}: {violation:?}; `cargo xtask sim --seed {seed}` shows the shortest story");
        }
    }
}

#[test]
fn hours_of_loss_end_no_connection() {
    for seed in 1..=6 {
        assert_eq!(steady::false_failovers(seed), 0, "seed {seed}");
    }
}

#[test]
fn a_seed_is_always_the_same_story() {
    let (first, second) = (Story::of(7), Story::of(7));
    assert_eq!(first.transitions, second.transitions);
}
