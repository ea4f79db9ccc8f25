//! Sessions of many owners come, are refused, compute, and are dropped at any point, on real threads: in the end all room is
//! free.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use swarm_model::{Checkpoint, ComputePool, KvArena, ModelSpec};
use swarm_protocol::block::BlockRange;
use swarm_protocol::wire::{RowEncoding, RowsHeader, Step};

use super::super::compute;
use super::*;
use crate::serve::metrics::ServerMetrics;
use crate::serve::prefixes::Prefixes;

/// Those who open one session after the other, and how many.
const OWNERS: u8 = 32;
const SESSIONS: usize = 12;

/// Room for some of them only.
const BUDGET: TokenCount = TokenCount(600);

/// Tokens of a session, at most.
const MOST: u32 = 120;

const HIDDEN: usize = 128;

/// Far longer than all of it takes.
const DEADLINE: Duration = Duration::from_secs(60);

/// Opens a session, feeds it, and lets it go at any point; whether there was room.
async fn session(registry: &Registry, compute: &Compute, owner: PeerId, rng: &mut StdRng) -> bool {
    let tokens = TokenCount(rng.random_range(1..=MOST));
    let Ok(lease) = registry.open(SessionId(rng.random()), owner, tokens).await else {
        return false;
    };
    if rng.random_bool(0.2) {
        return true;
    }
    let opened = compute.open(lease.slot, BlockRange::new(0, 1).unwrap(), tokens).await.unwrap();
    for position in 0..rng.random_range(0..4.min(tokens.0)) {
        let rows = RowsHeader { rows: 1, hidden: HIDDEN as u32, element: RowEncoding::Bf16 };
        let step = Step { epoch: 0, position, rows, wanted_from: 0 };
        let answer = compute.step(lease.slot, step, vec![0x3D; 2 * HIDDEN]).await.unwrap();
        if rng.random_bool(0.2) {
            // Nobody waits for the step, nor for whether there is a cache.
            return true;
        }
        answer.await.unwrap().unwrap();
    }
    opened.await.unwrap().unwrap();
    true
}

#[tokio::test]
async fn all_room_is_free_when_a_crowd_has_gone() {
    let checkpoint = Checkpoint::open(&ModelSpec::Demo).unwrap();
    let range = BlockRange::new(0, 1).unwrap();
    let blocks = checkpoint.load_blocks(range, checkpoint.native_format(), &mut |_| {}).unwrap();
    let pages = BUDGET.0 / PAGE_POSITIONS;
    let arena = KvArena::new(u64::from(pages) * blocks.page_bytes(range));
    let pool = ComputePool::new(1).unwrap();
    let started = compute::start(blocks, pool, arena.clone(), Prefixes::new(0), ServerMetrics::default()).unwrap();
    let (registry, mut rooms) =
        Registry::start(AdmissionConfig::of(BUDGET), started.compute.clone(), ServerMetrics::default());
    let (registry, compute) = (Arc::new(registry), started.compute);
    let crowd: Vec<_> = (0..OWNERS)
        .map(|number| {
            let (registry, compute) = (registry.clone(), compute.clone());
            let owner = PeerId::from_bytes(&[0, 2, 1, number]).unwrap();
            let rng = StdRng::seed_from_u64(u64::from(number));
            tokio::spawn(async move {
                let (mut rng, mut taken) = (rng, 0);
                for _ in 0..SESSIONS {
                    taken += usize::from(session(&registry, &compute, owner, &mut rng).await);
                }
                taken
            })
        })
        .collect();
    let mut taken = 0;
    for owner in crowd {
        taken += owner.await.unwrap();
    }
    let (few, all) = (SESSIONS, usize::from(OWNERS) * SESSIONS);
    assert!((few..all).contains(&taken), "{taken} of {all} sessions had room: nothing was refused, or all");
    let free = Rooms { sessions: 0, free: BUDGET };
    let freed = tokio::time::timeout(DEADLINE, rooms.wait_for(|rooms| *rooms == free)).await;
    freed.expect("room that does not come back").unwrap();
    assert_eq!(arena.used_bytes(), 0);
}
