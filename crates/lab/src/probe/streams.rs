//! Many TCP connections with data in flight: which of them broke, and how long any of them stood still.
//!
//! Each end of a connection sends a numbered record every 25 ms, or only one of the ends does. A receiver checks
//! that every record is the next one, and notes the longest time without any. One thread serves all connections of
//! an end, so that hundreds of them cost little.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Stop, thread};
use crate::world::Host;

/// Between two records of one connection and direction.
const INTERVAL: Duration = Duration::from_millis(25);

/// Length of a record; its first 8 bytes are its number.
const RECORD: usize = 64;

/// Longest sleep of a thread that serves connections, in milliseconds.
const TICK: u16 = 5;

/// Longest time a connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Which ends of a connection send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// Both.
    Both,
    /// The client alone.
    Up,
    /// The server alone: the client never says a word.
    Down,
}

impl Traffic {
    const fn code(self) -> u8 {
        match self {
            Self::Both => b'b',
            Self::Up => b'u',
            Self::Down => b'd',
        }
    }

    const fn sends(self, side: Side) -> bool {
        !matches!((self, side), (Self::Up, Side::Server) | (Self::Down, Side::Client))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Client,
    Server,
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What one receiver saw.
#[derive(Clone, Debug)]
struct Watch {
    last: Instant,
    worst: Duration,
    broken: Option<String>,
}

/// All receivers, by connection and side.
type Board = Arc<Mutex<BTreeMap<(u16, Side), Watch>>>;

/// What became of all connections.
#[derive(Clone, Debug)]
pub struct Report {
    /// Connections that broke, or on which nothing has come for long.
    pub lost: Vec<String>,
    /// The longest time that any receiver waited for the next record.
    pub worst_stall: Duration,
}

/// Open connections with their traffic; closed when dropped.
#[derive(Debug)]
pub struct Streams {
    board: Board,
    _stop: [Stop; 2],
}

impl Streams {
    /// Listens on `port` of `server` and opens, from `client`, one connection to each target.
    ///
    /// # Errors
    /// When the port is taken, or a connection does not open.
    pub fn open(server: &Host, port: u16, client: &Host, targets: &[(SocketAddr, Traffic)]) -> Result<Self> {
        let board = Board::default();
        let stops = [Stop::default(), Stop::default()];
        let listener = server.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))??;
        listener.set_nonblocking(true)?;
        let mut pump = Pump::new(Side::Server, &board);
        pump.listener = Some(listener);
        let flag = stops[0].flag();
        thread("streams-server", move || pump.run(&flag))?;
        let mut pump = Pump::new(Side::Client, &board);
        pump.ends = client.enter(|| connect_all(targets))??;
        let flag = stops[1].flag();
        thread("streams-client", move || pump.run(&flag))?;
        Ok(Self { board, _stop: stops })
    }

    /// Forgets stalls of the past; what follows is measured.
    pub fn measure(&self) {
        let now = Instant::now();
        for watch in lock(&self.board).values_mut() {
            watch.worst = Duration::ZERO;
            watch.last = now;
        }
    }

    /// When the server got its last record, on whatever connection.
    pub fn last_received_by_server(&self) -> Option<Instant> {
        let board = lock(&self.board);
        board.iter().filter(|((_, side), _)| *side == Side::Server).map(|(_, watch)| watch.last).max()
    }

    /// What happened since the last [`Streams::measure`]; a receiver that has waited longer than `patience` is lost.
    pub fn report(&self, patience: Duration) -> Report {
        let board = lock(&self.board);
        let mut report = Report { lost: Vec::new(), worst_stall: Duration::ZERO };
        for ((id, side), watch) in board.iter() {
            let waiting = watch.last.elapsed();
            report.worst_stall = report.worst_stall.max(watch.worst);
            match &watch.broken {
                Some(why) => report.lost.push(format!("{id} {side:?}: {why}")),
                None if waiting > patience => report.lost.push(format!("{id} {side:?}: silent {waiting:?}")),
                None => {}
            }
        }
        report
    }
}

