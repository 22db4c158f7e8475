//! Every datagram and message in, every command out.

use std::time::Instant;

use adit_turn::Family;
use adit_turn::server::{
    Client, Command, Event, Forward, HEADROOM, RelayPort, Socket, StreamId, TAILROOM, Transport,
};

use super::token::Token;
use super::{SLOTS, Shard, TRAIN_SLOTS};
use crate::sockets::Role;
use crate::streams::Importance;

impl Shard {
    /// Takes a batch from a listener; returns how many slots it filled.
    pub(super) fn receive_from_clients(&mut self, now: Instant, family: Family, role: Role) -> usize {
        let Some(listener) = self.sockets.listeners.get(family, role) else { return 0 };
        let slots = if role == Role::Requests { SLOTS } else { self.slots[0] };
        let filled = match listener.receive(&mut self.batch, slots) {
            Ok(0) => return 0,
            Ok(filled) => filled,
            Err(error) => {
                tracing::error!(%error, ?family, ?role, "a listener is broken");
                return 0;
            }
        };
        if filled > 1 {
            let first = (0..filled).filter_map(|slot| self.batch.peek(slot));
            self.server.expect_from_clients(first.map(|(client, datagram)| (Client::udp(client), datagram)));
        }
        let mut has_trains = false;
        for slot in 0..filled {
            let Some((received, buffer)) = self.batch.get(slot) else { continue };
            has_trains |= received.is_train();
            let client = Client::udp(received.source);
            for place in received.datagrams(HEADROOM) {
                let forward = self.server.handle_client(now, client, &buffer[place.clone()]);
                if let Some(Forward { source, destination, range }) = forward {
                    let range = place.start + range.start..place.start + range.end;
                    self.egress.push((source, destination), &[], slot, range);
                }
            }
        }
        if role == Role::Data {
            self.slots[0] = if has_trains { TRAIN_SLOTS } else { SLOTS };
        }
        self.egress.flush(&self.sockets, &self.batch);
        self.carry_out(now);
        filled
    }

    /// Takes a batch from a lent port.
    pub(super) fn receive_from_peers(&mut self, now: Instant, port: RelayPort) {
        let Some(socket) = self.sockets.lent.get(port) else { return };
        let filled = match socket.receive(&mut self.batch, self.slots[1]) {
            Ok(0) => return,
            Ok(filled) => filled,
            Err(error) => {
                tracing::warn!(%error, port = port.number, "a lent port is broken");
                self.sockets.lent.close(port);
                return;
            }
        };
        let mut has_trains = false;
        for slot in 0..filled {
            let Some((received, buffer)) = self.batch.get(slot) else { continue };
            has_trains |= received.is_train();
            for place in received.datagrams(HEADROOM) {
                // The machine writes around the datagram, where its neighbours lie, which leave only later.
                let around = Around::save(buffer, place.clone());
                let Some(forward) =
                    self.server.handle_peer(now, port, received.source, buffer, place.clone())
                else {
                    continue;
                };
                let Forward { source, destination, range } = forward;
                match source {
                    Socket::Stream(id) => {
                        self.streams.send(id, &buffer[range], Importance::Data(place.len()))
                    }
                    // ChannelData, as a rule: a header and nothing behind.
                    _ if range.end == place.end => {
                        self.egress.push(
                            (source, destination),
                            &buffer[range.start..place.start],
                            slot,
                            place.clone(),
                        );
                    }
                    _ => self.egress.push_copy((source, destination), &buffer[range]),
                }
                around.restore(buffer, place);
            }
        }
        self.slots[1] = if has_trains { TRAIN_SLOTS } else { SLOTS };
        self.egress.flush(&self.sockets, &self.batch);
        self.carry_out(now);
    }

