//! Packet buffers, IP header views and edits, checksums, NAT rewrite and ICMP errors.

#![forbid(unsafe_code)]
