//! Which blocks to host: what the swarm says, put before the pure rule.

use std::time::Duration;

use rand::Rng;
use swarm_model::ModelConfig;
use swarm_protocol::PeerId;
use swarm_protocol::announcement::{Announcement, Rates, ServerState};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::swarm_view::SwarmView;
use tokio::time::sleep;
use tracing::info;

use super::about::{About, Profile};
use super::announcer::Announcer;
use super::error::ServeError;
use crate::placement::{Claim, Coverage, Standing, choose, concede, is_rival, is_senior, rechoose};

/// How often a joining server looks whether others joined at the same moment: each round settles at least one of them.
const ROUNDS: usize = 8;

/// The pause before each look, in milliseconds: others' announcements take some hundred of them to be found.
const PAUSE_MS: std::ops::Range<u64> = 400..800;

/// Memory bandwidth that is assumed before anything was measured, in bytes per second: what a usual machine reads with a
/// few threads. Decoding reads every weight once.
const ASSUMED_BANDWIDTH: u64 = 10_000_000_000;

/// Prefill is assumed to cost a tenth of decoding a token.
const ASSUMED_PREFILL_SPEEDUP: u32 = 10;

/// What to say of a server's speed before it is measured.
pub(super) fn assumed_rates(config: &ModelConfig, format: WeightFormat) -> Rates {
    let micros = config.block_bytes(format).saturating_mul(1_000_000) / ASSUMED_BANDWIDTH;
    let micros = u32::try_from(micros).unwrap_or(u32::MAX).max(1);
    Rates {
        decode_us_per_block: micros,
        prefill_ns_per_token_block: micros.saturating_mul(1000 / ASSUMED_PREFILL_SPEEDUP),
    }
}

/// How often a server gives blocks up that it has loaded: claims are not proved, and whoever likes can go first. What is
/// wrong after that rebalancing mends.
const CONCESSIONS: u32 = 2;

/// What a server chose, and what it counted on when it did.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) blocks: BlockRange,
    pub(super) counted: Counted,
}

/// On whom a server counted when it chose its blocks, until it is known that they stay.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    claims: Vec<Claim>,
    /// How often it may still give way.
    concessions: u32,
}

/// Chooses `count` blocks of `model` and announces them; `draft` brings everything else that is announced.
///
/// # Errors
/// [`ServeError::Twin`] if another live process speaks under this identity.
pub(super) async fn choose_and_announce(
    announcer: &mut Announcer,
    mut draft: Profile,
    model: BlockRange,
    count: u32,
    me: PeerId,
    others: bool,
) -> Result<Choice, ServeError> {
    let rate = tokens_per_second(draft.rates);
    let counted = claims(&announcer.look().await?.view, me);
    draft.blocks = choose(&coverage(model, &counted), count, rate, &mut rand::rng());
    announcer.announce(&draft, ServerState::Joining).await;
    let mut choice = Choice { blocks: draft.blocks, counted: Counted { claims: counted, concessions: CONCESSIONS } };
    if others {
        settle(announcer, draft, model, me, &mut choice).await?;
    }
    Ok(choice)
}

/// Looks whether others have chosen the same blocks meanwhile, which have been announced, and chooses others then; `draft` brings
/// everything else that is announced.
async fn settle(
    announcer: &mut Announcer,
    mut draft: Profile,
    model: BlockRange,
    me: PeerId,
    choice: &mut Choice,
) -> Result<(), ServeError> {
    let tokens_per_second = tokens_per_second(draft.rates);
    for _ in 0..ROUNDS {
        let pause = rand::rng().random_range(PAUSE_MS);
        sleep(Duration::from_millis(pause)).await;
        let seen = claims(&announcer.look().await?.view, me);
        let mine = Claim { peer: me, blocks: choice.blocks, tokens_per_second, standing: Standing::Joining };
        let Some(better) = reconsider(model, &mine, &choice.counted.claims, &seen, &mut rand::rng()) else {
            break;
        };
        info!(from = %choice.blocks, to = %better, "another server took the same blocks meanwhile; choosing others");
        (choice.blocks, draft.blocks) = (better, better);
        choice.counted.claims = relied_on(&mine, seen);
        announcer.announce(&draft, ServerState::Joining).await;
    }
    Ok(())
}

/// Those of `seen` on whom the server of `mine` counts when it chooses anew: who has to give way to it is not among them.
fn relied_on(mine: &Claim, mut seen: Vec<Claim>) -> Vec<Claim> {
    seen.retain(|other| is_senior(mine, other));
    seen
}

