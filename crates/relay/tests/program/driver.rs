//! The real program on loopback, and a client for it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use adit_turn::client::{self, Client, Event, Handled};
use adit_turn::{Family, credentials};

pub(crate) const SECRET: &str = "a static secret";
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A running relay.
pub(crate) struct Program {
    child: Child,
    pub(crate) port: u16,
    pub(crate) health: SocketAddr,
}

/// How a relay ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A UDP port that was free a moment ago.
pub(crate) fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

fn free_tcp_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit-relay"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ADIT_")) {
        command.env_remove(name);
    }
    command
}

/// Runs a relay that ends by itself.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    collect(command(arguments).spawn().expect("starts"))
}

fn collect(mut child: Child) -> Ended {
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().expect("waits").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("kills");
            panic!("the relay does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().expect("collects");
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Program {
    /// Starts a relay on loopback that stands alone, and waits until it is ready.
    pub(crate) fn alone(more: &[&str]) -> Self {
        let mut arguments =
            vec!["--static-secret", SECRET, "--allow-peer", "127.0.0.0/8", "--allow-peer", "::1/128"];
        arguments.extend(more);
        let program = Self::start(&arguments);
        program.wait_ready();
        program
    }

    /// Starts a relay on loopback.
    pub(crate) fn start(more: &[&str]) -> Self {
        let (port, health) = (free_udp_port(), free_tcp_address());
        let (port_text, health_text) = (port.to_string(), health.to_string());
        let mut arguments =
            vec!["--public-ipv4", "127.0.0.1", "--public-ipv6", "::1", "--log-level", "debug"];
        arguments.extend(["--port", &port_text, "--health", &health_text]);
        // Away from the ports that the system gives to everybody else, which a test may have as its own.
        arguments.extend(["--min-port", "20000", "--max-port", "29999"]);
        arguments.extend(more);
        let child = command(&arguments).spawn().expect("starts");
        Self { child, port, health }
    }

    pub(crate) fn wait_ready(&self) {
        let deadline = Instant::now() + LIMIT;
        while !self.get("/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            assert!(Instant::now() < deadline, "the relay does not become ready");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks the health endpoint.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.health).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    }

    pub(crate) fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("signals");
    }

    /// Waits for the end.
    pub(crate) fn ended(mut self) -> Ended {
        let child = std::mem::replace(&mut self.child, Command::new("true").spawn().expect("a stand-in"));
        collect(child)
    }

    pub(crate) fn address(&self, family: Family) -> SocketAddr {
        let ip: IpAddr = match family {
            Family::V4 => "127.0.0.1".parse().expect("address"),
            Family::V6 => "::1".parse().expect("address"),
        };
        SocketAddr::new(ip, self.port)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The client machine on real sockets.
pub(crate) struct Driver {
    pub(crate) client: Client,
    pub(crate) events: Vec<Event>,
    pub(crate) received: Vec<(SocketAddr, Vec<u8>)>,
    sockets: [UdpSocket; 2],
}

impl Driver {
    pub(crate) fn new(program: &Program, secret: &str) -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a sane clock");
        let username = credentials::username(unix.as_secs() + 3600, "tester");
        let config = client::Config {
            server_v4: Some(program.address(Family::V4)),
            server_v6: Some(program.address(Family::V6)),
            password: credentials::password(secret.as_bytes(), &username),
            username,
            software: String::new(),
        };
        let sockets = ["127.0.0.1:0", "[::1]:0"].map(|address| {
            let socket = UdpSocket::bind(address).expect("binds");
            socket.set_nonblocking(true).expect("sets");
            socket
        });
        let client =
            Client::new(Instant::now(), config, [sockets[0].local_addr().expect("address").port() as u8; 32]);
        Self { client, events: Vec::new(), received: Vec::new(), sockets }
    }

    /// Runs until `done`, or panics.
    pub(crate) fn run_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what} does not happen: {:?}", self.events);
            self.turn();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn run_until_allocated(&mut self) {
        self.run_until("the allocation", |driver| driver.client.relayed_addresses().next().is_some());
    }

    pub(crate) fn relayed(&self, family: Family) -> SocketAddr {
        let mut relayed = self.client.relayed_addresses();
        relayed.find(|address| Family::of(address.ip()) == family).expect("a relayed address")
    }

    /// Sends data through the relay.
    pub(crate) fn send(&mut self, peer: SocketAddr, data: &[u8]) {
        let transmit = self.client.send(Instant::now(), peer, data).expect("permitted");
        self.transmit(&transmit.payload, transmit.destination);
    }

    fn turn(&mut self) {
        let now = Instant::now();
        let mut buffer = [0; 2048];
        for index in 0..2 {
            while let Ok((length, from)) = self.sockets[index].recv_from(&mut buffer) {
                if let Handled::Data { peer, payload } =
                    self.client.handle_datagram(now, from, &buffer[..length])
                {
                    self.received.push((peer, buffer[payload].to_vec()));
                }
            }
        }
        self.client.handle_timeout(now);
        while let Some(transmit) = self.client.poll_transmit() {
            self.transmit(&transmit.payload, transmit.destination);
        }
        self.events.extend(std::iter::from_fn(|| self.client.poll_event()));
    }

    fn transmit(&self, payload: &[u8], destination: SocketAddr) {
        let socket = &self.sockets[usize::from(destination.is_ipv6())];
        socket.send_to(payload, destination).expect("sends");
    }
}
