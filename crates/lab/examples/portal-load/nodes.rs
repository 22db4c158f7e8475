//! Two nodes on one PostgreSQL server, one of which is killed under load: what it had answered is known to the other.

use std::time::{Duration, Instant};

use adit_protocol::{ClientToPortal, GatewayToPortal};
use anyhow::{Context as _, Result, ensure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Arguments;
use crate::authorizations::request;
use crate::peer::{Peer, Place};
use crate::world::World;

/// Each client asks for this many different things.
const RESOURCES: u32 = 200;

/// A device: its number and the last authorization that it was told of.
struct Device {
    number: u32,
    last: Option<Uuid>,
}

pub(crate) async fn measure(arguments: &Arguments, time: Duration) -> Result<Vec<(&'static str, f64)>> {
    ensure!(arguments.postgres, "two nodes need --postgres");
    let world = World::new(arguments, RESOURCES, 1).await?;
    let doomed = world.installation.serve()?;
    let there = Place { address: doomed.address, ..world.place.clone() };
    let mut gateway = world.gateways().await?.pop().context("there is a gateway")?;
    tokio::spawn(async move { while gateway.hear().await.is_ok() {} });
    // Until the other node knows of the gateway.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut load = JoinSet::new();
    let (began, mut at_work) = mpsc::channel(world.client_tokens.len().max(1));
    for (number, token) in (0_u32..).zip(world.client_tokens.clone()) {
        let (there, began, resources) = (there.clone(), began.clone(), world.resources.clone());
        load.spawn(async move {
            let mut device = Device { number, last: None };
            let joined = Peer::join(&there, "client", &token, number, ClientToPortal::Hello).await;
            let Ok((mut client, _)) = joined else { return device };
            for (request_id, resource) in (1..).zip(resources) {
                match request(&mut client, request_id, resource).await {
                    Ok(granted) => device.last = granted.id,
                    Err(_) => break,
                }
                if request_id == 1 {
                    let _ = began.send(()).await;
                }
            }
            device
        });
    }
    drop(began);
    for _ in 0..world.client_tokens.len() {
        at_work.recv().await.context("a client could not begin")?;
    }
    tokio::time::sleep(time.min(Duration::from_secs(2))).await;
    doomed.kill()?;
    let died = Instant::now();
    let mut devices = Vec::new();
    while let Some(device) = load.join_next().await {
        devices.push(device?);
    }
    let (lost, back) = come_back(&world, devices, died).await?;
    Ok(vec![("lost_authorizations", f64::from(lost)), ("peers_back_ms", back.as_secs_f64() * 1000.0)])
}

/// Everybody connects to the node that lives; how many answers it does not know, and how long it took.
async fn come_back(world: &World, devices: Vec<Device>, died: Instant) -> Result<(u32, Duration)> {
    let mut lost = 0;
    let mut joining = JoinSet::new();
    for device in devices {
        let (place, token) = (world.place.clone(), world.client_tokens[device.number as usize].clone());
        joining.spawn(async move {
            let joined = Peer::join(&place, "client", &token, device.number, ClientToPortal::Hello).await;
            joined.map(|(peer, init)| (device, peer, init))
        });
    }
    let mut here = Vec::new();
    while let Some(joined) = joining.join_next().await {
        let (device, peer, init) = joined??;
        here.push(peer);
        let last = device.last.context("it was answered before the node died")?;
        lost += u32::from(!init.authorizations.iter().any(|held| held.id == last));
    }
    // The gateway, which was at the living node all the time, is still served.
    let token = world.gateway_token(0)?;
    let _ = Peer::join(&world.place, "gateway", token, crate::world::FIRST_GATEWAY, GatewayToPortal::Hello)
        .await?;
    Ok((lost, died.elapsed()))
}
