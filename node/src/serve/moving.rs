//! Going where the swarm needs a server more: looking at the swarm, put before the pure rule.
//!
//! A server that is to move first says so, and looks again when its word has reached the others and theirs has reached it.
//! So two servers do not both leave their blocks to one another, nor both fill one hole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;
use swarm_protocol::PeerId;
use swarm_protocol::announcement::{Announcement, ServerState};
use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::swarm_view::SwarmView;
use tokio::time::sleep;
use tracing::{debug, info};

use super::about::{About, Profile};
use super::announcer::Announcer;
use super::choice::{claims, tokens_per_second};
use super::digests::describe;
use super::error::ServeError;
use super::setbacks::Setbacks;
use super::view::Seen;
use crate::placement::{Claim, Patience, Standing, still_right};

/// Of the time between two announcements, how much a server waits after it has said that it will move.
const SETTLING_SHARE: u32 = 10;

/// The least of that wait: a word reaches its holders within a second, and a look takes about another.
const LEAST_SETTLING: Duration = Duration::from_secs(1);

/// How much longer the wait may be, as a share: those who decided together do not look again together.
const SETTLING_JITTER: f64 = 0.5;

/// Replicas that are asked whether they still serve before they are left alone with the blocks.
const MOST_ASKED: usize = 8;

/// Decides whether a server moves.
pub(super) struct Mover {
    about: Arc<About>,
    settling: Duration,
    patience: Patience,
    /// Moves that came to nothing.
    setbacks: Setbacks,
}

impl Mover {
    pub(super) fn new(about: Arc<About>, interval: Duration) -> Self {
        let settling = (interval / SETTLING_SHARE).max(LEAST_SETTLING);
        Self { about, settling, patience: Patience::default(), setbacks: Setbacks::default() }
    }

    /// The blocks to which the server was moving could not be loaded: for a while it does not move. Says how long.
    pub(super) fn move_failed(&mut self) -> Duration {
        self.setbacks.note(Instant::now())
    }

    /// A move has come to its end.
    pub(super) fn has_moved(&mut self) {
        self.setbacks = Setbacks::default();
    }

    /// The server serves other blocks now.
    pub(super) fn settle(&mut self) {
        self.patience.settle();
    }

    /// Looks at the swarm. Gives the blocks that the server is to host from now on, which then have been announced; or
    /// nothing, and then all is announced as before.
    ///
    /// # Errors
    /// [`ServeError::Twin`] if another live process speaks under this identity.
    pub(super) async fn look(
        &mut self,
        announcer: &mut Announcer,
        profile: &Profile,
        seen: &Seen,
    ) -> Result<Option<BlockRange>, ServeError> {
        if !self.setbacks.are_over(Instant::now()) {
            return Ok(None);
        }
        let (model, me) = (self.about.model_blocks, self.about.network.peer_id());
        let rate = tokens_per_second(profile.rates);
        let mine = Claim { peer: me, blocks: profile.blocks, tokens_per_second: rate, standing: Standing::Serving };
        let counted = claims(&seen.view, me);
        let Some((plan, step)) = self.patience.look(model, &mine, &counted, &mut rand::rng()) else {
            return Ok(None);
        };
        if (!plan.mends() || plan.is_in_order()) && !seen.whole {
            // In a sample, blocks look better or worse served than they are.
            return Ok(None);
        }
        debug!(from = %step.from, to = %step.to, mends = plan.mends(), "other blocks need this server more");
        let new = Profile { blocks: step.to, ..profile.clone() };
        announcer.announce_instead(&new, ServerState::Joining).await;
        let jitter = 1.0 + rand::rng().random_range(0.0..SETTLING_JITTER);
        sleep(self.settling.mul_f64(jitter)).await;
        let view = announcer.look().await?.view;
        let now = self.without_silent(&view, claims(&view, me), profile.blocks, step.to).await;
        if still_right(model, &mine, (&plan, step.to), &counted, &now) {
            return Ok(Some(step.to));
        }
        info!(from = %step.from, to = %step.to, "another server moves, or the last one to take over is gone; staying");
        announcer.announce_instead(profile, ServerState::Serving).await;
        Ok(None)
    }

    /// `claims` without servers of `blocks` that do not answer, or do not serve them any more: asks as many as are needed
    /// to serve them all but those that this server will go on to serve.
    async fn without_silent(
        &self,
        view: &SwarmView,
        mut claims: Vec<Claim>,
        blocks: BlockRange,
        to: BlockRange,
    ) -> Vec<Claim> {
        let mut open: Vec<BlockIndex> = blocks.blocks().collect();
        let mut unasked = claims.clone();
        for _ in 0..MOST_ASKED {
            let helps = |claim: &Claim| open.iter().filter(|block| claim.blocks.contains(**block)).count();
            let serving = unasked.iter().filter(|claim| claim.standing == Standing::Serving && helps(claim) > 0);
            let Some(peer) = serving.max_by_key(|claim| helps(claim)).map(|claim| claim.peer) else {
                return claims;
            };
            unasked.retain(|claim| claim.peer != peer);
            match self.serves(view, peer).await {
                Some(served) => open.retain(|block| !served.contains(*block)),
                None => claims.retain(|claim| claim.peer != peer),
            }
        }
        // Whoever was not asked is not relied on.
        let relied_on =
            |claim: &Claim| claim.standing == Standing::Joining || unasked.iter().all(|one| one.peer != claim.peer);
        if open.iter().any(|block| !to.contains(*block)) {
            claims.retain(relied_on);
        }
        claims
    }

    /// What `peer` says it serves; `None` if it does not answer, or serves nothing any more.
    async fn serves(&self, view: &SwarmView, peer: PeerId) -> Option<BlockRange> {
        let Announcement { state, model, blocks, .. } =
            describe(&self.about.network, view.get(peer)?).await?.announcement;
        (state == ServerState::Serving && model == self.about.model).then_some(blocks)
    }
}
