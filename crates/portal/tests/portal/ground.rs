//! What the tests of revocation run on: one node.

use std::time::Duration;

use crate::world::World;

/// From the answer to an administrator until peers have heard of it. Milliseconds are usual; the bound is generous because
/// tests share two cores.
pub(crate) const DEADLINE: Duration = Duration::from_millis(500);

pub(crate) async fn ground() -> World {
    World::new().await
}
