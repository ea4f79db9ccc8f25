//! What was said and heard in one look at a swarm.

use std::time::Duration;

use swarm_protocol::PeerId;
use swarm_protocol::announcement::{Announcement, ServerState};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::ModelId;
use swarm_protocol::wire::{EdgesOffer, ElementType};

use super::types::ServerCondition;

/// What was said and heard in one look at a swarm.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// The swarm's name.
    pub swarm: String,
    /// Who looked.
    pub by: PeerId,
    /// Its models.
    pub models: Vec<ModelObservation>,
    /// No member answered: the models are those of the look before.
    pub cut_off: bool,
}

impl Observation {
    /// How many servers were seen.
    pub(super) fn servers(&self) -> usize {
        self.models.iter().map(|model| model.servers.len()).sum()
    }

    /// The models as they are known when no member answers any more: a swarm out of reach is not an empty one.
    pub(super) fn unheard(&self) -> Vec<ModelObservation> {
        let silent = |server: &ServerObservation| match server.answer {
            Answer::Silent { .. } => server.clone(),
            _ => {
                let reason = "no member of the swarm answers".to_string();
                ServerObservation { answer: Answer::Silent { reason }, ..server.clone() }
            }
        };
        let model = |model: &ModelObservation| ModelObservation {
            servers: model.servers.iter().map(silent).collect(),
            ..model.clone()
        };
        self.models.iter().map(model).collect()
    }
}

/// One model in a look.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelObservation {
    /// What its servers share.
    pub id: ModelId,
    /// Its name for people.
    pub name: String,
    /// All its blocks.
    pub blocks: BlockRange,
    /// How many servers anybody knows of.
    pub known_servers: u32,
    /// Its activations, if somebody here knows.
    pub shape: Option<ModelShape>,
    /// Its servers, those that are gone included.
    pub servers: Vec<ServerObservation>,
}

/// The activations of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelShape {
    /// Elements of a row.
    pub hidden: u32,
    /// Their type.
    pub element: ElementType,
}

/// One server in a look: its newest word, and what came of asking it.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerObservation {
    /// What it says of itself.
    pub announcement: Announcement,
    /// What came of asking it.
    pub answer: Answer,
}

/// What came of asking a server.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It was not asked, since there are so many: its announcement is believed.
    NotAsked,
    /// It did not answer.
    Silent {
        /// What happened.
        reason: String,
    },
    /// It answered.
    Given {
        /// Round-trip time; zero for whoever looks.
        rtt: Duration,
        /// Seconds since it became ready.
        uptime_seconds: u64,
        /// The embedding and head that it offers.
        edges: Option<EdgesOffer>,
    },
}

impl ServerObservation {
    /// How it is; `None` if it is gone: its last word was that it leaves, and it no longer answers.
    pub fn condition(&self) -> Option<ServerCondition> {
        match (&self.answer, self.announcement.state) {
            (Answer::Silent { .. }, ServerState::Leaving) => None,
            (Answer::Silent { .. }, _) => Some(ServerCondition::Silent),
            (Answer::NotAsked, ServerState::Serving) => Some(ServerCondition::Announced),
            (_, ServerState::Serving) => Some(ServerCondition::Serving),
            (_, ServerState::Joining) => Some(ServerCondition::Joining),
            (_, ServerState::Leaving) => Some(ServerCondition::Leaving),
        }
    }

    /// Whether sessions can be opened on it, as far as is known.
    pub fn serves(&self) -> bool {
        self.condition().is_some_and(ServerCondition::serves)
    }
}
