//! The world in network namespaces: real kernels, real programs, measured scenarios.
//!
//! Start at [`stage::Stage`], the whole system in the usual world; [`topology`] is that world, [`world`] what it is
//! made of, [`system`] the programs, [`probe`] the instruments, [`scenarios`] the stories, [`mod@bench`] the race against
//! others. Everything runs in namespaces made here and leaves nothing behind, also when it fails, and two runs can go
//! side by side.

pub mod bench;
pub mod coturn;
pub mod demo;
pub mod link;
pub mod logs;
pub mod nat;
pub mod probe;
pub mod process;
pub mod scenario;
pub mod scenarios;
pub mod stage;
pub mod steps;
pub mod summary;
pub mod system;
pub mod topology;
pub mod world;
