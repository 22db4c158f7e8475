//! What fuzz targets share.

pub mod turn_world;
