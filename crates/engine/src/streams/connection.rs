//! One open stream: bytes out of its queue, messages in, through TLS or not.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_dataplane::StreamId;
use adit_platform::tcp;
use adit_turn::framing::{LONGEST_MESSAGE, Splitter};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use rustls::ClientConnection;

use super::outbox::Outbox;

/// Bytes read in one call: what a relay writes in one.
const READ: usize = 64 * 1024;

/// Bytes that the kernel holds beyond what is under way; more would only wait there.
const UNSENT: u32 = 64 * 1024;

/// Without acknowledgements for so long the stream is broken.
const SILENCE: Duration = Duration::from_secs(15);

/// Plaintext put through TLS at a time; little waits encrypted when the kernel takes no more.
const TLS_PIECE: usize = 32 * 1024;

/// An open stream, shared by the threads that write to it.
#[derive(Debug)]
pub(crate) struct Connection {
    id: StreamId,
    remote: SocketAddr,
    socket: TcpStream,
    tls: Option<Mutex<ClientConnection>>,
    outbox: Mutex<Outbox>,
    input: Mutex<Input>,
}

/// What has arrived.
#[derive(Debug)]
pub(crate) struct Input {
    /// Cuts it into messages.
    pub(crate) splitter: Splitter,
    /// Room for what is still encrypted.
    encrypted: Vec<u8>,
}

impl Connection {
    /// A stream over a connected socket, with a finished handshake if there is TLS.
    ///
    /// # Errors
    ///
    /// When the socket does not take its options.
    pub(super) fn new(id: StreamId, socket: TcpStream, tls: Option<ClientConnection>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let remote = socket.peer_addr()?;
        tcp::bound_waiting(&socket, UNSENT, SILENCE)?;
        let mut splitter = Splitter::new(LONGEST_MESSAGE);
        splitter.reserve(LONGEST_MESSAGE + 2 * READ);
        let encrypted = vec![0; if tls.is_some() { READ } else { 0 }];
        let (tls, input) = (tls.map(Mutex::new), Mutex::new(Input { splitter, encrypted }));
        Ok(Self { id, remote, socket, tls, outbox: Mutex::default(), input })
    }

    pub(crate) const fn id(&self) -> StreamId {
        self.id
    }

    /// The relay.
    pub(crate) const fn remote(&self) -> SocketAddr {
        self.remote
    }

    pub(super) const fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Queues messages; returns how many were dropped.
    pub(super) fn queue(&self, contents: &[u8], segment: usize) -> usize {
        self.outbox().push(contents, segment)
    }

    /// Queues a message that must not be lost and writes.
    pub(super) fn send(&self, message: &[u8], epoll: &Epoll) -> io::Result<()> {
        let mut outbox = self.outbox();
        if !outbox.push_important(message) {
            return Err(io::Error::new(ErrorKind::TimedOut, "the relay takes nothing any more"));
        }
        self.write(&mut outbox, epoll)
    }

    /// Writes what is queued, as far as the kernel takes it; the rest when epoll says so.
    pub(super) fn flush(&self, epoll: &Epoll) -> io::Result<()> {
        self.write(&mut self.outbox(), epoll)
    }

    fn write(&self, outbox: &mut Outbox, epoll: &Epoll) -> io::Result<()> {
        let written = match &self.tls {
            None => write_plain(&self.socket, outbox),
            Some(tls) => write_tls(&self.socket, &mut lock(tls), outbox),
        };
        let is_full = match written {
            Ok(()) => false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => return Err(error),
        };
        if is_full != outbox.is_watched {
            outbox.is_watched = is_full;
            let interest =
                if is_full { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            epoll.modify(&self.socket, &mut EpollEvent::new(interest, self.id.0.into()))?;
        }
        Ok(())
    }

    /// What has arrived, for the one thread that reads.
    pub(crate) fn input(&self) -> MutexGuard<'_, Input> {
        lock(&self.input)
    }

    /// Reads once; false if there is nothing to read.
    ///
    /// # Errors
    ///
    /// When the stream has ended, in order or not.
    pub(crate) fn receive(&self, input: &mut Input) -> io::Result<bool> {
        let received = match &self.tls {
            None => {
                let count = (&self.socket).read(input.splitter.space());
                count.inspect(|count| input.splitter.filled(*count))
            }
            Some(tls) => (&self.socket).read(&mut input.encrypted).and_then(|count| {
                decrypt(&mut lock(tls), input, count)?;
                Ok(count)
            }),
        };
        match received {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether everything has been acknowledged.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox().waiting().is_empty() && tcp::unacknowledged(&self.socket).is_none_or(|bytes| bytes == 0)
    }

    /// Writes what the kernel still takes and says that this was all.
    pub(super) fn close(&self, epoll: &Epoll) {
        // It is no longer watched, so a full buffer is as final as an error.
        let _ = self.flush(epoll);
        if let Some(tls) = &self.tls {
            let mut tls = lock(tls);
            tls.send_close_notify();
            let _ = tls.write_tls(&mut &self.socket);
        }
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        lock(&self.outbox)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_plain(mut socket: &TcpStream, outbox: &mut Outbox) -> io::Result<()> {
    while !outbox.waiting().is_empty() {
        match socket.write(outbox.waiting()) {
            Ok(count) => outbox.advance(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What is encrypted leaves first; only then more is encrypted.
fn write_tls(mut socket: &TcpStream, tls: &mut ClientConnection, outbox: &mut Outbox) -> io::Result<()> {
    loop {
        while tls.wants_write() {
            match tls.write_tls(&mut socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let waiting = outbox.waiting();
        if waiting.is_empty() {
            return Ok(());
        }
        let count = tls.writer().write(&waiting[..waiting.len().min(TLS_PIECE)])?;
        outbox.advance(count);
    }
}

/// Puts `count` encrypted bytes through TLS. Answers that TLS itself has to give leave with the next write.
fn decrypt(tls: &mut ClientConnection, input: &mut Input, count: usize) -> io::Result<()> {
    let mut encrypted = &input.encrypted[..count];
    let before = input.splitter.waiting();
    while !encrypted.is_empty() {
        tls.read_tls(&mut encrypted)?;
        let state =
            tls.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let mut waiting = state.plaintext_bytes_to_read();
        while waiting > 0 {
            let count = tls.reader().read(input.splitter.space())?;
            input.splitter.filled(count);
            waiting -= count;
        }
        // Last words are taken first; the end will be there again.
        if state.peer_has_closed() && input.splitter.waiting() == before {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}
