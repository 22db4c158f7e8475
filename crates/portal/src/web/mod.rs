//! Sessions of people in a browser.

mod origin;
mod page;
mod session;

pub(crate) use page::Refusal;
pub(crate) use session::{Signed, SignedForm};
#[cfg(test)]
pub(crate) use session::{begin, signed};
