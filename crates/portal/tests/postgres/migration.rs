//! An installation moves between databases, in both directions, and nothing is missing.

use crate::archive::{fails, inventory, succeeds};
use crate::program::Program;
use crate::server::TestDatabase;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_moves_without_loss() {
    let mut world = World::new().await;
    let office = world.office().await;
    // First, or the others would hear of it later.
    let _relay = world.relay(3, "a secret of the relay's own").await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(1, office.resource).await;
    let (granted, told) = (client.granted().await, gateway.told().await);
    let wanted = inventory(&world).await;
    let data = world.directory.path().join("data");
    let from = world.backend.arguments();
    let file = format!("sqlite:{}", data.join("portal.db").display());
    let error = fails(&["migrate", "--to", &file], &data, &from);
    assert!(error.contains("stop all nodes first"), "{error}");
    world.stop().await;
    let said = succeeds(&["migrate", "--to", &file], &data, &from);
    assert!(said.contains("rows moved"), "{said}");

    // Served from SQLite.
    let program = Program::serve(&data, &[]);
    world.address = program.address;
    assert_eq!(inventory(&world).await, wanted);
    let second = TestDatabase::create();
    let error = fails(&["migrate", "--to", &second.url()], &data, &[]);
    assert!(error.contains("stop the portal first"), "{error}");
    program.kill();
    // A place that is taken is left alone.
    let error = fails(&["migrate", "--to", &world.backend.url()], &data, &[]);
    assert!(error.contains("holds a portal already"), "{error}");
    succeeds(&["migrate", "--to", &second.url()], &data, &[]);
    assert!(!data.join("portal.db").exists() && data.join("portal.db.migrated").exists());

    // And from a server again: the lease still stands, with the same keys.
    let program = Program::serve(&data, &["--database".to_owned(), second.url()]);
    world.address = program.address;
    assert_eq!(inventory(&world).await, wanted);
    let gateway = world.gateway(&office.gateway_token, 1, 1).await;
    assert_eq!(gateway.init.authorizations, [told]);
    let client = world.client(&office.client_token, 2, 2).await;
    assert_eq!(client.init.authorizations[0].id, granted.id);
}
