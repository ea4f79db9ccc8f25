//! The life of a server: start, serve, move, leave.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use swarm_protocol::announcement::ServerState;
use swarm_protocol::block::BlockRange;
use tracing::warn;

use super::about::Profile;
use super::config::ServeConfig;
use super::error::ServeError;
use super::event::{Report, ServeEvent};
use super::metrics::State;
use super::moving::Mover;
use super::running::{Ending, Running};
use super::server::Server;

/// Serves until `stop` resolves and running sessions have ended or moved.
///
/// # Errors
/// [`ServeError`] if the server cannot start, or cannot go on.
pub async fn serve(config: ServeConfig, report: Report, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
    tokio::pin!(stop);
    let mut server = tokio::select! {
        server = Server::begin(config, report) => server?,
        () = &mut stop => return Ok(()),
    };
    let why = server.live(stop).await;
    server.network.shut_down().await;
    why
}

impl Server {
    /// From joining to the good-bye.
    async fn live(&mut self, mut stop: Pin<&mut impl Future<Output = ()>>) -> Result<(), ServeError> {
        let mut next = None;
        // The blocks that were served before the ones that are being loaded, and whether any were.
        let (mut former, mut served) = (None, false);
        loop {
            let started = tokio::select! {
                started = self.start_serving(next) => started,
                () = stop.as_mut() => return self.leave(None, Ok(())).await,
            };
            let mut running = match started {
                Ok(running) => running,
                Err(error) if served && error.concerns_blocks() => {
                    next = former.take();
                    tokio::select! {
                        turned = self.turn_back(next, &error) => turned?,
                        () = stop.as_mut() => return self.leave(None, Ok(())).await,
                    }
                    continue;
                }
                Err(error) => return self.leave(None, Err(error)).await,
            };
            served = true;
            if former.is_some() {
                self.about.metrics.moves.inc();
            }
            if former.take().is_some()
                && let Some(mover) = &mut self.mover
            {
                mover.has_moved();
            }
            let Self { announcer, mover, counted, door, report, .. } = self;
            let ended = running.until_it_ends(announcer, mover.as_mut(), counted, door, report, stop.as_mut()).await;
            let to = match ended {
                Ending::Moves(to) => to,
                Ending::Stopped => return self.leave(Some((running, self.drain_timeout)), Ok(())).await,
                Ending::Failed(error) => return self.leave(Some((running, Duration::ZERO)), Err(error)).await,
            };
            let until = Instant::now() + self.drain_timeout;
            let moved = tokio::select! {
                moved = self.clear_out(&mut running, to) => moved,
                () = stop.as_mut() => {
                    let left = until.saturating_duration_since(Instant::now());
                    return self.leave(Some((running, left)), Ok(())).await;
                }
            };
            if let Err(error) = moved {
                return self.leave(Some((running, Duration::ZERO)), Err(error)).await;
            }
            former = Some(running.profile.blocks);
            tokio::select! {
                () = self.vacate(running) => {}
                () = stop.as_mut() => return self.leave(None, Ok(())).await,
            }
            next = Some(to);
        }
    }

    /// Loads blocks and lets sessions in: the announced ones, or those it chooses.
    async fn start_serving(&mut self, announced: Option<BlockRange>) -> Result<Running, ServeError> {
        let blocks = match announced {
            Some(blocks) => blocks,
            None => self.join_and_choose().await?,
        };
        let loaded = self.load(blocks).await?;
        if let Some(mover) = &mut self.mover {
            mover.settle();
        }
        self.start(loaded)
    }

    /// The blocks that were to be served cannot be loaded. Announces those that were served before, which are served again:
    /// what the swarm has lost by the attempt is little. If not even they can be loaded, the server is away for a while, and
    /// then looks where it is needed, as at its start.
    async fn turn_back(&mut self, to: Option<BlockRange>, error: &ServeError) -> Result<(), ServeError> {
        let pause = self.mover.as_mut().map(Mover::move_failed).unwrap_or_default();
        let Some(blocks) = to else {
            warn!(%error, ?pause, "no blocks can be loaded; looking for some again after a pause");
            self.announcer.say_goodbye().await;
            tokio::time::sleep(pause).await;
            return Ok(());
        };
        warn!(%error, to = %blocks, ?pause, "the new blocks cannot be loaded; going back to those before, and staying");
        let profile = Profile { blocks, ..self.draft()? };
        self.announcer.announce_instead(&profile, ServerState::Joining).await;
        Ok(())
    }

    /// Hands the sessions of a server that moves over to others.
    async fn clear_out(&mut self, running: &mut Running, to: BlockRange) -> Result<(), ServeError> {
        let (from, sessions, within) = (running.profile.blocks, running.sessions(), self.drain_timeout);
        self.about.metrics.set_state(State::Moving);
        (self.report)(ServeEvent::Moving { from, to, sessions, within });
        tokio::select! {
            () = running.drain(within) => Ok(()),
            error = self.announcer.keep_announcing(ServerState::Joining) => Err(error),
            () = self.door.ended() => Err(ServeError::NetworkEnded),
        }
    }

    /// Frees the memory of blocks that are served no more: the next ones need it.
    async fn vacate(&mut self, running: Running) {
        self.door.close();
        self.set_idle();
        running.vacate().await;
    }

    /// Says good-bye while sessions end or move within the given time.
    async fn leave(
        &mut self,
        running: Option<(Running, Duration)>,
        why: Result<(), ServeError>,
    ) -> Result<(), ServeError> {
        // A twin's good-bye would withdraw the other one.
        self.about.metrics.set_state(State::Leaving);
        let silent = matches!(why, Err(ServeError::Twin(_)));
        let Self { announcer, report, .. } = self;
        let goodbye = async {
            if !silent {
                announcer.retire().await;
                announcer.say_goodbye().await;
            }
        };
        match running {
            Some((mut running, within)) => {
                report(ServeEvent::Leaving { sessions: running.sessions(), within });
                tokio::join!(goodbye, running.drain(within));
            }
            None => goodbye.await,
        }
        why
    }
}
