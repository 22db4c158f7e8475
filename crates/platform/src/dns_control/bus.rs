//! The system bus, asked for a moment at a time.
//!
//! A connection is made for each call of a [`DnsControl`](super::DnsControl) and closed with it: calls are rare,
//! and a bus that is restarted in between is no special case then.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::{Connection, DynamicType, OwnedVariant, Type, connection};

use super::DnsControlError;

/// How long one answer, and the connection itself, may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Where the bus is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Bus {
    /// Where programs of this host find it.
    #[default]
    System,
    /// At an address such as `unix:path=/run/dbus/system_bus_socket`.
    At(String),
}

/// An object of a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    /// The name that people know the service by.
    pub(super) service: &'static str,
    pub(super) destination: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
}

/// A conversation with one object.
pub(super) struct Conversation {
    connection: Connection,
    object: Object,
}

impl Bus {
    /// Connects; refuses if the service is neither there nor can be started.
    pub(super) async fn open(&self, object: Object) -> Result<Conversation, DnsControlError> {
        let connection =
            self.connect(ANSWER_WITHIN).await.map_err(|error| failed(object, "answer", error))?;
        Ok(Conversation { connection, object })
    }

    /// Connects; the connection itself and each answer take no longer than `answer_within`.
    pub(crate) async fn connect(&self, answer_within: Duration) -> zbus::Result<Connection> {
        let builder = match self {
            Self::System => connection::Builder::system(),
            Self::At(address) => connection::Builder::address(address.as_str()),
        };
        let building = builder.method_timeout(answer_within).build();
        tokio::time::timeout(answer_within, building)
            .await
            .map_err(|_| zbus::Error::Failure("the bus does not answer".to_owned()))?
    }

    /// Whether a service runs now.
    pub(super) async fn has(&self, object: Object) -> bool {
        let daemon = Object {
            service: "the bus",
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
        };
        let Ok(bus) = self.open(daemon).await else { return false };
        bus.call("NameHasOwner", "look up a name", &(object.destination,)).await.unwrap_or(false)
    }
}

impl Conversation {
    /// Calls a method; `action` completes "the service did not …".
    pub(super) async fn call<B, R>(
        &self,
        method: &'static str,
        action: &'static str,
        body: &B,
    ) -> Result<R, DnsControlError>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        self.call_on(self.object.path, self.object.interface, method, action, body).await
    }

    /// Calls a method of another object or interface of the same service.
    pub(super) async fn call_on<B, R>(
        &self,
        path: &str,
        interface: &str,
        method: &'static str,
        action: &'static str,
        body: &B,
    ) -> Result<R, DnsControlError>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let destination = Some(self.object.destination);
        let reply = self
            .connection
            .call_method(destination, path, Some(interface), method, body)
            .await
            .map_err(|error| failed(self.object, action, error))?;
        reply.body().deserialize().map_err(|error| failed(self.object, action, error))
    }

    /// Reads a property of any object of the service.
    pub(super) async fn property(
        &self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<OwnedVariant, DnsControlError> {
        let properties = "org.freedesktop.DBus.Properties";
        self.call_on(path, properties, "Get", "say what it knows", &(interface, name)).await
    }
}

/// What a service, or the bus in its place, said.
pub(super) fn failed(
    object: Object,
    action: &'static str,
    reason: impl std::fmt::Display,
) -> DnsControlError {
    DnsControlError::Service { service: object.service, action, reason: reason.to_string() }
}

/// A name server as services give it; link-local ones need a zone that we do not keep.
pub(super) fn server_address(bytes: &[u8]) -> Option<IpAddr> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    let needs_zone = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    (!needs_zone).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_addresses_that_need_no_zone_are_servers() {
        assert_eq!(server_address(&[192, 0, 2, 1]), Some(IpAddr::from([192, 0, 2, 1])));
        assert_eq!(server_address(&[192, 0, 2]), None);
        let link_local = "fe80::1".parse::<std::net::Ipv6Addr>().unwrap();
        assert_eq!(server_address(&link_local.octets()), None);
    }
}
