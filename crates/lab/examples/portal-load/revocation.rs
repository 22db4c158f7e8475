//! One change that takes access from many devices: how long until the last one knows.

use std::time::Instant;

use anyhow::Result;
use tokio::task::JoinSet;

use crate::Arguments;
use crate::authorizations::request;
use crate::world::World;

pub(crate) async fn measure(arguments: &Arguments) -> Result<Vec<(&'static str, f64)>> {
    let world = World::new(arguments, 1, 1).await?;
    let mut gateways = world.gateways().await?;
    let clients = world.clients().await?;
    let count = clients.len();
    let resource = world.resources[0];
    let mut asking = JoinSet::new();
    for mut client in clients {
        asking.spawn(async move {
            request(&mut client, 1, resource).await?;
            anyhow::Ok(client)
        });
    }
    let mut waiting = JoinSet::new();
    while let Some(client) = asking.join_next().await {
        let mut client = client??;
        waiting.spawn(async move { client.hear_of("authorization_revoked").await.map(|_| Instant::now()) });
    }
    if let Some(mut gateway) = gateways.pop() {
        waiting.spawn(async move {
            for _ in 0..count {
                gateway.hear_of("authorization_revoked").await?;
            }
            anyhow::Ok(Instant::now())
        });
    }
    let begun = Instant::now();
    world.api.delete(&format!("policies/{}", world.policies[0])).await?;
    let answered = begun.elapsed();
    let mut last = begun;
    while let Some(at) = waiting.join_next().await {
        last = last.max(at??);
    }
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
    Ok(vec![("revoke_1000_ms", ms(last - begun)), ("revoke_1000_answered_ms", ms(answered))])
}
