//! The network driver: the only code that touches libp2p's swarm, Kademlia and streams.
//!
//! One task (`driver`) owns the swarm; everybody else holds a [`Network`], a cheap handle with a bounded queue.

mod addresses;
mod behaviour;
mod bootstrap;
mod driver;
mod entry_point;
mod frames;
mod identity;
mod info_stream;
mod join;
mod lost_members;
mod network;
mod probe;
mod queries;
mod record_store;
mod streams;
mod swarm_key;
mod transport;
mod written;

pub use addresses::Scope;
pub use bootstrap::{BootstrapPeer, BootstrapPeerError, BootstrapStatus};
pub use entry_point::{addresses_settled, answer_as_bootstrap, join_flags, pasteable};
pub use frames::{ByteCount, FrameReader, FrameWriter, StreamError};
pub use identity::{Identity, IdentityError};
pub use info_stream::answer_info;
pub use join::JoinError;
pub use network::{
    Census, DhtMode, Found, InboundStream, InboundStreams, Network, NetworkConfig, NetworkError, QueryError,
};
pub use probe::{Probe, ProbeError, probe, round_trip};
pub use streams::{ByteStream, OpenError, StreamKind};
pub use swarm_key::{SwarmKey, SwarmKeyError};
pub use written::{WrittenError, parse_address, parse_peer};
