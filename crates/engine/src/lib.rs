//! The threads: drive a tunnel machine and its workers with the platform and the portal session.
