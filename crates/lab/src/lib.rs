//! The world in network namespaces: real kernels, real programs, measured scenarios.
//!
//! Start at [`topology::Topology`], the usual world; [`world`] is what it is made of. Everything runs in
//! namespaces made here and leaves nothing behind, also when it fails, and two runs can go side by side.

pub mod link;
pub mod logs;
pub mod nat;
pub mod probe;
pub mod process;
pub mod scenario;
pub mod scenarios;
pub mod steps;
pub mod system;
pub mod topology;
pub mod world;
