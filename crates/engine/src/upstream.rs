//! DNS queries to upstream resolvers: the IO that the client's resolver machine asks for.
//!
//! What goes to the address of a [`DohServer`](crate::DohServer) goes there over HTTPS. All else is classic DNS:
//! each query has a socket, and so a source port, of its own: an answer must come from the
//! server that was asked, to the port that asked. Matching id and question is the machine's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc};

use adit_control_client::Dial as _;

use crate::dial::MarkedDial;
use crate::doh::{DohClient, DohServer};

/// Queries on their way at once; one more fails at once.
const MOST_QUERIES: usize = 512;

/// How long an upstream may take.
const QUERY_LIMIT: Duration = Duration::from_secs(5);

/// The largest DNS message.
const LARGEST_MESSAGE: usize = 65_535;

/// How a query travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// One datagram each way.
    Udp,
    /// With a length in front, over a connection.
    Tcp,
}

/// What came of the query with this id.
pub(crate) type Answer<Id> = (Id, io::Result<Vec<u8>>);

/// Sends queries and returns what came of them.
#[derive(Debug)]
pub(crate) struct Upstreams<Id> {
    dial: MarkedDial,
    answers: mpsc::Sender<Answer<Id>>,
    slots: Arc<Semaphore>,
    /// Servers beyond the tunnel of another profile.
    through_tunnel: Vec<SocketAddr>,
    doh: Option<Arc<DohClient>>,
}

impl<Id: Copy + Send + 'static> Upstreams<Id> {
    /// Answers, and failures, arrive at the returned receiver.
    pub(crate) fn new(dial: MarkedDial, doh: Option<DohServer>) -> (Self, mpsc::Receiver<Answer<Id>>) {
        let (answers, receiver) = mpsc::channel(MOST_QUERIES);
        let doh = doh.map(|server| Arc::new(DohClient::new(server, dial)));
        let slots = Arc::new(Semaphore::new(MOST_QUERIES));
        (Self { dial, answers, slots, through_tunnel: Vec::new(), doh }, receiver)
    }

    /// Asks these servers as any program of the host does: another tunnel leads to them. All others are asked past
    /// every tunnel.
    pub(crate) fn reach_through_tunnel(&mut self, servers: impl Iterator<Item = SocketAddr>) {
        self.through_tunnel = servers.collect();
    }

    /// Sends `message` to `server`. A query too many is dropped: the machine's own timer ends it.
    pub(crate) fn query(&self, id: Id, server: SocketAddr, transport: Transport, message: Vec<u8>) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            tracing::debug!("too many DNS queries are on their way: dropped one");
            return;
        };
        let is_beyond_tunnel = self.through_tunnel.contains(&server);
        let dial = if is_beyond_tunnel { MarkedDial { mark: None } } else { self.dial };
        let answers = self.answers.clone();
        let doh = self.doh.clone().filter(|doh| doh.is_at(server));
        tokio::spawn(async move {
            let _slot = slot;
            let answer = match doh {
                Some(doh) => ask_https(&doh, &message).await,
                None => in_time(ask(dial, server, transport, &message)).await,
            };
            // Nobody waits for answers any more when the engine stops.
            let _ = answers.send((id, answer)).await;
        });
    }
}

async fn in_time(answer: impl Future<Output = io::Result<Vec<u8>>>) -> io::Result<Vec<u8>> {
    let answer = tokio::time::timeout(QUERY_LIMIT, answer).await;
    answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn ask_https(doh: &DohClient, message: &[u8]) -> io::Result<Vec<u8>> {
    let answer = in_time(doh.ask(message)).await;
    if answer.is_err() {
        // The network may have changed under the connection.
        doh.forget().await;
    }
    answer
}

async fn ask(
    dial: MarkedDial,
    server: SocketAddr,
    transport: Transport,
    message: &[u8],
) -> io::Result<Vec<u8>> {
    match transport {
        Transport::Udp => ask_udp(dial, server, message).await,
        Transport::Tcp => ask_tcp(dial, server, message).await,
    }
}

async fn ask_udp(dial: MarkedDial, server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let socket = dial.udp_socket(server)?;
    socket.send(message).await?;
    let mut answer = vec![0; LARGEST_MESSAGE];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

async fn ask_tcp(dial: MarkedDial, server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut stream = dial.socket(server)?.connect(server).await?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, UdpSocket};

    use super::*;

    const PLAIN: MarkedDial = MarkedDial { mark: None };

    #[tokio::test]
    async fn a_datagram_is_answered() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (upstreams, mut answers) = Upstreams::new(PLAIN, None);
        upstreams.query(7, server.local_addr().unwrap(), Transport::Udp, b"question".to_vec());
        let mut buffer = [0; 64];
        let (length, from) = server.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"question");
        server.send_to(b"answer", from).await.unwrap();
        let (id, answer) = answers.recv().await.unwrap();
        assert_eq!((id, answer.unwrap()), (7, b"answer".to_vec()));
    }

    #[tokio::test]
    async fn a_stream_is_framed() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (upstreams, mut answers) = Upstreams::new(PLAIN, None);
        upstreams.query(7, server.local_addr().unwrap(), Transport::Tcp, b"question".to_vec());
        let (mut stream, _) = server.accept().await.unwrap();
        let mut question = [0; 10];
        stream.read_exact(&mut question).await.unwrap();
        assert_eq!(&question, b"\x00\x08question");
        stream.write_all(b"\x00\x06answer").await.unwrap();
        let (_, answer) = answers.recv().await.unwrap();
        assert_eq!(answer.unwrap(), b"answer");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_failure() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let (upstreams, mut answers) = Upstreams::new(PLAIN, None);
        upstreams.query(7, server, Transport::Tcp, b"question".to_vec());
        assert!(answers.recv().await.unwrap().1.is_err());
    }
}
