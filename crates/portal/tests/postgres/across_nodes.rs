//! The tests of revocation once more: administrator and gateway at one node, the client at the other.

#[path = "../portal/revocation.rs"]
mod revocation;

mod ground {
    use std::time::Duration;

    use adit_portal::serve;

    use crate::world::{World, options};

    /// The design's target across nodes.
    pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

    pub(crate) async fn ground() -> World {
        let mut world = World::new().await;
        let second = serve::start(&options(&world.directory, &world.backend), None).await.unwrap();
        world.clients_at = Some(second.addresses()[0]);
        world.second = Some(second);
        world
    }
}
