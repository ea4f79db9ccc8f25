//! The newest of what has happened to a swarm. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use swarm_protocol::PeerId;
use swarm_protocol::block::BlockRange;

use super::compare::Happening;

/// Events that are kept: a day of a quiet swarm, minutes of one that is restarted; about 200 KB.
pub const MOST_EVENTS: usize = 512;

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A server has come.
    Joined,
    /// A server that was joining takes sessions now.
    Serving,
    /// A server takes no new sessions: it will be gone soon.
    Leaving,
    /// A server has left as it should.
    Left,
    /// A server no longer answers, without a word.
    Lost,
    /// A server that was lost is back, or one was restarted.
    Returned,
    /// A server goes to other blocks.
    Moved,
    /// A model has come.
    ModelAppeared,
    /// A model's last server is gone.
    ModelGone,
    /// Blocks of a model have lost their last server.
    Broken,
    /// Every block of a model is served again.
    Whole,
}

impl EventKind {
    /// Its name, also in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Left => "left",
            Self::Lost => "lost",
            Self::Returned => "returned",
            Self::Moved => "moved",
            Self::ModelAppeared => "model_appeared",
            Self::ModelGone => "model_gone",
            Self::Broken => "broken",
            Self::Whole => "whole",
        }
    }
}

/// One event of a time-line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SwarmEvent {
    /// Its number, from 1 on, without gaps, while the process that watches lives.
    pub sequence: u64,
    /// When it was noticed: milliseconds since 1970. It has happened since the look before.
    pub at_unix_ms: u64,
    /// What has happened.
    pub kind: EventKind,
    /// The model it happened to.
    pub model_id: String,
    /// That model's name.
    pub model: String,
    /// The server it happened to; none if it is about the model.
    pub peer_id: Option<PeerId>,
    /// What people call the server.
    pub server: Option<String>,
    /// The blocks it is about.
    pub blocks: Vec<BlockRange>,
    /// One line for people.
    pub message: String,
}

/// The newest events, oldest first. Copies share them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeline {
    /// Since when somebody watches: milliseconds since 1970.
    pub since_unix_ms: u64,
    /// The events.
    #[serde(serialize_with = "each")]
    pub events: VecDeque<Arc<SwarmEvent>>,
    /// The number of the last one.
    #[serde(skip)]
    last: u64,
}

impl Timeline {
    /// Nothing has happened since that moment.
    pub fn new(since_unix_ms: u64) -> Self {
        Self { since_unix_ms, events: VecDeque::new(), last: 0 }
    }

    /// Takes in what was noticed at that moment; forgets the oldest beyond [`MOST_EVENTS`].
    pub fn note(&mut self, happened: Vec<Happening>, at_unix_ms: u64) {
        for happening in happened {
            self.last += 1;
            let (peer_id, server) = happening.server.unzip();
            self.events.push_back(Arc::new(SwarmEvent {
                sequence: self.last,
                at_unix_ms,
                kind: happening.kind,
                model_id: happening.model.to_string(),
                model: happening.model_name,
                peer_id,
                server,
                blocks: happening.blocks,
                message: happening.message,
            }));
        }
        let over = self.events.len().saturating_sub(MOST_EVENTS);
        self.events.drain(..over);
    }

    /// The number of the last event; 0 if there was none.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The events that are kept after that number.
    pub fn after(&self, sequence: u64) -> impl Iterator<Item = &Arc<SwarmEvent>> {
        self.events.iter().filter(move |event| event.sequence > sequence)
    }
}

fn each<S: Serializer>(events: &VecDeque<Arc<SwarmEvent>>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(events.iter().map(Arc::as_ref))
}

#[cfg(test)]
mod tests {
    use swarm_protocol::model_id::ModelId;

    use super::*;

    fn happening() -> Happening {
        Happening {
            kind: EventKind::Lost,
            model: ModelId([7; 32]),
            model_name: "demo".to_string(),
            server: Some((PeerId::random(), "attic".to_string())),
            blocks: vec![BlockRange::new(0, 6).unwrap()],
            message: "attic was lost".to_string(),
        }
    }

    #[test]
    fn the_newest_events_are_kept_and_their_numbers_go_on() {
        let mut timeline = Timeline::new(5);
        for at in 0..MOST_EVENTS as u64 {
            timeline.note(vec![happening(), happening()], at);
        }
        assert_eq!((timeline.events.len(), timeline.last()), (MOST_EVENTS, 2 * MOST_EVENTS as u64));
        assert_eq!(timeline.events[0].sequence, MOST_EVENTS as u64 + 1);
        let newest: Vec<u64> = timeline.after(timeline.last() - 2).map(|event| event.sequence).collect();
        assert_eq!(newest, [timeline.last() - 1, timeline.last()]);
    }

    #[test]
    fn an_event_names_server_and_time() {
        let mut timeline = Timeline::new(5);
        timeline.note(vec![happening()], 9);
        let json = serde_json::to_value(&timeline).unwrap();
        assert_eq!((&json["since_unix_ms"], &json["events"][0]["at_unix_ms"]), (&5.into(), &9.into()));
        assert_eq!((&json["events"][0]["kind"], &json["events"][0]["server"]), (&"lost".into(), &"attic".into()));
    }
}
