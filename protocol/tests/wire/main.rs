//! The bytes on the wire: what they are, that they survive a round trip, and that no bytes hurt.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod golden;
mod golden_messages;
mod golden_records;
mod hostile_bytes;
mod round_trips;
mod strategies;
