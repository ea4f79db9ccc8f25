//! stub

pub mod chain;
pub mod route;
