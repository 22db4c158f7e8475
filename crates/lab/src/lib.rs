//! The world in network namespaces: real kernels, real programs, measured scenarios.
