//! Devices that are there and want nothing: what they cost, and whether they stay.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::Arguments;
use crate::world::World;

const MIB: f64 = 1024.0;

/// Memory of a small portal.
pub(crate) async fn idle(arguments: &Arguments, time: Duration) -> Result<Vec<(&'static str, f64)>> {
    let world = World::new(arguments, 10, 1).await?;
    let _gateways = world.gateways().await?;
    let _clients = world.clients().await?;
    tokio::time::sleep(time).await;
    Ok(vec![("idle_rss_mib", world.portal.resident_kib()? / MIB)])
}

/// Many devices, each of which answers pings as long as it is measured.
pub(crate) async fn many(arguments: &Arguments, time: Duration) -> Result<Vec<(&'static str, f64)>> {
    let mut world = World::new(arguments, 10, 1).await?;
    // A fresh process: what filling the installation took is not what devices cost.
    world.restart()?;
    let before = world.portal.resident_kib()?;
    let begun = Instant::now();
    let clients = world.clients().await?;
    let joined = begun.elapsed();
    let count = clients.len() as f64;
    let mut tasks = tokio::task::JoinSet::new();
    for mut client in clients {
        tasks.spawn(async move { while client.hear().await.is_ok() {} });
    }
    tokio::time::sleep(time).await;
    let mut dropped = 0;
    while tasks.try_join_next().is_some() {
        dropped += 1;
    }
    let after = world.portal.resident_kib()?;
    Ok(vec![
        ("connected_devices", count - f64::from(dropped)),
        ("dropped", f64::from(dropped)),
        ("kib_per_device", (after - before) / count),
        ("connected_rss_mib", after / MIB),
        ("joins_per_s", count / joined.as_secs_f64()),
    ])
}
