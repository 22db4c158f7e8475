//! Which names a pattern stands for, and which pattern wins.

use std::time::{Duration, Instant};

use adit_dns::{Name, NameError, Pattern, PatternError, PatternIndex};
use proptest::prelude::*;

use crate::messages::name;

fn pattern(text: &str) -> Pattern {
    text.parse().expect("a valid pattern")
}

#[test]
fn each_wildcard_stands_for_what_the_manual_says() {
    let table = [
        ("wiki.corp", &["wiki.corp", "WIKI.Corp."][..], &["corp", "a.wiki.corp", "wikiXcorp"][..]),
        ("*.corp", &["wiki.corp", "*.corp"], &["corp", "a.wiki.corp", "wiki.corpx"]),
        ("**.corp", &["corp", "wiki.corp", "a.b.c.wiki.corp"], &["xcorp", "corp.example"]),
        ("db-?.corp", &["db-1.corp", "db-x.corp"], &["db-.corp", "db-12.corp", "db-1.x.corp"]),
        ("*.*.corp", &["a.b.corp"], &["b.corp", "a.b.c.corp"]),
        ("a.**.corp", &["a.corp", "a.b.corp", "a.b.c.corp"], &["corp", "b.corp", "x.a.b"]),
        ("**.a.**.corp", &["a.corp", "x.a.y.corp", "x.y.a.corp"], &["corp", "x.corp"]),
        ("**.**.corp", &["corp", "a.corp"], &["a"]),
        ("*.**.corp", &["a.corp", "a.b.corp"], &["corp"]),
        ("**", &["corp", "a.b"], &[]),
    ];
    for (text, matching, others) in table {
        for candidate in matching {
            assert!(pattern(text).matches(&name(candidate)), "{text} must match {candidate}");
        }
        for candidate in others {
            assert!(!pattern(text).matches(&name(candidate)), "{text} must not match {candidate}");
        }
    }
}

#[test]
fn text_that_is_no_pattern_says_why() {
    let error = |text: &str| text.parse::<Pattern>().map(|_| ()).expect_err("invalid");
    for text in ["web-*.corp", "***.corp", "*a.corp", "a**.corp"] {
        assert_eq!(error(text), PatternError::PartialStar, "{text}");
    }
    assert_eq!(error(""), PatternError::Name(NameError::Empty));
    assert_eq!(error("*..corp"), PatternError::Name(NameError::EmptyLabel));
    assert_eq!(error("bücher.corp"), PatternError::Name(NameError::Character('ü')));
}

#[test]
fn the_most_specific_pattern_comes_first() {
    let in_order = [
        "a.b.corp",
        "?.b.corp",
        "*.b.corp",
        "**.b.corp",
        "a.?.corp",
        "?.?.corp",
        "*.?.corp",
        "a.*.corp",
        "*.*.corp",
        "a.**.corp",
        "*.**.corp",
        "**.corp",
    ];
    let mut index = PatternIndex::default();
    for text in in_order.iter().rev() {
        index.insert(&pattern(text), *text);
    }
    assert_eq!(index.find(&name("a.b.corp")).copied().collect::<Vec<_>>(), in_order);
}

#[test]
fn the_apex_prefers_its_literal_name() {
    let mut index = PatternIndex::default();
    for text in ["**.corp", "corp", "**"] {
        index.insert(&pattern(text), text);
    }
    assert_eq!(index.find(&name("corp")).copied().collect::<Vec<_>>(), ["corp", "**.corp", "**"]);
}

#[test]
fn equal_patterns_keep_their_order() {
    let mut index = PatternIndex::default();
    for value in 0..5 {
        index.insert(&pattern("*.corp"), value);
    }
    assert_eq!(index.find(&name("x.corp")).copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_lookup_among_many_patterns_costs_no_more_than_among_few() {
    let lookups = |patterns: u32| {
        let mut index = PatternIndex::default();
        for number in 0..patterns {
            index.insert(&pattern(&format!("*.s{number}.corp")), number);
            index.insert(&pattern(&format!("db-{number}-?.corp")), number);
            index.insert(&pattern(&format!("x{number}.**.corp")), number);
        }
        let wanted = [name("a.s7.corp"), name("db-7-x.corp"), name("x7.a.b.corp"), name("none.corp")];
        let start = Instant::now();
        for _ in 0..500 {
            let found: usize = wanted.iter().map(|name| index.find(name).count()).sum();
            assert_eq!(found, 3);
        }
        start.elapsed()
    };
    let (few, many) = (lookups(10), lookups(10_000));
    assert!(many < few * 50 + Duration::from_millis(50), "10 patterns took {few:?}, 10,000 took {many:?}");
}

#[test]
fn many_stars_do_not_explode() {
    let mut index = PatternIndex::default();
    let stars = format!("{}corp", "**.a.".repeat(30));
    index.insert(&pattern(&stars), ());
    let long = name(&format!("{}corp", "a.".repeat(100)));
    assert!(index.contains(&long));
    assert!(!index.contains(&name(&format!("{}corpus", "a.".repeat(100)))));
}

/// The definition, written as directly as possible.
fn by_definition(pattern: &[&str], name: &[&str]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=name.len()).any(|skipped| by_definition(rest, &name[skipped..])),
        ([wild, rest @ ..], [label, more @ ..]) => {
            let same = *wild == "*"
                || (wild.len() == label.len()
                    && wild.bytes().zip(label.bytes()).all(|(a, b)| a == b'?' || a == b));
            same && by_definition(rest, more)
        }
        _ => false,
    }
}

fn labels(options: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(options), 1..=most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_index_finds_what_the_definition_says(
        patterns in prop::collection::vec(labels(&["a", "b", "ab", "?", "a?", "?b", "*", "**"], 4), 1..12),
        candidate in labels(&["a", "b", "ab", "cb"], 5),
    ) {
        let name: Name = name(&candidate.join("."));
        let mut index = PatternIndex::default();
        for (number, labels) in patterns.iter().enumerate() {
            index.insert(&pattern(&labels.join(".")), number);
        }
        let mut found: Vec<usize> = index.find(&name).copied().collect();
        found.sort_unstable();
        let expected: Vec<usize> = (0..patterns.len()).filter(|number| by_definition(&patterns[*number], &candidate)).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,80}") {
        let _ = (text.parse::<Pattern>(), text.parse::<Name>());
    }
}
