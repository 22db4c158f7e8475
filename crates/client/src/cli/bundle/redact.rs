//! Takes what identifies people and networks out of a text, and keeps what a diagnosis needs.
//!
//! The same address or name gets the same label everywhere in a bundle, so that "the same as there" can still be
//! read. Kept as they are: addresses that everybody has (loopback, link-local, unspecified, multicast) and those of
//! the tunnel's usual ranges. Tokens are removed whatever was asked for.

use std::collections::HashMap;
use std::net::IpAddr;

/// How much of a bundle is made unrecognizable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Redaction {
    /// Addresses, names of people, resources and machines.
    Strict,
    /// Tokens only.
    TokensOnly,
}

/// What every token of Adit begins with.
const TOKEN: &str = "adit_";

/// Replaces, and remembers what by.
#[derive(Debug)]
pub(super) struct Redactor {
    redaction: Redaction,
    /// Longer ones first, so that a name within a name is not replaced alone.
    words: Vec<(String, String)>,
    addresses: HashMap<IpAddr, String>,
}

impl Redactor {
    /// Replaces `words`, each with the kind that its label names, such as `("ana", "actor")`.
    pub(super) fn new(redaction: Redaction, words: impl IntoIterator<Item = (String, &'static str)>) -> Self {
        let mut labelled: Vec<(String, String)> = Vec::new();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for (word, kind) in words {
            // A letter or two would be found everywhere.
            if word.len() < 3 || labelled.iter().any(|(known, _)| *known == word) {
                continue;
            }
            let count = counts.entry(kind).or_default();
            *count += 1;
            labelled.push((word, format!("<{kind}-{count}>")));
        }
        labelled.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        Self { redaction, words: labelled, addresses: HashMap::new() }
    }

    /// The text without what it must not say.
    pub(super) fn apply(&mut self, text: &str) -> String {
        let text = without_tokens(text);
        if self.redaction == Redaction::TokensOnly {
            return text;
        }
        let mut text = self.without_addresses(&text);
        for (word, label) in &self.words {
            if text.contains(word.as_str()) {
                text = text.replace(word.as_str(), label);
            }
        }
        text
    }

    fn without_addresses(&mut self, text: &str) -> String {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(is_of_address) {
            let (before, candidate) = rest.split_at(start);
            let end = candidate.find(|character| !is_of_address(character)).unwrap_or(candidate.len());
            let (candidate, after) = candidate.split_at(end);
            result += before;
            result += &self.without_address(candidate);
            rest = after;
        }
        result + rest
    }

    /// A run of characters that may be an address, an address with a port, or a hardware address.
    fn without_address(&mut self, run: &str) -> String {
        if is_hardware_address(run) {
            return "<hardware>".to_owned();
        }
        // A sentence may end with an address.
        let trimmed = run.trim_end_matches(['.', ':']);
        if let Ok(address) = trimmed.parse::<IpAddr>() {
            return self.label(address, trimmed) + &run[trimmed.len()..];
        }
        // 192.0.2.1:51820
        if let Some((host, port)) = trimmed.rsplit_once(':')
            && !host.contains(':')
            && let Ok(address) = host.parse::<IpAddr>()
        {
            return format!("{}:{port}{}", self.label(address, host), &run[trimmed.len()..]);
        }
        run.to_owned()
    }

    fn label(&mut self, address: IpAddr, text: &str) -> String {
        if is_common(address) {
            return text.to_owned();
        }
        let count = self.addresses.len() + 1;
        let label = || format!("<{}-{count}>", kind(address));
        self.addresses.entry(address).or_insert_with(label).clone()
    }
}

fn is_of_address(character: char) -> bool {
    character.is_ascii_hexdigit() || matches!(character, '.' | ':')
}

/// Six pairs of digits, or eight and more as the kernel prints some.
fn is_hardware_address(run: &str) -> bool {
    let pairs: Vec<&str> = run.split(':').collect();
    pairs.len() >= 6 && pairs.iter().all(|pair| pair.len() == 2 && !pair.contains('.'))
}

fn is_common(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let tunnel = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_loopback() || v4.is_unspecified() || v4.is_link_local() || v4.is_multicast() || tunnel
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast()
        }
    }
}

/// A private address says something else about a path than a public one.
fn kind(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(address) if address.is_private() => "private-ipv4",
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(address) if address.is_unique_local() => "private-ipv6",
        IpAddr::V6(_) => "ipv6",
    }
}

fn without_tokens(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(TOKEN) {
        let (before, candidate) = rest.split_at(start);
        let is_part = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
        let end = candidate.find(|character| !is_part(character)).unwrap_or(candidate.len());
        result += before;
        // `adit_peering` is a target of the log and no token, which has three parts more and is long.
        let is_token = candidate[..end].matches('_').count() >= 3 && end > 24;
        result += if is_token { "<token>" } else { &candidate[..end] };
        rest = &candidate[end..];
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(redaction: Redaction) -> Redactor {
        let words = [("ana", "actor"), ("ana-laptop", "device"), ("wiki.corp", "resource"), ("hq", "site")];
        Redactor::new(redaction, words.map(|(word, kind)| (word.to_owned(), kind)))
    }

    #[test]
    fn the_same_gets_the_same_label() {
        let mut redactor = redactor(Redaction::Strict);
        let text =
            redactor.apply("ana on ana-laptop: 192.0.2.1:51820 -> 192.0.2.1, 10.0.0.7/8, 2001:db8::1.");
        assert_eq!(
            text,
            "<actor-1> on <device-1>: <ipv4-1>:51820 -> <ipv4-1>, <private-ipv4-2>/8, <ipv6-3>."
        );
        assert_eq!(redactor.apply("[2001:db8::1]:80"), "[<ipv6-3>]:80");
    }

    #[test]
    fn what_everybody_has_stays() {
        let mut redactor = redactor(Redaction::Strict);
        for text in [
            "127.0.0.53",
            "0.0.0.0/0",
            "fe80::1",
            "::1",
            "100.64.0.53",
            "2026-11-28T01:02:03.456Z",
            "1.2.3",
            "at 12:30",
            "deadbeef",
        ] {
            assert_eq!(redactor.apply(text), text);
        }
    }

    #[test]
    fn hardware_addresses_go() {
        assert_eq!(redactor(Redaction::Strict).apply("ether 02:42:ac:11:00:02 brd"), "ether <hardware> brd");
    }

    #[test]
    fn tokens_go_whatever_was_asked_for() {
        let secret = "adit_client_018f3c5e-aaaa-7bbb-8ccc-0123456789ab_QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo";
        let mut redactor = redactor(Redaction::TokensOnly);
        assert_eq!(redactor.apply(&format!("token={secret}\n192.0.2.1 ana")), "token=<token>\n192.0.2.1 ana");
        assert_eq!(
            redactor.apply("adit_peering::node adit_control_client"),
            "adit_peering::node adit_control_client"
        );
    }
}
