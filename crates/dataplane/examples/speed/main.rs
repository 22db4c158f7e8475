//! How fast the pure code is: what `cargo xtask bench` runs for the groups `pure`, `crypto`, `handshake` and `scale`.
//!
//! ```text
//! speed cases               names of the hot paths
//! speed features            what this processor, or valgrind in its place, can do for cryptography
//! speed count CASE N        runs a hot path N times, for somebody who counts instructions
//! speed GROUP ROUNDS        measures a group; prints a line per sample: figure, whose, round, value
//! ```
//!
//! Times are those that this thread had a processor, so that waiting for one does not count; and a sample is the best
//! of several short runs, taken in turn with what it is compared with, because neighbours only ever add to a time.

mod crypto;
mod ends;
mod handshake;
mod hot_path;
mod memory;
mod packets;
mod scale;
mod stopwatch;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["cases"] => hot_path::CASES.iter().for_each(|(name, _)| println!("{name}")),
        ["features"] => println!("{}", features()),
        ["count", case, times] => hot_path::run(case, times.parse()?)?,
        ["crypto", rounds] => crypto::run(rounds.parse()?),
        ["handshake", rounds] => handshake::run(rounds.parse()?),
        ["scale", rounds] => scale::run(rounds.parse()?)?,
        _ => {
            return Err("usage: speed cases | features | count CASE N | crypto|handshake|scale ROUNDS".into());
        }
    }
    Ok(())
}

/// Extensions from which libraries choose their code.
#[cfg(target_arch = "x86_64")]
fn features() -> String {
    let known = [
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("adx", is_x86_feature_detected!("adx")),
        ("aes", is_x86_feature_detected!("aes")),
        ("vaes", is_x86_feature_detected!("vaes")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512ifma", is_x86_feature_detected!("avx512ifma")),
    ];
    let present: Vec<&str> = known.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name).collect();
    present.join(" ")
}

/// Elsewhere the architecture says enough.
#[cfg(not(target_arch = "x86_64"))]
fn features() -> String {
    std::env::consts::ARCH.to_owned()
}
