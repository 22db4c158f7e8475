//! Everything that a TURN server must refuse, and with which code: the same requests to any server that makes
//! credentials from a shared secret. Not shipped.
//!
//! Each case has a socket and a user of its own. One JSON object is printed: for each case the code that the RFCs ask
//! for, and the answer that came (0 for success, `null` for none). The scenario `interop-turn-errors` sets our relay
//! beside coturn with it.

mod cases;
mod session;

use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use serde_json::{Value, json};

use crate::cases::{ALL, Ground};

/// Make a TURN server refuse, in every way it should.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server.
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: SocketAddr,
    /// The secret from which server and users make credentials.
    #[arg(long, value_name = "SECRET")]
    secret: String,
    /// An address that the server lets users send to.
    #[arg(long, value_name = "ADDRESS")]
    peer: IpAddr,
    /// An address of the other family.
    #[arg(long, value_name = "ADDRESS")]
    other_peer: IpAddr,
    /// An address that the server must not let users send to.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    forbidden_peer: IpAddr,
    /// Allocations that one user may have.
    #[arg(long, value_name = "N")]
    quota: usize,
    /// Allocations that the server can make at all; more than any single case needs.
    #[arg(long, value_name = "N")]
    capacity: usize,
}

fn main() -> ExitCode {
    match run() {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Value> {
    let Arguments { server, secret, peer, other_peer, forbidden_peer, quota, capacity } = Arguments::parse();
    let ground = Ground { server, secret, peer, other_peer, forbidden_peer, quota, capacity };
    let mut answers = Vec::new();
    for case in ALL {
        let answer = (case.ask)(&ground, case.name);
        answers.push(json!({
            "case": case.name,
            "expected": case.expected,
            "section": case.section,
            // Why it could not even be asked.
            "failure": answer.as_ref().err().map(|error| format!("{error:#}")),
            "answer": answer.unwrap_or_default(),
        }));
    }
    Ok(Value::Array(answers))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
