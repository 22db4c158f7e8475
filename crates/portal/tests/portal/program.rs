//! The program itself, as a process that can be killed.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::world::World;

/// The real program on a free port, killed when dropped.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Program {
    /// Serves the installation of a world, which has stopped or is another node.
    pub(crate) fn start(world: &World) -> Self {
        Self::serve(&world.directory.path().join("data"), &world.backend.arguments())
    }

    /// Serves a data directory.
    pub(crate) fn serve(data_dir: &Path, arguments: &[String]) -> Self {
        Self::serve_by(Command::new(env!("CARGO_BIN_EXE_adit-portal")), data_dir, arguments)
    }

    /// The same with a command whose environment is another one.
    pub(crate) fn serve_by(mut command: Command, data_dir: &Path, arguments: &[String]) -> Self {
        let child = command
            .args(["serve", "--insecure-plain", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // From here on it is killed whatever happens.
        let mut program = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut log = BufReader::new(program.child.stderr.take().unwrap()).lines();
        loop {
            let line = log.next().expect("the program has ended").unwrap();
            let Ok(entry) = serde_json::from_str::<serde_json::Value>(&line) else {
                panic!("the program did not start: {line}");
            };
            if entry["message"] == "portal is ready" {
                let text = entry["fields"]["addresses"].to_string();
                program.address = text.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
                break;
            }
        }
        // A pipe that nobody reads would make the program stand still.
        std::thread::spawn(move || log.for_each(drop));
        program
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
