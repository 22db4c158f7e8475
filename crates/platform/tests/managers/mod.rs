//! The programs of Debian that own a host's resolver, run for a test alone: own namespaces, own bus.
//!
//! They are not installed, for that would change who owns the resolver of the machine that runs the tests.
//! `cargo xtask packages --install` unpacks them beside each other into a cache.

use std::io::Read as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use adit_platform::dns_control::{Bus, DnsSettings};
use nix::mount::{MsFlags, mount};

/// How long a daemon may take to be there.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// What the tunnel wants: one server, one search domain.
pub(crate) fn settings() -> DnsSettings {
    DnsSettings {
        servers: vec!["100.64.0.53".parse().expect("address")],
        search: vec!["internal.example".to_owned()],
    }
}

/// Where a package of Debian was unpacked; `None`, and the reason said, if it was not.
pub(crate) fn unpacked(package: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME")?;
    let root = Path::new(&home).join(".cache/adit-lab/unpacked").join(package);
    if !root.is_dir() {
        assert!(std::env::var_os("ADIT_EVERY_TEST").is_none(), "{package} is not unpacked");
        eprintln!("skipped: {package} is not unpacked (cargo xtask packages --install)");
        return None;
    }
    Some(root)
}

/// A private system bus and what runs on it; all ends with it.
pub(crate) struct Machine {
    directory: tempfile::TempDir,
    children: Vec<Child>,
}

impl Machine {
    /// Starts a bus; `/run` is empty from here on, in this thread's mount namespace.
    pub(crate) fn start() -> Self {
        mount(Some("none"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
            .expect("an empty /run");
        std::fs::create_dir("/run/systemd").expect("as systemd makes it");
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut machine = Self { directory, children: Vec::new() };
        let configuration = machine.path("bus.conf");
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\
             <busconfig><type>system</type><listen>{}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow receive_sender=\"*\"/></policy></busconfig>",
            machine.address()
        );
        std::fs::write(&configuration, text).expect("writes");
        // Daemons that have given up being root connect too.
        open_to_all(machine.directory.path());
        let mut bus = Command::new("dbus-daemon");
        bus.arg("--nofork").arg("--config-file").arg(&configuration);
        machine.spawn(bus);
        let socket = machine.path("bus");
        wait_for("the bus", || socket.exists());
        machine
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.path("bus").display())
    }

    pub(crate) fn bus(&self) -> Bus {
        Bus::At(self.address())
    }

    /// Starts a daemon out of an unpacked package on this machine's bus.
    pub(crate) fn start_daemon(&mut self, root: &Path, program: &str, arguments: &[&str]) {
        let libraries =
            ["lib/systemd", "usr/lib/systemd", "usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
                .map(|place| root.join(place).display().to_string())
                .join(":");
        let mut command = Command::new(root.join(program));
        command
            .args(arguments)
            .env("LD_LIBRARY_PATH", libraries)
            .env("DBUS_SYSTEM_BUS_ADDRESS", self.address());
        self.spawn(command);
    }

    fn spawn(&mut self, mut command: Command) {
        let log = std::fs::File::create(self.path(&format!("log-{}", self.children.len()))).expect("creates");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        self.children.push(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    /// What the programs have said, for a test that fails.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        for number in 0..self.children.len() {
            let mut file = std::fs::File::open(self.path(&format!("log-{number}"))).expect("opens");
            file.read_to_string(&mut text).expect("reads");
        }
        text
    }

    /// Ends the newest daemon as a crash would.
    pub(crate) fn kill_newest(&mut self) {
        let mut child = self.children.pop().expect("a daemon");
        child.kill().and_then(|()| child.wait()).expect("ends");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for child in self.children.iter_mut().rev() {
            // It may have ended on its own.
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// Lets this thread's mount namespace know a user that the host does not have.
pub(crate) fn know_user(directory: &Path, name: &str) {
    for (file, line) in [
        ("passwd", format!("{name}:x:64999:64999::/:/usr/sbin/nologin\n")),
        ("group", format!("{name}:x:64999:\n")),
    ] {
        let original = Path::new("/etc").join(file);
        let ours = directory.join(file);
        let text = std::fs::read_to_string(&original).expect("reads") + &line;
        std::fs::write(&ours, text).expect("writes");
        mount(Some(&ours), &original, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("binds");
    }
}

pub(crate) fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < LIMIT, "{what} does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Answers every question at `address` with the IPv4 address `answer`, for the life of the test's process.
pub(crate) fn serve_names(address: &str, answer: [u8; 4]) {
    let socket = UdpSocket::bind((address, 53)).expect("binds");
    std::thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let Some(question_end) = question_end(&buffer[..length]) else { continue };
            let mut reply = buffer[..question_end].to_vec();
            reply[2..12].copy_from_slice(&[0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(answer);
            socket.send_to(&reply, from).expect("answers");
        }
    });
}

fn question_end(message: &[u8]) -> Option<usize> {
    let name = message.get(12..)?.iter().position(|byte| *byte == 0)?;
    (message.len() >= 12 + name + 5).then_some(12 + name + 5)
}

/// Asks a resolver for the IPv4 address of a name.
pub(crate) fn ask(resolver: &str, name: &str) -> Option<[u8; 4]> {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a limit");
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).expect("a short label"));
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    socket.send_to(&query, (resolver, 53)).expect("asks");
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer).ok()?;
    let answers = u16::from_be_bytes([buffer[6], buffer[7]]);
    (answers > 0).then(|| {
        buffer[length - 15..length].windows(4).last().map(|tail| [tail[0], tail[1], tail[2], tail[3]])
    })?
}

/// Lays directories over one of the host's, in this thread's mount namespace; what is written goes to `upper`.
pub(crate) fn overlay(place: &str, lower: &[&Path], upper: &Path) {
    let work = upper.with_extension("work");
    for directory in [upper, &work] {
        std::fs::create_dir_all(directory).expect("makes");
    }
    let lower: Vec<String> = lower.iter().map(|path| path.display().to_string()).collect();
    let options = format!(
        "lowerdir={}:{place},upperdir={},workdir={}",
        lower.join(":"),
        upper.display(),
        work.display()
    );
    let options = options.replace("lowerdir=:", "lowerdir=");
    mount(Some("overlay"), place, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .expect("overlays");
}