/// Other blocks for a server that has just told that it serves the blocks of `profile`, if servers that go first chose some
/// of them at the same moment; they have been announced then. `counted` is what it relied on when it chose, and becomes what
/// it relies on now; `near` is what is known of its blocks.
///
/// # Errors
/// [`ServeError::Twin`] if another live process speaks under this identity.
pub(super) async fn reconcile(
    announcer: &mut Announcer,
    about: &About,
    profile: &Profile,
    counted: &mut Counted,
    near: &SwarmView,
) -> Result<Option<BlockRange>, ServeError> {
    let (model, me) = (about.model_blocks, about.network.peer_id());
    let tokens_per_second = tokens_per_second(profile.rates);
    let mine = Claim { peer: me, blocks: profile.blocks, tokens_per_second, standing: Standing::Serving };
    let is_contested = claims(near, me).iter().any(|other| is_rival(&mine, &counted.claims, other));
    if counted.concessions == 0 || !is_contested {
        return Ok(None);
    }
    // One that has just read that these blocks are served gives way itself.
    sleep(Duration::from_millis(PAUSE_MS.end)).await;
    let seen = announcer.look().await?;
    if !seen.whole {
        // In a sample, those who were there before look like rivals, and blocks worse served than they are.
        return Ok(None);
    }
    let seen = claims(&seen.view, me);
    let Some(better) = concede(model, &mine, &counted.claims, &seen, &mut rand::rng()) else {
        return Ok(None);
    };
    info!(from = %profile.blocks, to = %better, "another server took the same blocks meanwhile; giving way to it");
    let new = Profile { blocks: better, ..profile.clone() };
    announcer.announce_instead(&new, ServerState::Joining).await;
    let concessions = counted.concessions - 1;
    let mut choice = Choice { blocks: better, counted: Counted { claims: relied_on(&mine, seen), concessions } };
    settle(announcer, new, model, me, &mut choice).await?;
    *counted = choice.counted;
    if choice.blocks == profile.blocks {
        announcer.announce_instead(profile, ServerState::Serving).await;
        return Ok(None);
    }
    Ok(Some(choice.blocks))
}

/// Other blocks for a joining server that sees `seen` now and counted on `counted` when it chose; `None` to stay.
///
/// [`rechoose`] takes a serving server for one that was there before. One that joined at the same moment but settled
/// sooner was not: it cannot move any more, so this one gives way to it whatever their ids.
fn reconsider(
    model: BlockRange,
    mine: &Claim,
    counted: &[Claim],
    seen: &[Claim],
    rng: &mut impl Rng,
) -> Option<BlockRange> {
    let counted_on = |other: &Claim| counted.iter().any(|one| one.peer == other.peer && one.blocks == other.blocks);
    let settled = |other: &Claim| other.standing == Standing::Serving;
    let shared = |other: &Claim| other.blocks.intersection(mine.blocks).is_some();
    if !seen.iter().any(|other| settled(other) && shared(other) && !counted_on(other)) {
        return rechoose(model, mine, seen, rng);
    }
    let staying: Vec<Claim> = seen.iter().filter(|other| settled(other) || other.peer < mine.peer).cloned().collect();
    let chosen = choose(&coverage(model, &staying), mine.blocks.len(), mine.tokens_per_second, rng);
    (chosen != mine.blocks).then_some(chosen)
}

fn coverage(model: BlockRange, claims: &[Claim]) -> Coverage {
    let mut coverage = Coverage::none(model);
    claims.iter().for_each(|claim| coverage.add(claim.blocks, claim.tokens_per_second));
    coverage
}

/// What other servers host or are about to.
pub(super) fn claims(view: &SwarmView, me: PeerId) -> Vec<Claim> {
    view.all().filter(|server| server.peer != me).filter_map(claim).collect()
}

fn claim(server: &Announcement) -> Option<Claim> {
    let standing = match server.state {
        ServerState::Joining => Standing::Joining,
        ServerState::Serving => Standing::Serving,
        ServerState::Leaving => return None,
    };
    let tokens_per_second = tokens_per_second(server.rates);
    Some(Claim { peer: server.peer, blocks: server.blocks, tokens_per_second, standing })
}

