//! The client of a swarm: find the servers of a model, build the cheapest route over them, and run sessions through it
//! that survive the loss of any server whose blocks another one holds.
//!
//! [`Swarm::join`] makes this program a member; [`Swarm::open_model`] loads the client's part of a model (embedding, norm,
//! head, tokenizer); [`Model::text_session`] generates text, [`Model::session`] gives hidden states and logits.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use swarm_client::{ClientConfig, GenerationConfig, GenerationEvent, NetworkConfig, Swarm};
//!
//! let bootstrap = vec!["/ip4/127.0.0.1/tcp/4001/p2p/12D3KooW...".parse()?];
//! let swarm = Swarm::join(NetworkConfig::client("public".parse()?, bootstrap), ClientConfig::default()).await?;
//! let model = swarm.open_model(&"demo".parse()?, None).await?;
//! let prompt = model.encode("Once upon a time, there was a brave fox named Luna.")?;
//! let mut text = model.text_session(512).await?;
//! let mut generation = text.generate(&prompt, GenerationConfig::default())?;
//! while let Some(event) = generation.next().await? {
//!     if let GenerationEvent::Token { text, .. } = event {
//!         print!("{text}");
//!     }
//! }
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod chain;
mod config;
mod edges;
pub mod finder;
mod generate;
mod here;
mod many;
mod model;
pub mod overview;
pub mod route;
mod session;
mod steps;
mod swarm;
pub mod trace;

pub use chain::Outputs;
pub use config::{ClientConfig, EdgesPlace, PeerFilter, PrefixReuse, Wire};
pub use generate::{Finish, Generation, GenerationConfig, GenerationEvent, Summary, TextSession};
pub use many::Prompt;
pub use model::{HiddenSession, Model};
pub use session::{HopInfo, OpenFailure, RouteEvent, Session, SessionError};
pub use swarm::{ClientError, Swarm};
pub use swarm_hub::HubConfig;
pub use swarm_protocol::activations::ActivationRows;
pub use swarm_protocol::p2p::NetworkConfig;
