//! In place of the engine in a build without the program: it cannot be made.

use std::convert::Infallible;

use crate::{Config, Counters, InsertError, Route, XdpError};

/// The attached program; cannot be made by this build.
#[derive(Clone, Debug)]
pub struct Engine(Infallible);

impl Engine {
    /// Says that this build lacks the program.
    ///
    /// # Errors
    /// Always.
    pub fn attach(_config: &Config) -> Result<Self, XdpError> {
        Err(XdpError::NotBuilt)
    }

    /// Says that this build lacks the program.
    ///
    /// # Errors
    /// Always.
    pub fn check(_config: &Config) -> Result<(), XdpError> {
        Err(XdpError::NotBuilt)
    }

    /// Cannot be called.
    ///
    /// # Errors
    /// None.
    pub fn insert(&self, _route: &Route) -> Result<(), InsertError> {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn remove(&self, _route: &Route) {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn release_port(&self, _is_v6: bool, _port: u16) {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn renew_lease(&self) -> bool {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn counters(&self) -> Counters {
        match self.0 {}
    }

    /// Cannot be called.
    pub fn routes(&self) -> u32 {
        match self.0 {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Addresses, Mode};

    #[test]
    fn attaching_says_what_is_missing() {
        let addresses =
            Addresses { local_v4: None, local_v6: None, listener_port: 3478, ports: 49_152..=65_535 };
        let interfaces = vec!["lo".to_owned()];
        let config = Config { interfaces, mode: Mode::Generic, addresses, capacity: 1, secret: (1, 2) };
        let error = Engine::attach(&config).expect_err("lacks the program");
        assert!(error.to_string().contains("--features xdp"), "{error}");
        assert!(matches!(Engine::check(&config), Err(XdpError::NotBuilt)));
    }
}
