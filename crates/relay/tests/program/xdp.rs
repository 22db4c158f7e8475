//! What the program says and does when XDP is asked for and cannot be had. What it does with XDP, the lab shows.

use crate::driver::{Program, SECRET, free_port, run};

/// Loopback has no driver that could, so this fails with and without the program, with and without rights.
#[test]
fn a_mode_that_cannot_be_had_is_an_error_that_says_why() {
    let port = free_port().to_string();
    let ended = run(&[
        "--static-secret",
        SECRET,
        "--public-ipv4",
        "127.0.0.1",
        "--port",
        &port,
        "--min-port",
        "1024",
        "--max-port",
        "1024",
        "--xdp",
        "driver",
    ]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("--xdp driver"), "{ended:?}");
    if !cfg!(feature = "xdp") {
        assert!(ended.stderr.contains("lacks the XDP program; build with `--features xdp`"), "{ended:?}");
    }
}

#[test]
fn auto_does_without_and_says_so_once() {
    let program = Program::alone(&["--xdp", "auto"]);
    program.terminate();
    let ended = program.ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout.matches("XDP is off").count(), 1, "{ended:?}");
}
