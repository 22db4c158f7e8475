//! A PostgreSQL server for the tests of this machine: Debian's programs on a cluster of their own.
//!
//! All test processes share one server, reached through a socket in its directory and nothing
//! else. The first one that needs it starts it; each holds a shared lock on a file as long as it
//! runs. A watching shell stops the server and removes everything a few seconds after the last
//! lock is gone, so that a crashed test leaves nothing behind either. Root hands the server to
//! the user `postgres`, since it refuses to run as root.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use uuid::Uuid;

const RULES: &str = "\
fsync = off
synchronous_commit = off
full_page_writes = off
max_connections = 500
shared_buffers = 64MB
listen_addresses = ''
log_min_messages = warning
";

/// Ends the server when nobody holds the lock any more, and has not taken it for a while.
const WATCH: &str = r#"
exec </dev/null >/dev/null 2>&1
cd /
while :; do
    flock --exclusive "$1/users" true
    sleep 3
    exec 9<"$1/start"
    flock --exclusive 9
    if flock --exclusive --nonblock "$1/users" true; then
        kill -INT "$(head -1 "$1/data/postmaster.pid")"
        while [ -e "$1/data/postmaster.pid" ]; do sleep 0.1; done
        rm -rf "$1"
        exit
    fi
    exec 9<&-
done
"#;

/// A database of one test, dropped with it.
pub(crate) struct TestDatabase {
    pub(crate) name: String,
}

impl TestDatabase {
    /// Makes an empty one.
    pub(crate) fn create() -> Self {
        let name = format!("t{}", Uuid::new_v4().simple());
        administer(&format!("CREATE DATABASE {name} TEMPLATE template0"));
        Self { name }
    }

    /// How the portal reaches it.
    pub(crate) fn url(&self) -> String {
        format!("postgres://adit@localhost/{}?host={}", self.name, server().display())
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        administer(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

fn administer(text: &str) {
    psql("postgres", text);
}

/// Runs SQL as the server's administrator and returns its unadorned output.
pub(crate) fn psql(database: &str, text: &str) -> String {
    let output = Command::new(program("psql"))
        .args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--username=adit", "--host"])
        .arg(server())
        .args(["--set=ON_ERROR_STOP=1", "--dbname", database, "--command", text])
        .output()
        .expect("psql can be started");
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("psql writes UTF-8").trim().to_owned()
}

/// The directory of the running server.
fn server() -> &'static Path {
    struct Server {
        directory: PathBuf,
        /// Held until the process ends.
        _users: File,
    }
    static SERVER: OnceLock<Server> = OnceLock::new();
    let server = SERVER.get_or_init(|| {
        let directory = directory();
        loop {
            std::fs::create_dir_all(&directory).expect("the directory can be made");
            let start = open(&directory.join("start"));
            start.lock().expect("files can be locked");
            // Whoever waited for a server that was being removed has the lock of a removed file.
            if !directory.join("start").exists() {
                continue;
            }
            let users = open(&directory.join("users"));
            users.lock_shared().expect("files can be locked");
            if !directory.join("data/postmaster.pid").exists() {
                start_server(&directory);
            }
            return Server { directory, _users: users };
        }
    });
    &server.directory
}

fn open(path: &Path) -> File {
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn directory() -> PathBuf {
    use std::os::unix::fs::MetadataExt as _;
    let user = std::fs::metadata("/proc/self").expect("/proc is mounted").uid();
    // Short, because the path of a socket has 107 bytes.
    PathBuf::from(format!("/tmp/adit-postgres-{user}"))
}

fn start_server(directory: &Path) {
    let data = directory.join("data");
    let _ = std::fs::remove_dir_all(&data);
    let is_root = directory.ends_with("adit-postgres-0");
    if is_root {
        run(Command::new("chown").arg("postgres:postgres").arg(directory));
    }
    let own = |name: &str| {
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program(name));
            command
        } else {
            Command::new(program(name))
        };
        command.current_dir(directory).stdin(Stdio::null());
        command
    };
    let arguments =
        ["--auth=trust", "--username=adit", "--no-sync", "--encoding=UTF8", "--locale=C", "--pgdata"];
    run(own("initdb").args(arguments).arg(&data));
    let config = data.join("postgresql.conf");
    let config_text = std::fs::read_to_string(&config).expect("initdb wrote a configuration");
    let socket = format!("unix_socket_directories = '{}'\n", directory.display());
    std::fs::write(&config, config_text + RULES + &socket).expect("the configuration can be written");
    run(own("pg_ctl")
        .args(["start", "--wait", "--log"])
        .arg(directory.join("log"))
        .arg("--pgdata")
        .arg(&data));
    // It goes on by itself: nobody here waits for it, and it outlives this process.
    let mut watch = Command::new("setsid");
    run(watch.args(["--fork", "bash", "-c", WATCH, "watch"]).arg(directory).stdin(Stdio::null()));
}

fn run(command: &mut Command) {
    let output = command.stdout(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// One of the programs of the newest PostgreSQL that Debian has installed.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    versions
        .map(|entry| entry.path().join("bin").join(name))
        .filter(|path| path.exists())
        .max()
        .unwrap_or_else(|| panic!("no PostgreSQL here: `cargo xtask packages --install`, or postgresql-15"))
}
