//! What a swarm looks like: who serves which blocks of which models, how well, and what is wrong.
//!
//! [`Lookout::look`] asks the DHT and the servers and gives an [`Observation`]: what was said and heard. The rest is pure:
//! [`SwarmOverview::of`] turns it into the data that people and programs are shown (`docs/overview.md` and
//! `docs/swarm.schema.json` describe it), [`compare`] says what has happened between two looks, and a [`Timeline`] keeps the
//! newest of that. A [`Watcher`] does all this again and again, for as many listeners as there are.

mod alarms;
mod build;
mod compare;
mod look;
mod observation;
#[cfg(test)]
mod testing;
mod timeline;
mod types;
mod watcher;

pub use compare::{Happening, compare};
pub use look::{Lookout, OnlyModel, OwnInfo};
pub use observation::{Answer, ModelObservation, ModelShape, Observation, ServerObservation};
pub use timeline::{EventKind, MOST_EVENTS, SwarmEvent, Timeline};
pub use types::{
    Alarm, AlarmKind, Bottleneck, ClassOverview, EdgesOverview, ModelOverview, RoundTrip, SCHEMA, SeenBy,
    ServerCondition, ServerOverview, Severity, SwarmOverview, WireOverview,
};
pub use watcher::{Listener, Seen, Watcher};
