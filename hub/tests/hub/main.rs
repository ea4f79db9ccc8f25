//! A checkpoint from a hub on this machine, which counts what it sends and misbehaves when told to.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, unreachable_pub, missing_docs)]
#[path = "../../../tests/src/hub_server/mod.rs"]
mod hub_server;

mod cache;
mod faults;
mod ranges;
mod support;
