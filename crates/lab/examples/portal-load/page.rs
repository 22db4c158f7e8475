//! Pages of long lists.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::Arguments;
use crate::world::World;

/// Entries of each list.
const ENTRIES: u32 = 10_000;

/// How often each page is read.
const READS: u32 = 5;

/// The slowest of the lists, each by the median of its reads, in the middle of the list.
pub(crate) async fn measure(arguments: &Arguments) -> Result<Vec<(&'static str, f64)>> {
    let world = World::empty(arguments)?;
    let api = &world.api;
    let bodies = (0..ENTRIES).map(|n| json!({ "kind": "user", "name": format!("person-{n}") })).collect();
    let people = api.post_many("actors", bodies, "id").await?;
    let tokens = api.client_tokens(&people[0], ENTRIES).await?;
    ensure!(tokens.len() == ENTRIES as usize, "{} tokens", tokens.len());
    let middle = &people[people.len() / 2];
    let mut slowest = 0.0_f64;
    for list in ["actors", "tokens", "audit"] {
        let after = if list == "audit" { String::new() } else { format!("&after={middle}") };
        let mut times = Vec::new();
        for _ in 0..READS {
            let (items, took) = api.page(&format!("{list}?limit=500{after}")).await?;
            ensure!(items == 500, "{list}: {items} items");
            times.push(took.as_secs_f64() * 1000.0);
        }
        times.sort_by(f64::total_cmp);
        slowest = slowest.max(times[times.len() / 2]);
    }
    Ok(vec![("page_10000_ms", slowest)])
}
