//! The authenticated, reconnecting control session with the portal.
