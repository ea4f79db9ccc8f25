//! How a running server and `swarm-node drain` talk: over a socket in a folder of this user, one JSON object a line. The
//! visitor says one line, the server answers with one, or with one for each thing that happens until it has left.
#![cfg_attr(not(unix), allow(dead_code))]

#[cfg(not(unix))]
mod elsewhere;
#[cfg(unix)]
mod folder;
#[cfg(unix)]
mod listener;
#[cfg(unix)]
mod visit;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use swarm_node::serve::ServeEvent;
use swarm_protocol::block::BlockRange;

#[cfg(not(unix))]
pub(crate) use elsewhere::{Control, drain, find};
#[cfg(unix)]
pub(crate) use listener::Control;
#[cfg(unix)]
pub(crate) use visit::{drain, find};

/// What a visitor asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Who is there?
    About,
    /// Leave, and say how it goes.
    Drain,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// Who it is.
    About(About),
    /// It will leave.
    Stopping,
    /// It refuses new sessions; running ones have so long to end or to move.
    Leaving { sessions: u32, within_ms: u64 },
    /// It has left; its process ends.
    Left,
    /// It has ended otherwise.
    Failed { reason: String },
}

/// How a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Starting,
    Serving,
    Leaving,
}

/// Who a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) pid: u32,
    /// Known once it listens.
    pub(crate) peer_id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) model: String,
    /// Known once it has chosen.
    pub(crate) blocks: Option<BlockRange>,
    pub(crate) state: State,
}

/// A server of this user on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) socket: std::path::PathBuf,
    /// By the name of its socket.
    pub(crate) pid: u32,
    /// What it says; nothing if it does not answer.
    pub(crate) about: Option<About>,
}

/// What is known of the own server, from what it reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    about: About,
    /// The last thing that those who wait for its end are told.
    farewell: Option<Reply>,
}

impl Status {
    fn new(name: Option<String>, model: String) -> Self {
        let pid = std::process::id();
        let about = About { pid, peer_id: None, name, model, blocks: None, state: State::Starting };
        Self { about, farewell: None }
    }

    /// Takes up an event.
    fn take(&mut self, event: &ServeEvent) {
        match event {
            ServeEvent::Listening { peer, .. } => self.about.peer_id = Some(peer.to_string()),
            ServeEvent::Chosen { blocks } => self.about.blocks = Some(*blocks),
            ServeEvent::Ready { blocks, .. } => {
                (self.about.blocks, self.about.state) = (Some(*blocks), State::Serving);
            }
            ServeEvent::Leaving { sessions, within } => {
                let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
                self.about.state = State::Leaving;
                self.farewell = Some(Reply::Leaving { sessions: *sessions, within_ms });
            }
            _ => {}
        }
    }

    /// It has been asked to leave, and has not begun.
    fn asked_to_leave(&mut self) {
        self.farewell.get_or_insert(Reply::Stopping);
    }

    /// It has ended.
    fn ended(&mut self, error: Option<String>) {
        self.farewell = Some(error.map_or(Reply::Left, |reason| Reply::Failed { reason }));
    }
}

/// How long a server may take to answer a visitor; it does nothing else for it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The longest line, in bytes: a peer id, a name and a path fit several times.
const MAX_LINE: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_the_documented_ones() {
        let line = |reply: &Reply| serde_json::to_string(reply).unwrap();
        assert_eq!(serde_json::to_string(&Request::Drain).unwrap(), r#"{"request":"drain"}"#);
        assert_eq!(line(&Reply::Left), r#"{"event":"left"}"#);
        let leaving = Reply::Leaving { sessions: 2, within_ms: 30_000 };
        assert_eq!(line(&leaving), r#"{"event":"leaving","sessions":2,"within_ms":30000}"#);
        let mut status = Status::new(Some("attic".to_string()), "demo".to_string());
        status.take(&ServeEvent::Chosen { blocks: BlockRange::new(0, 6).unwrap() });
        let about = Reply::About(About { pid: 7, ..status.about });
        let expected = concat!(
            r#"{"event":"about","pid":7,"peer_id":null,"name":"attic","model":"demo","blocks":[0,6],"#,
            r#""state":"starting"}"#
        );
        assert_eq!(line(&about), expected);
        assert_eq!(serde_json::from_str::<Reply>(expected).unwrap(), about);
    }

    #[test]
    fn the_last_word_is_how_it_ended() {
        let mut status = Status::new(None, "demo".to_string());
        status.asked_to_leave();
        assert_eq!(status.farewell, Some(Reply::Stopping));
        status.take(&ServeEvent::Leaving { sessions: 1, within: Duration::MAX });
        status.asked_to_leave();
        assert_eq!(status.farewell, Some(Reply::Leaving { sessions: 1, within_ms: u64::MAX }));
        status.ended(Some("it broke".to_string()));
        assert_eq!(status.farewell, Some(Reply::Failed { reason: "it broke".to_string() }));
    }
}
