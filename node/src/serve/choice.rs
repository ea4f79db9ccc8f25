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

use super::about::Profile;
use super::announcer::Announcer;
use super::error::ServeError;
use crate::placement::{Claim, Coverage, Standing, choose, rechoose};

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
) -> Result<BlockRange, ServeError> {
    let rate = tokens_per_second(draft.rates);
    let seen = announcer.look().await?;
    let mut coverage = Coverage::none(model);
    for claim in claims(&seen.view, me) {
        coverage.add(claim.blocks, claim.tokens_per_second);
    }
    draft.blocks = choose(&coverage, count, rate, &mut rand::rng());
    announcer.announce(&draft, ServerState::Joining).await;
    for _ in 0..if others { ROUNDS } else { 0 } {
        let pause = rand::rng().random_range(PAUSE_MS);
        sleep(Duration::from_millis(pause)).await;
        let seen = announcer.look().await?;
        let mine = Claim { peer: me, blocks: draft.blocks, tokens_per_second: rate, standing: Standing::Joining };
        let Some(better) = rechoose(model, &mine, &claims(&seen.view, me), &mut rand::rng()) else {
            break;
        };
        info!(from = %draft.blocks, to = %better, "another server joined with the same blocks; choosing others");
        draft.blocks = better;
        announcer.announce(&draft, ServerState::Joining).await;
    }
    Ok(draft.blocks)
}

/// What other servers host or are about to.
fn claims(view: &SwarmView, me: PeerId) -> Vec<Claim> {
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

fn tokens_per_second(rates: Rates) -> f64 {
    1e6 / f64::from(rates.decode_us_per_block.max(1))
}
