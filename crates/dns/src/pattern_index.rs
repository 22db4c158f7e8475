//! Many patterns, one lookup.
//!
//! The patterns form a tree of labels, read from the right. A lookup walks the labels of the name and keeps the set of
//! tree nodes that are still possible, each at most once, so that its cost depends on the name and on how the patterns
//! overlap along it, not on how many there are. Labels with `?` are indexed by where their question marks are: masking
//! a label the same way turns the comparison into one more exact lookup.

use std::collections::HashMap;

use crate::name::Name;
use crate::pattern::{LabelPattern, Pattern};

/// Values by pattern, found by name.
#[derive(Clone, Debug)]
pub struct PatternIndex<V> {
    /// The first node is the root of the tree.
    nodes: Vec<Node>,
    values: Vec<(Pattern, V)>,
}

type NodeId = usize;

#[derive(Clone, Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, NodeId>,
    /// Per set of positions of `?`, one bit each: labels with exactly these masked.
    templates: Vec<(u64, HashMap<Box<str>, NodeId>)>,
    any: Option<NodeId>,
    any_depth: Option<NodeId>,
    /// This node consumes any number of labels before its children see one.
    repeats: bool,
    /// Values of the patterns that end here.
    values: Vec<usize>,
}

impl<V> Default for PatternIndex<V> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], values: Vec::new() }
    }
}

impl<V> PatternIndex<V> {
    /// Adds a value; several may have the same pattern.
    pub fn insert(&mut self, pattern: &Pattern, value: V) {
        let mut at = 0;
        for label in pattern.labels_from_right() {
            at = self.child(at, label);
        }
        self.nodes[at].values.push(self.values.len());
        self.values.push((pattern.clone(), value));
    }

    /// All values whose pattern matches `name`, most specific first; equals in the order of insertion.
    pub fn find(&self, name: &Name) -> impl Iterator<Item = &V> {
        let mut found = self.matching(name);
        found.sort_by(|a, b| self.values[*b].0.cmp_specificity(&self.values[*a].0).then(a.cmp(b)));
        found.into_iter().map(|value| &self.values[value].1)
    }

    /// Whether any pattern matches `name`.
    pub fn contains(&self, name: &Name) -> bool {
        !self.matching(name).is_empty()
    }

    fn matching(&self, name: &Name) -> Vec<usize> {
        let mut active = Vec::new();
        self.activate(0, &mut active);
        let mut next = Vec::new();
        for label in name.labels().rev() {
            for node in &active {
                self.step(*node, label, &mut next);
            }
            next.sort_unstable();
            next.dedup();
            std::mem::swap(&mut active, &mut next);
            next.clear();
            if active.is_empty() {
                return Vec::new();
            }
        }
        active.iter().flat_map(|node| self.nodes[*node].values.iter().copied()).collect()
    }

    /// Enters a node, and the `**` below it that may stand for no label at all.
    fn activate(&self, node: NodeId, active: &mut Vec<NodeId>) {
        active.push(node);
        active.extend(self.nodes[node].any_depth);
    }

    /// Enters all nodes that one more label leads to.
    fn step(&self, node: NodeId, label: &str, next: &mut Vec<NodeId>) {
        let from = &self.nodes[node];
        if from.repeats {
            next.push(node);
        }
        let templates = from.templates.iter().filter_map(|(mask, labels)| labels.get(&*masked(label, *mask)));
        let children = from.literals.get(label).into_iter().chain(templates).chain(&from.any);
        for child in children {
            self.activate(*child, next);
        }
    }

    fn child(&mut self, node: NodeId, label: LabelPattern<'_>) -> NodeId {
        let new = self.nodes.len();
        let parent = &mut self.nodes[node];
        let child = match label {
            LabelPattern::Literal(label) => *parent.literals.entry(label.into()).or_insert(new),
            LabelPattern::Template(label) => {
                let mask = mask(label);
                let known = parent.templates.iter().position(|(other, _)| *other == mask);
                let at = known.unwrap_or_else(|| {
                    parent.templates.push((mask, HashMap::new()));
                    parent.templates.len() - 1
                });
                *parent.templates[at].1.entry(label.into()).or_insert(new)
            }
            LabelPattern::Any => *parent.any.get_or_insert(new),
            LabelPattern::AnyDepth => *parent.any_depth.get_or_insert(new),
        };
        if child == new {
            self.nodes.push(Node { repeats: label == LabelPattern::AnyDepth, ..Node::default() });
        }
        child
    }
}

/// Positions of the question marks of a label, which has at most 63 characters.
fn mask(template: &str) -> u64 {
    template
        .bytes()
        .take(64)
        .enumerate()
        .filter(|(_, byte)| *byte == b'?')
        .fold(0, |mask, (at, _)| mask | 1 << at)
}

/// The label with question marks at the positions of `mask`; one that is too short matches no template of that mask.
fn masked(label: &str, mask: u64) -> String {
    let bit = |at: usize| u32::try_from(at).ok().and_then(|at| mask.checked_shr(at)).unwrap_or(0) & 1 == 1;
    label.chars().enumerate().map(|(at, character)| if bit(at) { '?' } else { character }).collect()
}
