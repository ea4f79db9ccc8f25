//! Embedding, final norm, head and sampling on a thread of their own: they are computation, which has no place on the threads
//! that serve the network. A client holds its own ones here, and a server those that it offers to others.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod choice;
mod worker;

pub use choice::{Chosen, Wish};
pub use worker::{EdgesError, EdgesWorker};
