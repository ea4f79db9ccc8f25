//! A server that takes sessions.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm_protocol::announcement::ServerState;
use swarm_protocol::block::BlockRange;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use super::about::{About, Profile};
use super::announcer::Announcer;
use super::choice::{Counted, reconcile};
use super::door::Door;
use super::error::ServeError;
use super::event::{Report, ServeEvent};
use super::host::OwnWord;
use super::moving::Mover;
use super::occupancy::Rooms;
use super::phase::Phase;
use super::registry::Registry;

/// How long sessions may take to read that the server has left.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Why a server no longer takes sessions for the blocks it hosts.
#[derive(Debug)]
pub(super) enum Ending {
    /// It was told to stop.
    Stopped,
    /// It has announced that it will host these blocks.
    Moves(BlockRange),
    /// It cannot go on.
    Failed(ServeError),
}

/// A server that takes sessions.
pub(super) struct Running {
    pub(super) about: Arc<About>,
    pub(super) profile: Profile,
    /// Whether there must be another member to be seen by.
    pub(super) others: bool,
    /// What it answers to whoever asks.
    pub(super) word: OwnWord,
    pub(super) registry: Registry,
    pub(super) rooms: watch::Receiver<Rooms>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) compute_ended: oneshot::Receiver<()>,
    pub(super) streams: JoinHandle<()>,
}

impl Running {
    /// Serves until told to stop, until other blocks need it more, or until it cannot go on; says when the swarm knows of
    /// it. `counted` is what it relied on when it chose its blocks, unless they were given.
    pub(super) async fn until_it_ends(
        &mut self,
        announcer: &mut Announcer,
        mover: Option<&mut Mover>,
        counted: &mut Option<Counted>,
        door: &mut Door,
        report: &Report,
        stop: impl Future<Output = ()>,
    ) -> Ending {
        let Self { about, profile, others, word, compute_ended, streams, .. } = self;
        let announcing = async {
            let near = announcer.announce_serving(profile, *others).await?;
            if let Some(counted) = counted
                && let Some(to) = reconcile(announcer, about, profile, counted, &near).await?
            {
                return Ok(to);
            }
            *counted = None;
            about.metrics.announced.set(1);
            report(ready(about, profile, word.clone()));
            announce_until_it_moves(announcer, mover, profile).await
        };
        tokio::select! {
            () = stop => Ending::Stopped,
            moves = announcing => moves.map_or_else(Ending::Failed, Ending::Moves),
            _ = compute_ended => Ending::Failed(ServeError::ComputeEnded),
            () = door.ended() => Ending::Failed(ServeError::NetworkEnded),
            _ = streams => Ending::Failed(ServeError::NetworkEnded),
        }
    }

    /// Sessions that run.
    pub(super) fn sessions(&self) -> u32 {
        self.rooms.borrow().sessions
    }

    /// Refuses new sessions, tells the running ones, and gives them time to end or to move.
    pub(super) async fn drain(&mut self, within: Duration) {
        let until = Instant::now() + within;
        self.registry.leave().await;
        self.phase.send_replace(Phase::Leaving { until });
        if !self.empty_within(within).await {
            warn!(sessions = self.sessions(), "sessions were still running; they are ended");
        }
        self.phase.send_replace(Phase::Left);
        self.empty_within(LAST_WORDS).await;
    }

    async fn empty_within(&mut self, limit: Duration) -> bool {
        let empty = self.rooms.wait_for(|rooms| rooms.sessions == 0);
        matches!(timeout(limit, empty).await, Ok(Ok(_)))
    }

    /// Gives back all memory, once the door is closed and the step that is being computed is done.
    pub(super) async fn vacate(self) {
        let Self { registry, compute_ended, mut streams, .. } = self;
        // Streams that are still open are cut: their tasks end with the one that serves them.
        streams.abort();
        let _ = (&mut streams).await;
        drop(registry);
        // The thread drops the blocks when the last of those who could send it jobs is gone.
        let _ = compute_ended.await;
    }
}

async fn announce_until_it_moves(
    announcer: &mut Announcer,
    mut mover: Option<&mut Mover>,
    profile: &Profile,
) -> Result<BlockRange, ServeError> {
    loop {
        let seen = announcer.next_round(ServerState::Serving).await?;
        if let Some(mover) = mover.as_deref_mut()
            && let Some(to) = mover.look(announcer, profile, &seen).await?
        {
            return Ok(to);
        }
    }
}

fn ready(about: &About, profile: &Profile, word: OwnWord) -> ServeEvent {
    ServeEvent::Ready {
        peer: about.network.peer_id(),
        model: about.model,
        name: about.model_name.clone(),
        blocks: profile.blocks,
        class: profile.class.clone(),
        rates: profile.rates,
        addresses: about.network.dialable_addresses(),
        word,
    }
}
