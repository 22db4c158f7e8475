//! The same portal and the same tests as in `tests/portal`, on a PostgreSQL server; and what only
//! several nodes on one server can show.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::duplicate_mod, reason = "the tests of revocation run on one node and on two")]

#[path = "../portal/access.rs"]
mod access;
mod across_nodes;
#[path = "../portal/api.rs"]
mod api;
#[path = "../portal/archive.rs"]
mod archive;
mod backend;
#[path = "../portal/conditions.rs"]
mod conditions;
#[path = "../portal/crash.rs"]
mod crash;
#[path = "../portal/declarations.rs"]
mod declarations;
#[path = "../portal/device_sign_in.rs"]
mod device_sign_in;
#[path = "../portal/devices.rs"]
mod devices;
#[path = "../portal/directory.rs"]
mod directory;
mod flow_sink;
#[path = "../portal/flows.rs"]
mod flows;
#[path = "../portal/ground.rs"]
mod ground;
#[path = "../portal/hostile.rs"]
mod hostile;
mod migration;
mod nodes;
#[path = "../portal/operations.rs"]
mod operations;
#[path = "../portal/permissions.rs"]
mod permissions;
#[path = "../portal/program.rs"]
mod program;
#[path = "../portal/providers.rs"]
mod providers;
#[path = "../portal/real_provider.rs"]
mod real_provider;
#[path = "../portal/relays.rs"]
mod relays;
#[path = "../portal/repeated.rs"]
mod repeated;
#[path = "../portal/revocation.rs"]
mod revocation;
#[path = "../portal/scripted_provider.rs"]
mod scripted_provider;
mod server;
#[path = "../portal/sign_in.rs"]
mod sign_in;
#[path = "../portal/sign_in_codes.rs"]
mod sign_in_codes;
#[path = "../portal/texts.rs"]
mod texts;
#[path = "../portal/world.rs"]
mod world;
