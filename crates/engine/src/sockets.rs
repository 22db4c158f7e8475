//! The UDP sockets of a process: one per address family and worker.
//!
//! All workers' sockets of a family have the same port, and the kernel keeps the datagrams of one remote address on one
//! of them. The control thread sends on those of the first worker.

use std::net::{IpAddr, SocketAddr};

use adit_platform::udp::{BindError, Config, SendError, Transmit, UdpSocket};
use metrics::counter;

use crate::offloads::Offloads;

/// One socket for each family that the host has; at least one.
#[derive(Debug)]
pub(crate) struct Sockets {
    ipv4: Option<UdpSocket>,
    ipv6: Option<UdpSocket>,
}

impl Sockets {
    /// Binds both families to the same port if possible; `port` 0 takes any free one.
    ///
    /// # Errors
    ///
    /// When the port is taken, or the host has neither family.
    pub(crate) fn bind(port: u16, mark: Option<u32>, offloads: Offloads) -> Result<Self, BindError> {
        let config = |config| with_options(config, mark, offloads);
        let ipv4 = family(config(Config::wildcard_v4(port)))?;
        let same = ipv4.as_ref().map_or(port, |socket| socket.local_addr().port());
        let ipv6 = match family(config(Config::wildcard_v6(same))) {
            // Nobody asked for this port, so another one does as well.
            Err(BindError::Taken(_)) if port == 0 => family(config(Config::wildcard_v6(0)))?,
            other => other?,
        };
        if ipv4.is_none() && ipv6.is_none() {
            return Err(BindError::NoFamily("IPv4 and no IPv6"));
        }
        Ok(Self { ipv4, ipv6 })
    }

    /// More sockets on the same ports, for another worker.
    ///
    /// # Errors
    ///
    /// When the kernel does not let several sockets share a port.
    pub(crate) fn another(&self, mark: Option<u32>, offloads: Offloads) -> Result<Self, BindError> {
        let join = |socket: &Option<UdpSocket>, wildcard: fn(u16) -> Config| {
            let Some(socket) = socket else { return Ok(None) };
            socket.share_port()?;
            let config = Config { reuse_port: true, ..wildcard(socket.local_addr().port()) };
            UdpSocket::bind(&with_options(config, mark, offloads)).map(Some)
        };
        let ipv4 = join(&self.ipv4, Config::wildcard_v4)?;
        Ok(Self { ipv4, ipv6: join(&self.ipv6, Config::wildcard_v6)? })
    }

    /// The sockets that exist.
    pub(crate) fn all(&self) -> impl Iterator<Item = &UdpSocket> {
        [&self.ipv4, &self.ipv6].into_iter().flatten()
    }

    /// The addresses of the host together with the port of their family's socket.
    pub(crate) fn with_ports(&self, addresses: &[IpAddr]) -> Vec<SocketAddr> {
        let with_port = |address: &IpAddr| {
            let port = self.socket_for(*address)?.local_addr().port();
            Some(SocketAddr::new(*address, port))
        };
        addresses.iter().filter_map(with_port).collect()
    }

    /// Sends `contents`, cut into datagrams of `segment` bytes; what cannot leave is dropped and counted.
    pub(crate) fn send(
        &self,
        source: IpAddr,
        destination: SocketAddr,
        contents: &[u8],
        segment: Option<usize>,
    ) {
        let Some(socket) = self.socket_for(destination.ip()) else {
            counter!("adit_udp_send_dropped_total", "reason" => "no_family").increment(1);
            return;
        };
        let source = (!source.is_unspecified()).then_some(source);
        let transmit = Transmit { source, destination, contents, segment_size: segment };
        if let Err(error) = socket.send(&transmit) {
            counter!("adit_udp_send_dropped_total", "reason" => reason(&error)).increment(1);
        }
    }

    /// Tries segmentation again: another network interface may support it.
    pub(crate) fn retry_segmentation(&self) {
        self.all().for_each(UdpSocket::retry_segmentation);
    }

    /// Whether the kernel has sent everything that it was given.
    pub(crate) fn are_flushed(&self) -> bool {
        self.all().all(UdpSocket::outbound_queue_empty)
    }

    fn socket_for(&self, address: IpAddr) -> Option<&UdpSocket> {
        if address.is_ipv4() { self.ipv4.as_ref() } else { self.ipv6.as_ref() }
    }
}

const fn with_options(config: Config, mark: Option<u32>, offloads: Offloads) -> Config {
    Config {
        fwmark: mark,
        segmentation: offloads.udp_send,
        coalescing: offloads.udp_receive,
        keep_errors: true,
        ..config
    }
}

fn family(config: Config) -> Result<Option<UdpSocket>, BindError> {
    match UdpSocket::bind(&config) {
        Ok(socket) => Ok(Some(socket)),
        Err(BindError::NoFamily(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

const fn reason(error: &SendError) -> &'static str {
    match error {
        SendError::Full => "full",
        SendError::TooLarge => "too_large",
        SendError::SourceGone => "source_gone",
        SendError::Unreachable(_) => "unreachable",
        SendError::Refused(_) => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_share_a_port_and_a_taken_port_is_an_error() {
        let sockets = Sockets::bind(0, None, Offloads::default()).unwrap();
        let ports: Vec<u16> = sockets.all().map(|socket| socket.local_addr().port()).collect();
        assert!(ports.windows(2).all(|pair| pair[0] == pair[1]));
        assert!(matches!(Sockets::bind(ports[0], None, Offloads::default()), Err(BindError::Taken(_))));
    }

    #[test]
    fn a_remote_address_keeps_to_one_worker() {
        use adit_platform::udp::ReceiveBatch;

        let first = Sockets::bind(0, None, Offloads::default()).unwrap();
        let port = first.all().next().unwrap().local_addr().port();
        let groups = [first.another(None, Offloads::default()).unwrap(), first];
        let remotes: Vec<_> = (0..64).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        for remote in remotes.iter().cycle().take(5 * remotes.len()) {
            remote.send_to(b"datagram", ("127.0.0.1", port)).unwrap();
        }
        let mut batch = ReceiveBatch::new(8);
        let mut seen = groups.each_ref().map(|sockets| {
            let socket = sockets.all().next().unwrap();
            let mut sources = Vec::new();
            while socket.receive(&mut batch).unwrap() > 0 {
                sources.extend(batch.datagrams().map(|datagram| datagram.source));
            }
            sources
        });
        assert_eq!(seen.iter().map(Vec::len).sum::<usize>(), 5 * remotes.len());
        for sources in &mut seen {
            sources.sort_unstable();
            assert!(sources.chunks(5).all(|five| five.iter().all(|source| *source == five[0])));
            assert!(sources.len() >= 5 * 8, "both have work");
        }
    }
}
