//! The real program on loopback, and a client for it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
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
    tls_port: u16,
    pub(crate) health: SocketAddr,
}

/// Away from the ports that the system gives to everybody else, which a test may have as its own.
const LENT_PORTS: (u16, u16) = (20_000, 29_999);

/// How a relay ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A port that was free a moment ago, for UDP and TCP and both families.
pub(crate) fn free_port() -> u16 {
    let is_free = |port: u16| {
        ["127.0.0.1", "::1"].into_iter().all(|ip| {
            let address = SocketAddr::new(ip.parse().expect("address"), port);
            UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok()
        })
    };
    let candidate = || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        socket.local_addr().expect("address").port()
    };
    std::iter::repeat_with(candidate).take(1000).find(|&port| is_free(port)).expect("a free port")
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

    /// The same with TLS.
    pub(crate) fn alone_with_tls(more: &[&str]) -> Self {
        let tls_port = free_port();
        let port = tls_port.to_string();
        let mut arguments = vec!["--tls-port", &port];
        arguments.extend(more);
        let mut program = Self::alone(&arguments);
        program.tls_port = tls_port;
        program
    }

    /// Starts a relay on loopback.
    pub(crate) fn start(more: &[&str]) -> Self {
        let port = free_port();
        let health = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), free_port());
        let (port_text, health_text) = (port.to_string(), health.to_string());
        let (first, last) = (LENT_PORTS.0.to_string(), LENT_PORTS.1.to_string());
        let mut arguments =
            vec!["--public-ipv4", "127.0.0.1", "--public-ipv6", "::1", "--log-level", "debug"];
        arguments.extend(["--port", &port_text, "--health", &health_text]);
        if !more.contains(&"--min-port") {
            arguments.extend(["--min-port", &first, "--max-port", &last]);
        }
        arguments.extend(more);
        let child = command(&arguments).spawn().expect("starts");
        Self { child, port, tls_port: 0, health }
    }

    /// First and last port to lend.
    pub(crate) fn lent_ports(&self) -> (u16, u16) {
        LENT_PORTS
    }

    /// A socket on a port that the relay could lend, but does not.
    pub(crate) fn unlent(&self) -> UdpSocket {
        let mut ports = LENT_PORTS.0..=LENT_PORTS.1;
        ports.find_map(|port| UdpSocket::bind(("127.0.0.1", port)).ok()).expect("a free port")
    }

    /// A figure at this moment; `None` before it was first published.
    pub(crate) fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.get("/metrics")?;
        let line = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.parse().ok()
    }

    /// A figure as it is published next.
    pub(crate) fn next_metric(&self, name: &str) -> f64 {
        let before = self.metric("adit_relay_reports_total");
        let deadline = Instant::now() + LIMIT;
        while self.metric("adit_relay_reports_total") == before {
            assert!(Instant::now() < deadline, "no figures are published");
            std::thread::sleep(Duration::from_millis(50));
        }
        self.metric(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    pub(crate) fn wait_metric(&self, name: &str, is_met: impl Fn(f64) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !self.metric(name).is_some_and(&is_met) {
            assert!(Instant::now() < deadline, "{name} is {:?}", self.metric(name));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for an answer of the health endpoint that begins as told and holds a text.
    pub(crate) fn wait_answer(&self, path: &str, start: &str, text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let answer = self.get(path).unwrap_or_default();
            if answer.starts_with(start) && answer.contains(text) {
                return;
            }
            assert!(Instant::now() < deadline, "{answer}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The memory that the relay has.
    pub(crate) fn resident_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
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
        self.signal(nix::sys::signal::Signal::SIGTERM);
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("signals");
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

    /// Where it takes TCP connections: by default at the port that it has for UDP.
    pub(crate) fn tcp_address(&self, family: Family) -> SocketAddr {
        self.address(family)
    }

    pub(crate) fn tls_address(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.address(family).ip(), self.tls_port)
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
            transport: client::Transport::Udp,
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
