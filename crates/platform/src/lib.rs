//! TUN, sockets, routes, DNS control, login manager, secrets: everything that asks the operating system.
//!
//! Each module is one job. Jobs that change the host ([`network`], [`masquerade`], [`dns_control`]) follow
//! one pattern: a small trait that takes the *whole* desired state, is idempotent, takes it all back on
//! `clear`, and repairs after a crash on `recover`; and a recording fake beside it. They write down what they
//! are about to change before they change it.
//!
//! This crate is the only home of `unsafe` (the relay's packet loader aside); each block says why it holds.
//! Linux is the only system so far; mechanisms live in files named after them, so that others can stand
//! beside them.

#[cfg(target_os = "linux")]
pub mod addresses;
#[cfg(unix)]
mod atomic_file;
#[cfg(unix)]
pub mod dns_control;
#[cfg(target_os = "linux")]
pub mod handover;
#[cfg(target_os = "linux")]
mod interface_request;
#[cfg(target_os = "linux")]
pub mod login_manager;
#[cfg(target_os = "linux")]
pub mod masquerade;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
pub mod network;
#[cfg(unix)]
pub mod secrets;
#[cfg(target_os = "linux")]
pub mod service;
#[cfg(unix)]
pub mod settings;
#[cfg(target_os = "linux")]
pub mod startup_pages;
#[cfg(target_os = "linux")]
mod sysctl;
pub mod tcp;
#[cfg(target_os = "linux")]
pub mod tun;
#[cfg(target_os = "linux")]
pub mod udp;
