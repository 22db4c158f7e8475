//! A private DNS server: configured names, real wire format, and a count of every question it was asked.
//!
//! It answers A, AAAA and PTR of what it knows over UDP and TCP, NXDOMAIN otherwise. The wire code is its own and
//! small on purpose: it checks the product's DNS code and must not share mistakes with it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::{Stop, thread, wait_readable};
use crate::world::Host;

const PORT: u16 = 53;
const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_AAAA: u16 = 28;

/// Time to live of every answer, in seconds.
const TTL: u32 = 30;

/// Answers on port 53 of its host until dropped.
#[derive(Debug)]
pub struct DnsServer {
    state: Arc<State>,
    _stop: Stop,
}

#[derive(Debug, Default)]
struct State {
    names: Mutex<BTreeMap<String, Vec<IpAddr>>>,
    questions: Mutex<BTreeMap<String, u64>>,
}

impl DnsServer {
    /// Serves these names, written without a final dot, at `address`: a host with several addresses would answer from
    /// another one than it was asked at.
    ///
    /// # Errors
    /// When port 53 of `address` is taken.
    pub fn start(host: &Host, address: IpAddr, names: &[(&str, &[IpAddr])]) -> Result<Self> {
        let at = (address, PORT);
        let (udp, tcp) =
            host.enter(|| -> std::io::Result<_> { Ok((UdpSocket::bind(at)?, TcpListener::bind(at)?)) })??;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let (state, stop) = (Arc::new(State::default()), Stop::default());
        let server = Self { state, _stop: stop };
        for (name, addresses) in names {
            server.set(name, addresses);
        }
        let (for_udp, flag) = (Arc::clone(&server.state), server._stop.flag());
        thread("dns-udp", move || {
            while wait_readable(&udp, &flag) {
                answer_datagrams(&udp, &for_udp);
            }
        })?;
        let (for_tcp, flag) = (Arc::clone(&server.state), server._stop.flag());
        thread("dns-tcp", move || {
            while wait_readable(&tcp, &flag) {
                if let Ok((stream, _)) = tcp.accept() {
                    let state = Arc::clone(&for_tcp);
                    // A connection that fails is the client's to notice.
                    let _ = thread("dns-connection", move || drop(answer_stream(stream, &state)));
                }
            }
        })?;
        Ok(server)
    }

    /// Gives a name these addresses, in place of what it had.
    pub fn set(&self, name: &str, addresses: &[IpAddr]) {
        lock(&self.state.names).insert(name.to_ascii_lowercase(), addresses.to_vec());
    }

    /// Questions for a name so far, whatever their type.
    pub fn questions(&self, name: &str) -> u64 {
        lock(&self.state.questions).get(&name.to_ascii_lowercase()).copied().unwrap_or(0)
    }

    /// Every name asked for so far.
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state.questions).keys().cloned().collect()
    }
}

fn answer_datagrams(socket: &UdpSocket, state: &State) {
    let mut buffer = [0; 1500];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        if let Some(response) = respond(&buffer[..length], state) {
            // A lost answer is asked for again.
            let _ = socket.send_to(&response, from);
        }
    }
}

fn answer_stream(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        let Some(response) = respond(&query, state) else {
            return Ok(());
        };
        let length = u16::try_from(response.len()).unwrap_or(u16::MAX);
        stream.write_all(&[&length.to_be_bytes()[..], &response].concat())?;
    }
}

/// One question of a query (RFC 1035, section 4.1.2), and where it ends in the message.
struct Question {
    name: String,
    kind: u16,
    end: usize,
}

