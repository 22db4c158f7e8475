//! Versioned messages between the client daemon and its front ends.
