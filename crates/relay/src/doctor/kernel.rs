//! What the kernel can do for a relay.

use std::net::{Ipv4Addr, SocketAddr};

use adit_platform::udp::Config;
use adit_platform::udp::train::{Segmentation, TrainSocket};
use adit_turn::Family;

use super::report::Finding;
use crate::settings::Place;
use crate::steering;

pub(super) fn check(place: &Place) -> Vec<Finding> {
    vec![segmentation(), shards(place), steering()]
}

fn segmentation() -> Finding {
    let check = "segmentation";
    if Segmentation::detect().works() {
        return Finding::ok(check, "the kernel cuts trains of datagrams (UDP_SEGMENT)");
    }
    Finding::warning(
        check,
        "the kernel does not cut trains of datagrams",
        "Linux 4.18 and later do; the relay works, at a third of its speed",
    )
}

fn shards(place: &Place) -> Finding {
    let check = "shards";
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let detail = format!("{} shards on {processors} processors", place.shards);
    if place.shards > processors {
        return Finding::warning(
            check,
            detail,
            "more shards than processors only add latency: lower --shards",
        );
    }
    Finding::ok(check, detail)
}

/// Whether listeners may share a port, and be chosen by a program.
fn steering() -> Finding {
    let check = "request-priority";
    let group = || -> anyhow::Result<TrainSocket> {
        let first = TrainSocket::bind(&Config::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))))?;
        first.share_port()?;
        let config = Config { reuse_port: true, ..Config::new(first.local_addr()?) };
        let _second = TrainSocket::bind(&config)?;
        first.steer(&steering::program(Family::V4, 1, [1, 2, 3]))?;
        Ok(first)
    };
    match group() {
        Ok(_) => Finding::ok(
            check,
            "the kernel keeps requests apart from data, so that no flood of data delays them",
        ),
        Err(error) => Finding::warning(
            check,
            format!("the kernel does not keep requests apart from data: {error:#}"),
            "Linux 4.5 and later do; under overload the relay may lose requests as well as data",
        ),
    }
}