fn lock(board: &Board) -> std::sync::MutexGuard<'_, BTreeMap<(u16, Side), Watch>> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens the connections a few at a time, in the calling thread's network.
fn connect_all(targets: &[(SocketAddr, Traffic)]) -> Result<Vec<End>> {
    let numbered: Vec<_> = (0_u16..).zip(targets).collect();
    std::thread::scope(|scope| {
        let share = numbered.len().div_ceil(20).max(1);
        let workers: Vec<_> = numbered
            .chunks(share)
            .map(|chunk| {
                scope.spawn(move || {
                    chunk
                        .iter()
                        .map(|(id, (target, traffic))| connect(*id, *target, *traffic))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let results = workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default());
        let ends = results.collect::<Result<Vec<End>>>()?;
        if ends.len() != numbered.len() {
            bail!("a connecting thread panicked");
        }
        Ok(ends)
    })
}

fn connect(id: u16, target: SocketAddr, traffic: Traffic) -> Result<End> {
    let mut stream = TcpStream::connect_timeout(&target, CONNECT_LIMIT)
        .with_context(|| format!("connection {id} to {target}"))?;
    let [high, low] = id.to_be_bytes();
    stream.write_all(&[traffic.code(), high, low])?;
    End::new(stream, id, traffic)
}

/// One end of a connection.
#[derive(Debug)]
struct End {
    stream: TcpStream,
    id: u16,
    traffic: Traffic,
    due: Instant,
    sent: u64,
    unsent: Vec<u8>,
    received: u64,
    unread: Vec<u8>,
}

impl End {
    fn new(stream: TcpStream, id: u16, traffic: Traffic) -> Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let (unsent, unread) = (Vec::new(), Vec::new());
        Ok(Self { stream, id, traffic, due: Instant::now(), sent: 0, unsent, received: 0, unread })
    }

    /// Sends the record that is due and what could not be sent before.
    fn send(&mut self, now: Instant) -> Result<(), String> {
        if now >= self.due {
            self.due += INTERVAL;
            // While the connection stands still, the kernel's buffer and one record are enough to wait.
            if self.unsent.is_empty() {
                let mut record = [0; RECORD];
                record[..8].copy_from_slice(&self.sent.to_be_bytes());
                self.sent += 1;
                self.unsent.extend_from_slice(&record);
            }
        }
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("sending: {error}")),
            }
        }
        Ok(())
    }

    /// Reads what has come; whether it was at least one record, each the next one.
    fn receive(&mut self) -> Result<bool, String> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("closed by the other end".to_owned()),
                Ok(length) => self.unread.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(format!("receiving: {error}")),
            }
        }
        let before = self.received;
        while self.unread.len() >= RECORD {
            let record: Vec<u8> = self.unread.drain(..RECORD).collect();
            let number = record.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
            if number != Some(self.received) || record[8..].iter().any(|byte| *byte != 0) {
                return Err(format!("record {} is {number:?}", self.received));
            }
            self.received += 1;
        }
        Ok(self.received > before)
    }
}

/// Serves all connections of one side.
struct Pump {
    side: Side,
    listener: Option<TcpListener>,
    ends: Vec<End>,
    board: Board,
}

impl Pump {
    fn new(side: Side, board: &Board) -> Self {
        Self { side, listener: None, ends: Vec::new(), board: Arc::clone(board) }
    }

    fn run(mut self, stop: &AtomicBool) {
        let now = Instant::now();
        for end in &self.ends {
            watch(&self.board, end, self.side, now);
        }
        while !stop.load(Ordering::Relaxed) {
            self.wait();
            self.accept();
            self.serve();
        }
    }

    fn wait(&self) {
        let listener = self.listener.iter().map(AsFd::as_fd);
        let descriptors = listener.chain(self.ends.iter().map(|end| end.stream.as_fd()));
        let mut descriptors: Vec<PollFd<'_>> =
            descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        // Woken early or not: everything is looked at.
        let _ = poll(&mut descriptors, PollTimeout::from(TICK));
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = [0; 3];
            // The client says what the connection is for right after it is open.
            let read = stream.set_nonblocking(false).and_then(|()| stream.read_exact(&mut head));
            let traffic =
                [Traffic::Both, Traffic::Up, Traffic::Down].into_iter().find(|t| t.code() == head[0]);
            let (Ok(()), Some(traffic)) = (read, traffic) else { continue };
            if let Ok(end) = End::new(stream, u16::from_be_bytes([head[1], head[2]]), traffic) {
                watch(&self.board, &end, self.side, Instant::now());
                self.ends.push(end);
            }
        }
    }

    fn serve(&mut self) {
        let now = Instant::now();
        let side = self.side;
        let mut news = Vec::new();
        self.ends.retain_mut(|end| {
            let sent = if end.traffic.sends(side) { end.send(now) } else { Ok(()) };
            let outcome = sent.and_then(|()| end.receive());
            let is_good = outcome.is_ok();
            if !matches!(outcome, Ok(false)) {
                news.push((end.id, outcome));
            }
            is_good
        });
        let mut board = lock(&self.board);
        for (id, outcome) in news {
            // A sender alone has no watch of its own; what it notices counts for the receiver.
            let key = if board.contains_key(&(id, side)) { (id, side) } else { (id, side.other()) };
            let Some(watch) = board.get_mut(&key) else { continue };
            match outcome {
                Ok(_) => {
                    watch.worst = watch.worst.max(now - watch.last);
                    watch.last = now;
                }
                Err(why) => watch.broken = Some(why),
            }
        }
    }
}

/// Puts a receiver on the board.
fn watch(board: &Board, end: &End, side: Side, now: Instant) {
    if end.traffic.sends(side.other()) {
        lock(board).insert((end.id, side), Watch { last: now, worst: Duration::ZERO, broken: None });
    }
}
