//! Identifiers: one type per kind, so that a client can never be named where a gateway is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text was not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind} (a UUID is expected)")]
pub struct ParseIdError {
    kind: &'static str,
    text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that names this kind of thing.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID itself.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                crate::openapi::uuid()
            }
        }

        #[cfg(feature = "openapi")]
        impl utoipa::ToSchema for $name {}

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($kind, " {}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text)
                    .map(Self)
                    .map_err(|_| ParseIdError { kind: $kind, text: text.chars().take(64).collect() })
            }
        }
    };
}

id!(/// Names an account: the tenant that everything else belongs to.
    AccountId, "account");
id!(/// Names a person or service account.
    ActorId, "actor");
id!(/// Names one authorization: a lease of one client on one resource through one gateway.
    AuthorizationId, "authorization");
id!(/// Names a client device.
    ClientId, "client");
id!(/// Names a gateway.
    GatewayId, "gateway");
id!(/// Names a group of actors.
    GroupId, "group");
id!(/// Names a policy.
    PolicyId, "policy");
id!(/// Names an auth provider.
    ProviderId, "auth provider");
id!(/// Names a relay.
    RelayId, "relay");
id!(/// Names a resource.
    ResourceId, "resource");
id!(/// Names a site.
    SiteId, "site");
id!(/// Names a token.
    TokenId, "token");
