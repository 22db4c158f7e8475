//! A private web server: one page, any number of bytes on request, and a count of what was asked.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::{Stop, thread, wait_readable};
use crate::world::Host;

/// Longest silence on a connection, and longest wait for a peer that does not read.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves `/` with a fixed page and `/bytes/<n>` with n zero bytes; stops when dropped.
#[derive(Debug)]
pub struct WebServer {
    state: Arc<State>,
    _stop: Stop,
}

#[derive(Debug)]
struct State {
    page: String,
    requests: AtomicU64,
    last_client: Mutex<Option<SocketAddr>>,
}

impl WebServer {
    /// Listens on `port` of `host`, IPv4 and IPv6, and serves `page`.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(host: &Host, port: u16, page: &str) -> Result<Self> {
        let listener = host.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)))??;
        listener.set_nonblocking(true)?;
        let state =
            State { page: page.to_owned(), requests: AtomicU64::new(0), last_client: Mutex::new(None) };
        let (state, stop) = (Arc::new(state), Stop::default());
        let (for_thread, flag) = (Arc::clone(&state), stop.flag());
        thread("web", move || {
            while wait_readable(&listener, &flag) {
                if let Ok((stream, from)) = listener.accept() {
                    let state = Arc::clone(&for_thread);
                    *state.last_client.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
                    // A connection that fails is the client's to notice.
                    let _ = thread("web-connection", move || drop(serve(&stream, &state)));
                }
            }
        })?;
        Ok(Self { state, _stop: stop })
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Where the last connection came from: the gateway's address, when it translates.
    pub fn last_client(&self) -> Option<SocketAddr> {
        *self.state.last_client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn serve(stream: &TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        state.requests.fetch_add(1, Ordering::Relaxed);
        answer(stream, state, &request.path)?;
        if request.close {
            break;
        }
    }
    Ok(())
}

struct Request {
    path: String,
    close: bool,
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split_whitespace().nth(1).unwrap_or("/").to_owned();
    let mut close = line.trim_end().ends_with("HTTP/1.0");
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            return Ok(Some(Request { path, close }));
        }
        close |= header.trim().eq_ignore_ascii_case("connection: close");
    }
}

fn answer(mut stream: &TcpStream, state: &State, path: &str) -> std::io::Result<()> {
    if let Some(length) = path.strip_prefix("/bytes/").and_then(|length| length.parse::<u64>().ok()) {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
        return std::io::copy(&mut std::io::Read::take(std::io::repeat(0), length), &mut stream).map(drop);
    }
    let (status, body) = if path == "/" { ("200 OK", state.page.as_str()) } else { ("404 Not Found", "") };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
