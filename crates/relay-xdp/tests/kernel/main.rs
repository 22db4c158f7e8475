//! The program in a real kernel, each test in a network namespace of its own.

#[cfg(test)]
mod behaviour;
#[cfg(test)]
mod differential;
#[cfg(test)]
mod frame;
#[cfg(test)]
mod ground;
#[cfg(test)]
mod judge;
#[cfg(test)]
mod relay;
