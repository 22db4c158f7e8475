//! `adit` on a terminal, in front of a daemon that says nothing: the line that shows that it is alive.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::File;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use adit_client_ipc::{Hello, read_frame, write_frame};
use tokio::net::UnixListener;

/// Says hello to everybody and then nothing, for as long as the test runs.
fn silent_daemon() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = UnixListener::from_std(listener).unwrap();
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _: Hello = read_frame(&mut stream).await.unwrap();
                write_frame(&mut stream, &Hello::new()).await.unwrap();
                held.push(stream);
            }
        });
    });
    (directory, path)
}

fn ping(socket: &PathBuf, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.arg("--socket").arg(socket).args(["ping", "wiki", "--timeout", "3"]).args(more);
    command.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Runs a command whose standard error is a terminal.
fn on_terminal(mut command: Command) -> (ExitStatus, String) {
    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut child = command.stderr(terminal.slave).spawn().unwrap();
    // It holds the terminal open, too.
    drop(command);
    let mut master = File::from(terminal.master);
    let (mut text, mut buffer) = (Vec::new(), [0; 512]);
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        text.extend_from_slice(&buffer[..count]);
    }
    (child.wait().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn a_terminal_sees_what_is_waited_for_and_then_only_the_failure() {
    let (_directory, socket) = silent_daemon();
    let (status, text) = on_terminal(ping(&socket, &[]));
    assert_eq!(status.code(), Some(7), "{text}");
    let (waiting, end) = text.rsplit_once("\r\u{1b}[K").unwrap();
    assert!(waiting.contains("Looking for a path to wiki… 1 s") && waiting.contains("… 2 s"), "{text:?}");
    assert!(!waiting.contains('\n'), "it stays on its line: {text:?}");
    assert!(end.contains("no path to wiki") && end.ends_with('\n'), "{text:?}");
}

#[test]
fn scripts_see_nothing_of_it() {
    let (_directory, socket) = silent_daemon();
    let (status, text) = on_terminal(ping(&socket, &["--json"]));
    assert_eq!(status.code(), Some(7));
    assert!(!text.contains('\u{1b}') && text.contains("\"exit_code\":7"), "{text:?}");
    let mut dumb = ping(&socket, &[]);
    dumb.env("TERM", "dumb");
    assert!(!on_terminal(dumb).1.contains('\u{1b}'));
    let piped = ping(&socket, &[]).output().unwrap();
    let text = String::from_utf8(piped.stderr).unwrap();
    assert!(!text.contains(['\u{1b}', '\r']) && text.contains("no path to wiki"), "{text:?}");
}
