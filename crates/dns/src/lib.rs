//! Names and patterns, the stub resolver, upstream query machines and the cache.

#![forbid(unsafe_code)]
