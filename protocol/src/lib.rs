//! What the members of a swarm say to one another.
//!
//! Pure types and codecs stand at the top level: identifiers and units ([`block`], [`model_id`], [`session`]),
//! signed announcements and the view of the swarm they add up to ([`announcement`], [`swarm_view`]), how long a silent
//! peer is waited for ([`liveness`]), whose work something is ([`trace_context`]), and the wire messages ([`wire`]). The only code that touches libp2p stands in
//! `p2p`, behind the feature of that name.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod activations;
pub mod announcement;
pub mod block;
pub mod liveness;
pub mod model_id;
pub mod session;
pub mod swarm_name;
pub mod swarm_view;
pub mod trace_context;
pub mod warm_up;
pub mod wire;

#[cfg(feature = "p2p")]
pub mod p2p;

pub use libp2p_identity::{Keypair, PeerId};
pub use multiaddr::Multiaddr;