fn respond(query: &[u8], state: &State) -> Option<Vec<u8>> {
    let is_query = query.get(2)? & 0x80 == 0;
    let question = parse_question(query).filter(|_| is_query)?;
    *lock(&state.questions).entry(question.name.clone()).or_default() += 1;
    let records = records(&question, &lock(&state.names));
    let code: u8 = if records.is_some() { 0 } else { 3 };
    let records = records.unwrap_or_default();
    let mut response = query.get(..question.end)?.to_vec();
    // A response, authoritative, recursion as asked and available; one question, no other sections.
    response[2] = 0x84 | (query[2] & 0x01);
    response[3] = 0x80 | code;
    response[4..12].copy_from_slice(&[0, 1, 0, u8::try_from(records.len()).ok()?, 0, 0, 0, 0]);
    for data in records {
        // The owner is the question's name, at offset 12.
        response.extend_from_slice(&[0xc0, 12]);
        response.extend_from_slice(&question.kind.to_be_bytes());
        response.extend_from_slice(&[0, 1]);
        response.extend_from_slice(&TTL.to_be_bytes());
        response.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        response.extend_from_slice(&data);
    }
    Some(response)
}

fn parse_question(query: &[u8]) -> Option<Question> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if length > 63 {
            return None;
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    query.get(at + 2..at + 4)?;
    Some(Question { name: labels.join("."), kind, end: at + 4 })
}

/// Record data that answers the question; `None` when the name does not exist.
fn records(question: &Question, names: &BTreeMap<String, Vec<IpAddr>>) -> Option<Vec<Vec<u8>>> {
    if let Some(target) = names
        .iter()
        .find(|(_, addresses)| addresses.iter().any(|address| reverse_name(*address) == question.name))
    {
        return Some(if question.kind == TYPE_PTR { vec![encode_name(target.0)] } else { Vec::new() });
    }
    let addresses = names.get(&question.name)?;
    let of_kind = addresses.iter().filter_map(|address| match (question.kind, address) {
        (TYPE_A, IpAddr::V4(v4)) => Some(v4.octets().to_vec()),
        (TYPE_AAAA, IpAddr::V6(v6)) => Some(v6.octets().to_vec()),
        _ => None,
    });
    Some(of_kind.collect())
}

fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            let labels: String = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            format!("{labels}ip6.arpa")
        }
    }
}

fn encode_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').map(|label| &label.as_bytes()[..label.len().min(63)]) {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let state = State::default();
        let addresses = vec!["10.30.0.80".parse().unwrap(), "fd00:ad17::80".parse().unwrap()];
        lock(&state.names).insert("app.corp.example".to_owned(), addresses);
        state
    }

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        bytes.extend(encode_name(name));
        bytes.extend([0, kind as u8, 0, 1]);
        bytes
    }

    #[test]
    fn a_known_name_has_its_address_whatever_the_case() {
        let state = state();
        let response = respond(&query("App.corp.EXAMPLE", TYPE_A), &state).unwrap();
        assert_eq!(response[..4], [0xab, 0xcd, 0x85, 0x80]);
        assert_eq!(response[6..8], [0, 1]);
        assert!(response.ends_with(&[0, 4, 10, 30, 0, 80]));
        assert_eq!(lock(&state.questions).get("app.corp.example"), Some(&1));
    }

    #[test]
    fn an_unknown_name_does_not_exist_and_a_known_one_may_be_empty() {
        let missing = respond(&query("other.example", TYPE_AAAA), &state()).unwrap();
        assert_eq!((missing[3] & 15, missing[7]), (3, 0));
        let empty = respond(&query("app.corp.example", 65), &state()).unwrap();
        assert_eq!((empty[3] & 15, empty[7]), (0, 0));
    }

    #[test]
    fn addresses_have_names() {
        let response = respond(&query("80.0.30.10.in-addr.arpa", TYPE_PTR), &state()).unwrap();
        assert!(response.ends_with(&encode_name("app.corp.example")));
        assert!(reverse_name("fd00:ad17::80".parse().unwrap()).starts_with("0.8.0.0."));
    }

    #[test]
    fn garbage_is_not_answered() {
        let whole = query("app.corp.example", TYPE_A);
        for length in 0..whole.len() {
            assert_eq!(respond(&whole[..length], &state()), None, "{length} bytes");
        }
        let mut answer = whole;
        answer[2] |= 0x80;
        assert_eq!(respond(&answer, &state()), None);
    }
}
