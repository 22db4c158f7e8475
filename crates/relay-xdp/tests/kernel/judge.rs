//! Compares what the program does with a frame to what kernel and machine do with it.

use adit_relay_xdp::measure::Verdict;

use crate::frame::{self, Parsed};
use crate::ground::{Ground, MTU, RELAY};
use crate::relay::Relay;

/// Runs a frame through both; whether the program sent it.
///
/// # Errors
/// What they disagree about.
pub(crate) fn judge(ground: &Ground, relay: &mut Relay, frame: &[u8]) -> Result<bool, String> {
    match ground.run(frame) {
        Verdict::Passed(out) if out == frame => Ok(false),
        Verdict::Passed(out) => Err(format!("passed, but changed to {out:02x?}")),
        Verdict::Other(action) => Err(format!("neither passed nor sent: {action}")),
        Verdict::Sent(out) => judge_sent(relay, frame, &out).map(|()| true),
    }
}

fn judge_sent(relay: &mut Relay, frame: &[u8], sent: &[u8]) -> Result<(), String> {
    let before = frame::parse(frame).map_err(|reason| format!("sent although it is not plain: {reason}"))?;
    let after =
        frame::parse(sent).map_err(|reason| format!("what was sent is not plain: {reason}: {sent:02x?}"))?;
    let expected = relay.receive(&before.datagram);
    let expected = expected.ok_or("sent although the machine drops it")?;
    equal("datagram", &after.datagram, &expected)?;
    judge_headers(&before, &after)?;
    equal("length of the frame", &sent.len(), &after.length)?;
    if after.length - 14 > MTU {
        return Err(format!("{} bytes do not fit the way", after.length));
    }
    judge_checksum(&before, &after)
}

fn judge_headers(before: &Parsed, after: &Parsed) -> Result<(), String> {
    equal("for the relay", &before.to, &RELAY)?;
    equal("from the relay", &after.from, &RELAY)?;
    if before.hop_limit <= 1 {
        return Err("sent although its hops are used up".to_owned());
    }
    equal("hop limit", &after.hop_limit, &(before.hop_limit - 1))?;
    equal("traffic class", &after.class, &before.class)?;
    equal("flow label", &after.flow_label, &0)?;
    equal("identification and DF", &after.ipv4.unwrap_or((0, true)), &(0, true))
}

fn judge_checksum(before: &Parsed, after: &Parsed) -> Result<(), String> {
    if before.checksum == 0 {
        // RFC 768: none. IPv6 must have one (RFC 8200, section 8.1).
        equal("no checksum", &after.checksum, &0)?;
        return if before.ipv4.is_some() && after.ipv4.is_some() {
            Ok(())
        } else {
            Err("sent over IPv6 without checksum".to_owned())
        };
    }
    if before.checksum == before.unfinished_checksum {
        return Err("sent although its checksum is unfinished".to_owned());
    }
    // A wrong one must not become right, or damage would go unnoticed.
    equal("checksum is right", &is_right(after), &is_right(before))
}

/// 0xffff and zero mean the same sum.
fn is_right(parsed: &Parsed) -> bool {
    let canonical = |checksum: u16| if checksum == 0xffff { 0 } else { checksum };
    canonical(parsed.checksum) == canonical(parsed.right_checksum)
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?} instead of {expected:?}")) }
}
