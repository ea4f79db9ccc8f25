//! stub

pub mod route;