    /// Reads from a connection what has come, and writes what waits.
    pub(super) fn serve_stream(&mut self, now: Instant, id: StreamId, is_writable: bool) {
        let (server, egress) = (&mut self.server, &mut self.egress);
        self.streams.serve(id, is_writable, |client, message| {
            let Forward { source, destination, range } = server.handle_client(now, client, message)?;
            egress.push_copy((source, destination), &message[range.clone()]);
            Some(range.len())
        });
        self.egress.flush(&self.sockets, &self.batch);
        self.carry_out(now);
    }

    /// Writes to connections, and lets the machine know of those that have ended.
    pub(super) fn settle_streams(&mut self, now: Instant) {
        self.streams.flush();
        while let Some((id, address)) = self.streams.next_ended() {
            self.server.handle_client_gone(now, Client::stream(id, address));
            self.carry_out(now);
        }
    }

    /// Carries out what the machine wants.
    pub(super) fn carry_out(&mut self, now: Instant) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { source: Socket::Stream(id), payload, .. } => {
                    self.streams.send(id, &payload, Importance::Control);
                }
                Command::Send { source, destination, payload } => self.answer(source, destination, &payload),
                Command::BindPort { port } => {
                    let bound = self.open_port(port);
                    self.server.handle_port_bound(now, port, bound);
                }
                Command::ReleasePort { port } => {
                    self.fast_path.release(port);
                    self.sockets.lent.close(port);
                }
                Command::AddRoute { route } => self.fast_path.add(&route),
                Command::RemoveRoute { route } => self.fast_path.remove(&route),
            }
        }
        while let Some(event) = self.server.poll_event() {
            self.note(now, &event);
        }
    }

    /// Answers leave by the listener for requests: its send buffer is never full of data.
    fn answer(&mut self, source: Socket, destination: std::net::SocketAddr, payload: &[u8]) {
        let socket = match source {
            Socket::Listener(family) => self.sockets.listeners.get(family, Role::Requests),
            Socket::Relay(_) | Socket::Stream(_) => self.sockets.for_data(source),
        };
        let sent = socket.map(|socket| socket.send_one(destination, payload));
        self.lost_answers += u64::from(sent.is_none_or(|sent| sent.is_err()));
    }

    fn open_port(&mut self, port: RelayPort) -> bool {
        let opened = self.sockets.lent.open(port);
        let watched = opened
            .map_err(anyhow::Error::from)
            .and_then(|socket| Ok(self.watch.add(socket, Token::Lent(port))?));
        let Err(error) = watched else { return true };
        self.sockets.lent.close(port);
        self.unbound_ports += 1;
        tracing::debug!(error = format!("{error:#}"), port = port.number, "cannot lend a port");
        false
    }

    fn note(&mut self, now: Instant, event: &Event) {
        match event {
            Event::AllocationCreated { client, ports } => {
                if let Transport::Stream(id) = client.transport {
                    self.streams.set_allocated(now, id, true);
                }
                let ports: Vec<u16> = ports.iter().map(|port| port.number).collect();
                tracing::debug!(%client, ?ports, "allocation created");
            }
            Event::AllocationEnded { client, reason } => {
                if let Transport::Stream(id) = client.transport {
                    self.streams.set_allocated(now, id, false);
                }
                tracing::debug!(%client, ?reason, "allocation ended");
            }
        }
    }
}

/// The bytes next to a datagram.
struct Around {
    before: [u8; HEADROOM],
    behind: [u8; TAILROOM],
}

impl Around {
    fn save(buffer: &[u8], place: std::ops::Range<usize>) -> Self {
        let (mut before, mut behind) = ([0; HEADROOM], [0; TAILROOM]);
        before.copy_from_slice(&buffer[place.start - HEADROOM..place.start]);
        behind.copy_from_slice(&buffer[place.end..place.end + TAILROOM]);
        Self { before, behind }
    }

    fn restore(&self, buffer: &mut [u8], place: std::ops::Range<usize>) {
        buffer[place.start - HEADROOM..place.start].copy_from_slice(&self.before);
        buffer[place.end..place.end + TAILROOM].copy_from_slice(&self.behind);
    }
}
