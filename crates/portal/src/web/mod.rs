//! Sessions of people in a browser.

mod origin;
#[expect(dead_code, reason = "the sign-in pages use it")]
mod page;
#[expect(dead_code, reason = "the sign-in pages use it")]
mod session;

pub(crate) use page::Refusal;
pub(crate) use session::{Signed, SignedForm};
#[cfg(test)]
pub(crate) use session::{begin, signed};
