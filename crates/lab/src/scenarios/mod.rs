//! The stories that the lab can run.

use crate::scenario::Scenario;

/// Every scenario, in the order in which they run.
pub const ALL: &[Scenario] = &[];
