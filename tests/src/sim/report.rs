//! What comes of a simulation.

use std::ops::AddAssign;
use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::session::TokenCount;
use thiserror::Error;

/// Far more than any session of a random scenario takes.
pub(super) const MOST_EVENTS: usize = 120_000;

/// What a simulation found wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Violation {
    /// An output differs from a run without faults.
    #[error("the output of position {position} is wrong")]
    WrongOutput {
        /// Whose.
        position: usize,
    },
    /// An output came twice, too early, or unasked.
    #[error("the output of position {position} came out of order")]
    OutOfOrder {
        /// Whose.
        position: usize,
    },
    /// A call came to its end without all it was asked for.
    #[error("the output of position {position} never came")]
    Missing {
        /// Whose.
        position: usize,
    },
    /// A hop ended with a KV that is not the one of a run without faults.
    #[error("the KV of {peer} is wrong at the end")]
    WrongHistory {
        /// Whose.
        peer: PeerId,
    },
    /// A server keeps more than was reserved.
    #[error("{peer} keeps {kept} rows and {held} positions of KV where {reserved} were reserved")]
    PastReservation {
        /// Where.
        peer: PeerId,
        /// Outputs.
        kept: usize,
        /// Positions of KV.
        held: usize,
        /// What was reserved.
        reserved: TokenCount,
    },
    /// A server that did nothing wrong, and was perhaps slow, was given up.
    #[error("{peer}, which lives and answers, was given up: {reason}")]
    Innocent {
        /// Who.
        peer: PeerId,
        /// Why.
        reason: String,
    },
    /// A route goes through a server that has just failed.
    #[error("a route goes through {peer}, which has just failed")]
    ThroughTheDead {
        /// Who.
        peer: PeerId,
    },
    /// The chain asks for something of a hop that it has lost.
    #[error("the chain asks something of {hop}, which is lost")]
    OrderToTheLost {
        /// Which.
        hop: String,
    },
    /// What is to be mended is mended again and again.
    #[error("{what}: {count}, though only {causes} reasons for it were seen")]
    RepairLoop {
        /// What was done.
        what: &'static str,
        /// How often.
        count: usize,
        /// Why.
        causes: usize,
    },
    /// Nothing happens any more, and the session is not finished.
    #[error("the session came to a standstill")]
    Standstill,
    /// Something goes round and round.
    #[error("the session did not end within {MOST_EVENTS} events")]
    Endless,
    /// Room was not given back.
    #[error("{peer} still has {tokens} tokens reserved, or a KV cache, at the end")]
    Leaked {
        /// Where.
        peer: PeerId,
        /// How many.
        tokens: TokenCount,
    },
    /// An error that cannot happen.
    #[error("unexpected: {0}")]
    Unexpected(String),
}

/// What a simulation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// A hash of every event and its time.
    pub trace: u64,
    /// How many events there were.
    pub events: usize,
    /// When the session was finished.
    pub took: Duration,
    /// How often things happened.
    pub counts: Counts,
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// How often things happened, to see that a simulation is worth its name.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: usize,)*
        }

        impl Counts {
            /// Each with its name.
            pub fn all(&self) -> Vec<(&'static str, usize)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counts! {
    /// Hops given up.
    losses,
    /// Hops given up while another one was not yet replaced and fed.
    losses_during_repair,
    /// Hops given up since they were silent.
    silences,
    /// Hops given up since they took too long for a step.
    stuck,
    /// Hops that got on with nothing, and whose input then took the way through the client.
    detours,
    /// Hops given up since they passed nothing on of what they had computed.
    swallowers,
    /// Hops given up since they broke the protocol, as the chain sees it.
    wrong,
    /// Servers opened as part of a route.
    opens,
    /// Servers that refused.
    refusals,
    /// Servers that did not answer to being opened.
    unopened,
    /// Searches that found no route.
    no_route,
    /// Hops told where their output goes.
    joins,
    /// Of those, the ones through the client.
    relays,
    /// Links between servers that ended.
    unlinked,
    /// Hops given up since they could not feed the next one.
    unlinked_for_good,
    /// Steps not computed for lack of KV, as the client was told.
    gaps,
    /// Steps not computed for lack of KV, as another server was told.
    gaps_between_servers,
    /// Words of an earlier epoch, hop or link.
    stale,
    /// Calls that their user broke off.
    regrets,
    /// Servers opened beside a hop.
    shadows,
    /// Shadows that took a hop's place.
    promotions,
    /// Of those, the ones that a KV cache had been handed to.
    taken_over,
    /// Hand-overs that came to nothing.
    hand_overs_failed,
    /// Standbys that were quicker than their hop.
    hedged,
    /// Steps of servers computed at a small part of their speed.
    slow_steps,
}
