//! A measuring rod: how far does the bare way through a relay go?
//!
//! No credentials, no permissions, no expiry, no quotas, one thread, IPv4: trains come in with `UDP_GRO`, lose or get
//! the header of their channel, and leave with one scatter-gather call (`UDP_SEGMENT`) without being copied.
//! `cargo xtask bench relay` measures the shipped relay against it. It is a ruler and no part of the product: whoever
//! reaches it can use it.

mod control;
mod socket;

use std::io::{IoSlice, Write as _};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;

use anyhow::{Context as _, Result};
use clap::Parser;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use adit_turn::channel_data;

use crate::control::{Allocations, Answer};
use crate::socket::{MOST_TOGETHER, Receiver, Train};

/// Messages taken from one socket before the next has its turn.
const AT_ONCE: u32 = 16;

/// Number of the listener among the sockets that are waited for.
const LISTENER: u64 = u64::MAX;

#[derive(Debug, Parser)]
struct Arguments {
    /// Where clients reach it; ports for peers are of the same address.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddrV4,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    socket::raise_open_files()?;
    let mut rod = Rod::new(arguments.listen)?;
    println!("ready");
    std::io::stdout().flush()?;
    rod.run()
}

struct Rod {
    listener: UdpSocket,
    epoll: Epoll,
    allocations: Allocations,
    receiver: Receiver,
    /// Channel headers of a train on its way to a client.
    headers: [[u8; channel_data::HEADER]; MOST_TOGETHER],
}

impl Rod {
    fn new(listen: SocketAddrV4) -> Result<Self> {
        let listener = socket::open(listen).with_context(|| format!("cannot listen on {listen}"))?;
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        watch(&epoll, &listener, LISTENER)?;
        Ok(Self {
            listener,
            epoll,
            allocations: Allocations::new(*listen.ip()),
            receiver: Receiver::new(),
            headers: [[0; channel_data::HEADER]; MOST_TOGETHER],
        })
    }

    fn run(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                count => count?,
            };
            for event in &events[..count] {
                for _ in 0..AT_ONCE {
                    let more = match event.data() {
                        LISTENER => self.take_from_clients()?,
                        port => self.take_from_peers(port)?,
                    };
                    if !more {
                        break;
                    }
                }
            }
        }
    }

    /// One train of a client; false when none waits.
    fn take_from_clients(&mut self) -> Result<bool> {
        let Some(train) = self.receiver.receive(&self.listener)? else { return Ok(false) };
        let bytes = self.receiver.bytes(train);
        if !channel_data::looks_like(bytes) {
            return self.answer(train).map(|()| true);
        }
        let Some(allocation) = self.allocations.of_client(train.from) else { return Ok(true) };
        let is_ours = |datagram: &[u8]| {
            let (number, range) = channel_data::parse(datagram)?;
            (number == allocation.channel).then_some(range)
        };
        let payloads = bytes
            .chunks(train.segment)
            .filter_map(|datagram| Some(IoSlice::new(&datagram[is_ours(datagram)?])))
            .collect::<Vec<_>>();
        if !payloads.is_empty() {
            let segment = train.segment.saturating_sub(channel_data::HEADER);
            socket::send(&allocation.socket, &payloads, segment, allocation.peer)?;
        }
        Ok(true)
    }

    /// One train of a peer; false when none waits.
    fn take_from_peers(&mut self, port: u64) -> Result<bool> {
        let Some(allocation) = self.allocations.of_port(port) else { return Ok(false) };
        let Some(train) = self.receiver.receive(&allocation.socket)? else { return Ok(false) };
        if train.from != allocation.peer {
            return Ok(true);
        }
        let datagrams = self.receiver.bytes(train).chunks(train.segment);
        for (header, datagram) in self.headers.iter_mut().zip(datagrams.clone()) {
            *header = channel_data::header(allocation.channel, u16::try_from(datagram.len())?);
        }
        let slices: Vec<IoSlice<'_>> = self
            .headers
            .iter()
            .zip(datagrams)
            .flat_map(|(header, datagram)| [IoSlice::new(header), IoSlice::new(datagram)])
            .collect();
        let segment = train.segment + channel_data::HEADER;
        socket::send(&self.listener, &slices, segment, allocation.client)?;
        Ok(true)
    }

    /// Does what a client asks for.
    fn answer(&mut self, train: Train) -> Result<()> {
        let bytes = self.receiver.bytes(train);
        let answer = self.allocations.answer(train.from, &bytes[..train.segment.min(bytes.len())])?;
        let Some(Answer { payload, opened }) = answer else { return Ok(()) };
        if let Some((port, socket)) = opened {
            watch(&self.epoll, socket, port)?;
        }
        socket::send(&self.listener, &[IoSlice::new(&payload)], payload.len(), train.from)
    }
}

fn watch(epoll: &Epoll, socket: &impl AsFd, number: u64) -> Result<()> {
    Ok(epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, number))?)
}
