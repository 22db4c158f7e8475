//! What the first datagram of a flow costs beyond the later ones.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::world::Host;

/// The longest wait for one echo.
const LIMIT: Duration = Duration::from_secs(2);

/// Round trips to an echo server.
#[derive(Debug, Default)]
pub struct RoundTrips {
    /// Of the first datagram of each flow.
    pub first: Vec<Duration>,
    /// Of the second one.
    pub second: Vec<Duration>,
}

/// Opens `flows` flows one after the other and sends two datagrams in each, `pause` apart.
///
/// # Errors
/// When an echo does not come.
pub fn round_trips(host: &Host, target: SocketAddr, flows: u32, pause: Duration) -> Result<RoundTrips> {
    let mut times = RoundTrips::default();
    for _ in 0..flows {
        let socket = host.enter(|| UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0)))??;
        socket.connect(target)?;
        socket.set_read_timeout(Some(LIMIT))?;
        for times in [&mut times.first, &mut times.second] {
            std::thread::sleep(pause);
            times.push(round_trip(&socket).with_context(|| format!("no echo of {target}"))?);
        }
    }
    Ok(times)
}

fn round_trip(socket: &UdpSocket) -> std::io::Result<Duration> {
    let begin = Instant::now();
    socket.send(b"datagram")?;
    socket.recv(&mut [0; 64])?;
    Ok(begin.elapsed())
}
