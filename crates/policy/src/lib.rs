//! Who may reach what, until when, and why.

#![forbid(unsafe_code)]
