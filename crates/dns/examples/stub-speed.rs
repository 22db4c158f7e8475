//! What a query for a resource's name costs the stub, with ten resources and with ten thousand.
//!
//! Prints samples: figure, whose, round, nanoseconds. Both sizes are measured in turn, so that whatever else the
//! machine does meets both.

use std::hint::black_box;
use std::time::Instant;

use adit_dns::{Decision, Pattern, StubResolver};

const SIZES: [usize; 2] = [10, 10_000];
const QUERIES: u32 = 20_000;

/// Names asked for in turn, as by a machine that uses a handful of resources.
const NAMES: usize = 8;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rounds: u32 = std::env::args().nth(1).unwrap_or_else(|| "6".to_owned()).parse()?;
    let mut stubs = Vec::new();
    for size in SIZES {
        stubs.push(stub(size)?);
    }
    let queries: Vec<Vec<u8>> = (0..NAMES).map(|index| query(&name(index))).collect();
    for round in 0..rounds {
        let mut costs = Vec::new();
        for (size, stub) in SIZES.iter().zip(&mut stubs) {
            let cost = measure(stub, &queries);
            println!("dns_{size}_ns adit {round} {cost:.1}");
            costs.push(cost);
        }
        println!("dns_10000_extra_ns adit {round} {:.1}", (costs[1] - costs[0]).max(0.0));
    }
    Ok(())
}

/// Half of the resources are names and half are patterns.
fn stub(size: usize) -> Result<StubResolver<usize>, Box<dyn std::error::Error>> {
    let mut stub = StubResolver::new("100.96.0.0/12".parse()?, "fd00:ad17::/107".parse()?);
    let mut resources: Vec<(Pattern, usize)> = Vec::new();
    for index in 0..size {
        let pattern = if index < NAMES || index % 2 == 0 {
            name(index)
        } else {
            format!("*.department-{index}.corp.example")
        };
        resources.push((pattern.parse()?, index));
    }
    stub.set_resources(resources);
    Ok(stub)
}

fn name(index: usize) -> String {
    format!("service-{index}.corp.example")
}

fn query(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

fn measure(stub: &mut StubResolver<usize>, queries: &[Vec<u8>]) -> f64 {
    let now = Instant::now();
    for index in 0..QUERIES {
        let decision = stub.handle_query(now, &queries[index as usize % queries.len()]);
        assert!(matches!(black_box(decision), Decision::Answer(_)), "a resource's name is answered");
    }
    now.elapsed().as_secs_f64() * 1e9 / f64::from(QUERIES)
}