pub(super) fn tokens_per_second(rates: Rates) -> f64 {
    1e6 / f64::from(rates.decode_us_per_block.max(1))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use rand::seq::IndexedRandom;

    use super::*;

    fn range(start: u32, end: u32) -> BlockRange {
        BlockRange::new(start, end).unwrap()
    }

    fn claim(number: u8, blocks: BlockRange, standing: Standing) -> Claim {
        let peer = PeerId::from_bytes(&[0, 2, 1, number]).unwrap();
        Claim { peer, blocks, tokens_per_second: 10.0, standing }
    }

    #[test]
    fn who_settled_sooner_is_given_way_to_whatever_the_ids() {
        let first = claim(1, range(0, 4), Standing::Serving);
        let counted = [first.clone()];
        for other in [3, 7] {
            let mine = claim(5, range(8, 12), Standing::Joining);
            let seen = [first.clone(), claim(other, range(8, 12), Standing::Serving)];
            let rng = &mut StdRng::seed_from_u64(1);
            assert_eq!(reconsider(range(0, 12), &mine, &counted, &seen, rng), Some(range(4, 8)));
            // It moves once: a server that was counted on is no surprise again.
            let moved = claim(5, range(4, 8), Standing::Joining);
            assert_eq!(reconsider(range(0, 12), &moved, &seen, &seen, rng), None);
        }
    }

    /// A server that chooses for itself, one of its steps at a time: what [`choose_and_announce`], loading and
    /// [`reconcile`] do, with a board for the DHT and no time.
    struct Joiner {
        claim: Claim,
        counted: Vec<Claim>,
        next: Next,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Next {
        Choose,
        Announce,
        Reconsider,
        Serve,
        Reconcile,
        Concede,
        Rest,
    }

    impl Joiner {
        fn step(&mut self, board: &mut [Option<Claim>], place: usize, model: BlockRange, rng: &mut StdRng) {
            let others = || board.iter().flatten().filter(|other| other.peer != self.claim.peer).cloned();
            let seen: Vec<Claim> = others().collect();
            self.next = match self.next {
                Next::Choose => {
                    self.claim.blocks = choose(&coverage(model, &seen), 4, 10.0, rng);
                    self.counted = seen;
                    Next::Announce
                }
                Next::Announce => {
                    board[place] = Some(self.claim.clone());
                    Next::Reconsider
                }
                Next::Reconsider => match reconsider(model, &self.claim, &self.counted, &seen, rng) {
                    Some(blocks) => {
                        self.claim.blocks = blocks;
                        self.counted = relied_on(&self.claim, seen);
                        Next::Announce
                    }
                    None => Next::Serve,
                },
                Next::Serve => {
                    self.claim.standing = Standing::Serving;
                    board[place] = Some(self.claim.clone());
                    Next::Reconcile
                }
                Next::Reconcile if seen.iter().any(|other| is_rival(&self.claim, &self.counted, other)) => {
                    Next::Concede
                }
                Next::Concede => match concede(model, &self.claim, &self.counted, &seen, rng) {
                    Some(blocks) => {
                        (self.claim.blocks, self.claim.standing) = (blocks, Standing::Joining);
                        self.counted = relied_on(&self.claim, seen);
                        Next::Announce
                    }
                    None => Next::Rest,
                },
                Next::Reconcile | Next::Rest => Next::Rest,
            };
        }
    }

    #[test]
    fn whatever_the_order_of_their_steps_joiners_leave_no_hole() {
        const MOST_STEPS: usize = 1000;
        for seed in 0..2000 {
            let rng = &mut StdRng::seed_from_u64(seed);
            let count = rng.random_range(2..6);
            let model = range(0, 4 * count as u32);
            let joiner = |number| Joiner {
                claim: claim(number, range(0, 4), Standing::Joining),
                counted: Vec::new(),
                next: Next::Choose,
            };
            let mut joiners: Vec<Joiner> = (0..count).map(joiner).collect();
            let mut board = vec![None; joiners.len()];
            // Some are slow: that is what goes wrong.
            let haste: Vec<u32> = joiners.iter().map(|_| rng.random_range(1..20)).collect();
            for steps in 0.. {
                assert!(steps < MOST_STEPS, "seed {seed}: they never come to rest");
                let left: Vec<usize> = (0..joiners.len()).filter(|&at| joiners[at].next != Next::Rest).collect();
                let Ok(&at) = left.choose_weighted(rng, |&at| haste[at]) else {
                    break;
                };
                joiners[at].step(&mut board, at, model, rng);
            }
            let settled: Vec<Claim> = board.into_iter().flatten().collect();
            assert!(coverage(model, &settled).bottleneck() > 0.0, "seed {seed}: {settled:?}");
        }
    }

    #[test]
    fn who_was_there_before_changes_nothing() {
        let mine = claim(5, range(0, 4), Standing::Joining);
        let replica = [claim(3, range(0, 4), Standing::Serving)];
        let rng = &mut StdRng::seed_from_u64(1);
        assert_eq!(reconsider(range(0, 4), &mine, &replica, &replica, rng), None);
        // A newcomer that settled on all there is leaves no better choice.
        assert_eq!(reconsider(range(0, 4), &mine, &[], &replica, rng), None);
    }
}
