//! Real members of a swarm over loopback connections.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod dht;
mod foreign;
mod joining;
mod lifetimes;
mod members;
mod streams;
