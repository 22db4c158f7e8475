//! JSON Lines logs with rotation, metrics and panic capture.
