//! What every program of swarm-node tells whoever runs it: logs, as text or JSON, and metrics for Prometheus.
//!
//! Nothing here knows models or networks; programs bring their own metrics and register them beside those of the process.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod http;
pub mod logs;
pub mod metrics;
