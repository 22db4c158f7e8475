//! Packets in both directions, in an order that is worked out beforehand.

use crate::population::{Flow, Population};
use adit_turn::channel_data;
use adit_turn::server::{HEADROOM, TAILROOM};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha20Rng;
use std::hint::black_box;
use std::time::Duration;

const PAYLOAD: usize = 160;
/// Datagrams from one system call.
const BATCH: usize = 32;

/// What is done with packets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The machine has them, and is told of a batch before.
    Announced,
    /// The machine has them.
    Single,
    /// Nothing: the cost of this loop.
    Idle,
}

/// The order of packets, repeated from the start when it is over.
pub(crate) struct Traffic {
    order: Vec<Flow>,
    at: usize,
    packets: usize,
    /// One buffer of a receiver's, which is in the cache because something was just received into it.
    buffer: Vec<u8>,
}

impl Traffic {
    /// `packets` per run, in trains of `train` of the same flow.
    pub(crate) fn new(flows: &[Flow], packets: usize, train: usize) -> Self {
        let mut random = ChaCha20Rng::from_seed([3; 32]);
        let mut order = flows.to_vec();
        order.shuffle(&mut random);
        let order = order.into_iter().flat_map(|flow| std::iter::repeat_n(flow, train)).collect();
        Self { order, at: 0, packets, buffer: vec![0; HEADROOM + PAYLOAD + TAILROOM] }
    }

    /// Relays the next packets, batch by batch: one batch from clients, the next one from peers. If they
    /// are announced, the machine may look ahead within a batch.
    pub(crate) fn run(&mut self, population: &mut Population, mode: Mode) {
        for batch in 0..self.packets / BATCH {
            population.now += Duration::from_micros(10);
            let mut flows = [self.order[0]; BATCH];
            for flow in &mut flows {
                *flow = self.order[self.at];
                self.at = if self.at + 1 == self.order.len() { 0 } else { self.at + 1 };
            }
            if batch % 2 == 0 {
                self.write_header(&flows[0]);
                if mode == Mode::Announced {
                    let header = &self.buffer[HEADROOM - channel_data::HEADER..];
                    let datagram = &header[..channel_data::HEADER + PAYLOAD];
                    population.server.expect_from_clients(flows.iter().map(|flow| (flow.client, datagram)));
                }
                flows.iter().for_each(|flow| self.relay_to_peer(population, flow, mode));
            } else {
                if mode == Mode::Announced {
                    population.server.expect_from_peers(flows.iter().map(|flow| (flow.port, flow.peer)));
                }
                flows.iter().for_each(|flow| self.relay_to_client(population, flow, mode));
            }
        }
    }

    /// All clients use the same channel number.
    fn write_header(&mut self, flow: &Flow) {
        let header = channel_data::header(flow.channel, PAYLOAD as u16);
        self.buffer[HEADROOM - channel_data::HEADER..HEADROOM].copy_from_slice(&header);
    }

    fn relay_to_peer(&mut self, population: &mut Population, flow: &Flow, mode: Mode) {
        self.write_header(flow);
        let datagram = &self.buffer[HEADROOM - channel_data::HEADER..HEADROOM + PAYLOAD];
        if mode == Mode::Idle {
            black_box((flow.client, datagram));
            return;
        }
        let forward = population.server.handle_client(population.now, flow.client, datagram);
        let forward = black_box(forward).expect("relayed");
        debug_assert_eq!(forward.destination, flow.peer);
    }

    fn relay_to_client(&mut self, population: &mut Population, flow: &Flow, mode: Mode) {
        let payload = HEADROOM..HEADROOM + PAYLOAD;
        let buffer = &mut self.buffer;
        if mode == Mode::Idle {
            black_box((flow.port, flow.peer, buffer, payload));
            return;
        }
        let forward = population.server.handle_peer(population.now, flow.port, flow.peer, buffer, payload);
        let forward = black_box(forward).expect("relayed");
        debug_assert_eq!(forward.destination, flow.client.address);
    }
}
