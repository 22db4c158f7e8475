//! What an event of the kernel is about, packed into the 64 bits that go with it.

use adit_turn::Family;
use adit_turn::server::{RelayPort, StreamId};

use crate::sockets::{FAMILIES, Role, index};
use crate::streams::Security;

/// What became ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// Orders wait.
    Orders,
    /// A UDP listener.
    Listener(Family, Role),
    /// A lent port.
    Lent(RelayPort),
    /// A listener for connections.
    StreamListener(Family, Security),
    /// A connection.
    Stream(StreamId),
}

impl Token {
    /// The bits: kind, family, detail, number.
    pub(crate) fn pack(self) -> u64 {
        let bits = |kind: u64, family: Family, detail: bool, number: u32| {
            kind << 56 | (index(family) as u64) << 48 | u64::from(detail) << 40 | u64::from(number)
        };
        match self {
            Self::Orders => 0,
            Self::Listener(family, role) => bits(1, family, role == Role::Requests, 0),
            Self::Lent(port) => bits(2, port.family, false, port.number.into()),
            Self::StreamListener(family, security) => bits(3, family, security == Security::Tls, 0),
            Self::Stream(StreamId(id)) => bits(4, Family::V4, false, id),
        }
    }

    /// What was packed; anything else counts as orders, of which there may be none.
    pub(crate) fn unpack(bits: u64) -> Self {
        let [kind, family, detail, _, number @ ..] = bits.to_be_bytes();
        let (family, detail) = (FAMILIES[usize::from(family & 1)], detail != 0);
        let number = u32::from_be_bytes(number);
        match kind {
            1 => Self::Listener(family, if detail { Role::Requests } else { Role::Data }),
            2 => Self::Lent(RelayPort { family, number: number as u16 }),
            3 => Self::StreamListener(family, if detail { Security::Tls } else { Security::Plain }),
            4 => Self::Stream(StreamId(number)),
            _ => Self::Orders,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_again() {
        for family in FAMILIES {
            for token in [
                Token::Orders,
                Token::Listener(family, Role::Data),
                Token::Listener(family, Role::Requests),
                Token::Lent(RelayPort { family, number: 65_535 }),
                Token::StreamListener(family, Security::Plain),
                Token::StreamListener(family, Security::Tls),
                Token::Stream(StreamId(u32::MAX)),
            ] {
                assert_eq!(Token::unpack(token.pack()), token);
            }
        }
    }
}
