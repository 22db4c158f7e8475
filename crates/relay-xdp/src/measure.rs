//! Running the program without a network: on one frame to see what it does, or many times to see how long it takes.

use std::time::Duration;

use aya::TestRun as _;
use aya::programs::{ProgramError, TestRunOptions, Xdp};

use crate::{Config, Engine, XdpError};

/// With this compilation the program can be run many times on one frame.
static MEASURED: &[u8] = aya::include_bytes_aligned!(env!("ADIT_XDP_MEASURED"));

/// What the program did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes up, as this.
    Passed(Vec<u8>),
    /// It leaves, as this.
    Sent(Vec<u8>),
    /// Anything else, by its number; a defect.
    Other(u32),
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timed {
    /// The program, and putting back what it changed.
    Program,
    /// Putting back alone.
    Restoring,
}

/// Most that a frame can grow.
const GROWTH: usize = 64;

/// Runs the attached program on a frame that came in by the interface with this index.
///
/// # Errors
/// When the kernel cannot, for instance because the interface is down.
pub fn run(engine: &Engine, interface: u32, frame: &[u8]) -> Result<Verdict, XdpError> {
    let mut out = vec![0; frame.len() + GROWTH];
    let context = context(interface, frame.len());
    let ran = engine.with_program("relay", |program: &Xdp| {
        program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        })
    });
    let ran = ran.ok_or_else(|| XdpError::Load("no program `relay`".to_owned()))?.map_err(failed)?;
    out.truncate(ran.data_size_out as usize);
    Ok(match ran.return_value {
        2 => Verdict::Passed(out),
        3 => Verdict::Sent(out),
        other => Verdict::Other(other),
    })
}

/// Attaches a compilation of the program that [`time`] can run.
///
/// # Errors
/// As [`Engine::attach`].
pub fn attach(config: &Config) -> Result<Engine, XdpError> {
    Engine::attach_object(config, MEASURED)
}

/// Runs a part `repeat` times on a frame; the time for one.
///
/// # Errors
/// When the kernel cannot, or the frame was not sent each time.
pub fn time(
    engine: &Engine,
    timed: Timed,
    interface: u32,
    frame: &[u8],
    repeat: u32,
) -> Result<Duration, XdpError> {
    let name = match timed {
        Timed::Program => "repeated",
        Timed::Restoring => "restored",
    };
    let context = context(interface, frame.len());
    let ran = engine.with_program(name, |program: &Xdp| {
        program.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat,
            ..TestRunOptions::new()
        })
    });
    let ran = ran.ok_or_else(|| XdpError::Load(format!("no program `{name}`")))?.map_err(failed)?;
    if ran.return_value != 3 {
        return Err(XdpError::Load(format!("the frame was not sent but answered with {}", ran.return_value)));
    }
    Ok(ran.duration)
}

/// What the kernel hands a program beside the frame (`struct xdp_md`).
fn context(interface: u32, length: usize) -> [u8; 24] {
    let words = [0, length as u32, 0, interface, 0, 0];
    let mut bytes = [0; 24];
    for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn failed(error: ProgramError) -> XdpError {
    XdpError::Load(error.to_string())
}
