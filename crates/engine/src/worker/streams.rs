//! Streams to relays: every worker writes to them, and the first one reads.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use adit_dataplane::{Datagrams, Inbound, StreamId};

use super::{Content, Loop};
use crate::delivery::Delivery;
use crate::streams::Connection;

/// Reads of one stream in one turn.
const READS: usize = 4;

impl Loop {
    /// What was just sealed leaves over a stream.
    pub(super) fn queue_for_stream(&mut self, stream: StreamId, datagrams: Datagrams) {
        self.streams.queue(stream, self.outgoing.sealed(datagrams.length), datagrams.segment);
        self.wrote_to_streams = true;
    }

    pub(super) fn flush_streams(&mut self) {
        if std::mem::take(&mut self.wrote_to_streams) {
            self.streams.flush();
        }
    }

    pub(super) fn turn_of_streams(&mut self, now: Instant) {
        let streams = Arc::clone(&self.streams);
        for connection in streams.ready() {
            let read = self.turn_of_stream(now, &connection);
            streams.settle(&connection, read.and_then(|()| streams.write(&connection)));
        }
    }

    fn turn_of_stream(&mut self, now: Instant, connection: &Connection) -> io::Result<()> {
        let mut input = connection.input();
        for _ in 0..READS {
            if !connection.receive(&mut input)? {
                break;
            }
            let mut delivery = Delivery::new(&self.tun);
            let messages = input.splitter.whole_messages();
            for message in messages.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                let content = match self.worker.inbound_message(now, connection.id(), message) {
                    Inbound::Tun(range) => {
                        delivery.push(&mut message[range]);
                        continue;
                    }
                    Inbound::Miss { peer, range } => {
                        let packet = message[range].to_vec();
                        if self.to_control.tell(Content::PeerPacket { peer, packet }) {
                            self.worker.note_miss();
                        }
                        continue;
                    }
                    Inbound::NotMine => {
                        Content::StreamMessage { stream: connection.id(), message: message.to_vec() }
                    }
                    Inbound::Keepalive | Inbound::Drop(_) => continue,
                };
                self.to_control.tell(content);
            }
            delivery.flush();
        }
        Ok(())
    }
}
