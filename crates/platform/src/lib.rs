//! TUN, sockets, routes, DNS control, secrets: everything that asks the operating system.
