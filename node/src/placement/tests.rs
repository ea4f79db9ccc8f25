use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use swarm_protocol::PeerId;

use super::*;

const SWARMS: u64 = 400;

fn model(blocks: u32) -> BlockRange {
    range(0, blocks)
}

fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).unwrap()
}

fn peer(number: u8) -> PeerId {
    PeerId::from_bytes(&[0, 2, 1, number]).unwrap()
}

/// The best bottleneck that servers of these sizes and rates can have, by trying every placement.
fn best_bottleneck(coverage: &Coverage, servers: &[(u32, f64)]) -> f64 {
    let Some((&(count, rate), rest)) = servers.split_first() else {
        return coverage.bottleneck();
    };
    let placed = |blocks| {
        let mut joined = coverage.clone();
        joined.add(blocks, rate);
        best_bottleneck(&joined, rest)
    };
    coverage.windows(count).map(placed).fold(0.0, f64::max)
}

fn join_all(blocks: u32, servers: &[(u32, f64)], rng: &mut StdRng) -> Coverage {
    let mut coverage = Coverage::none(model(blocks));
    for &(count, rate) in servers {
        let chosen = choose(&coverage, count, rate, rng);
        coverage.add(chosen, rate);
    }
    coverage
}

#[test]
fn a_hole_is_filled_first() {
    let mut coverage = Coverage::none(model(12));
    coverage.add(range(0, 5), 1.0);
    coverage.add(range(9, 12), 100.0);
    for seed in 0..20 {
        let rng = &mut StdRng::seed_from_u64(seed);
        assert_eq!(choose(&coverage, 4, 10.0, rng), range(5, 9));
    }
    coverage.add(range(5, 9), 50.0);
    let rng = &mut StdRng::seed_from_u64(1);
    assert_eq!(choose(&coverage, 5, 10.0, rng), range(0, 5), "the worst-served blocks");
    assert_eq!(choose(&coverage, 40, 10.0, rng), model(12), "never more blocks than there are");
}

#[test]
fn equals_are_drawn_at_random() {
    let coverage = Coverage::none(model(12));
    let chosen = |seed| choose(&coverage, 4, 1.0, &mut StdRng::seed_from_u64(seed));
    let starts: std::collections::BTreeSet<u32> = (0..64).map(|seed| chosen(seed).start()).collect();
    assert_eq!(starts, [0, 8].into(), "an end: the hole that is left is in one piece");
    assert_eq!(chosen(7), chosen(7), "the same seed gives the same choice");
}

#[test]
fn as_many_servers_as_can_cover_the_model_do() {
    for seed in 0..SWARMS {
        let rng = &mut StdRng::seed_from_u64(seed);
        let (blocks, count) = (rng.random_range(1..40u32), rng.random_range(1..12));
        let servers: Vec<_> = (0..blocks.div_ceil(count)).map(|_| (count, rng.random_range(0.1..100.0))).collect();
        let coverage = join_all(blocks, &servers, rng);
        assert!(coverage.bottleneck() > 0.0, "seed {seed}: {coverage:?} of {count} blocks each");
    }
}

#[test]
fn equal_servers_reach_the_best_bottleneck_there_is() {
    for seed in 0..SWARMS {
        let rng = &mut StdRng::seed_from_u64(seed);
        let (blocks, count) = (rng.random_range(1..9), rng.random_range(1..5));
        let servers = vec![(count, 10.0); rng.random_range(1..6)];
        let reached = join_all(blocks, &servers, rng).bottleneck();
        let best = best_bottleneck(&Coverage::none(model(blocks)), &servers);
        assert_eq!(reached, best, "seed {seed}: {servers:?} over {blocks} blocks");
    }
}

#[test]
fn one_server_reaches_the_best_bottleneck_there_is_in_any_swarm() {
    for seed in 0..SWARMS {
        let rng = &mut StdRng::seed_from_u64(seed);
        let blocks = rng.random_range(1..16);
        let mut coverage = Coverage::none(model(blocks));
        for _ in 0..rng.random_range(0..12) {
            let start = rng.random_range(0..blocks);
            coverage.add(range(start, rng.random_range(start + 1..=blocks)), rng.random_range(1.0..50.0));
        }
        let server = (rng.random_range(1..=blocks), rng.random_range(1.0..50.0));
        let best = best_bottleneck(&coverage, &[server]);
        coverage.add(choose(&coverage, server.0, server.1, rng), server.1);
        assert_eq!(coverage.bottleneck(), best, "seed {seed}");
    }
}

/// Servers of unequal sizes and rates choose one after another and never move again: an order against them costs
/// something, but little on average.
#[test]
fn unequal_servers_come_close_to_the_best_bottleneck_on_average() {
    let (mut reached, mut best) = (0.0, 0.0);
    for seed in 0..SWARMS {
        let rng = &mut StdRng::seed_from_u64(seed);
        let blocks = rng.random_range(2..8u32);
        let servers: Vec<_> = (0..rng.random_range(2..6))
            .map(|_| (rng.random_range(blocks.div_ceil(3)..=blocks), rng.random_range(5.0..15.0)))
            .collect();
        reached += join_all(blocks, &servers, rng).bottleneck();
        best += best_bottleneck(&Coverage::none(model(blocks)), &servers);
    }
    assert!(reached >= 0.9 * best, "reached {reached} of {best}");
}

/// All see the same announcements, decide, and announce; as often as any of them moves.
fn rounds_until_settled(model: BlockRange, claims: &mut [Claim], rng: &mut StdRng) -> usize {
    for round in 0..=claims.len() {
        let seen = claims.to_vec();
        let mut moved = false;
        for mine in claims.iter_mut() {
            if let Some(blocks) = rechoose(model, mine, &seen, rng) {
                mine.blocks = blocks;
                moved = true;
            }
        }
        if !moved {
            return round;
        }
    }
    claims.len() + 1
}

#[test]
fn simultaneous_joiners_spread_in_few_rounds() {
    for seed in 0..SWARMS {
        let rng = &mut StdRng::seed_from_u64(seed);
        let (blocks, count) = (rng.random_range(1..40u32), rng.random_range(1..12));
        let joiners = blocks.div_ceil(count) + rng.random_range(0..4);
        let nobody = Coverage::none(model(blocks));
        let claim = |number| Claim {
            peer: peer(number),
            blocks: choose(&nobody, count, 10.0, rng),
            tokens_per_second: 10.0,
            standing: Standing::Joining,
        };
        let mut claims: Vec<Claim> = (0..joiners as u8).map(claim).collect();
        let rounds = rounds_until_settled(model(blocks), &mut claims, rng);
        assert!(rounds <= claims.len(), "seed {seed}: {claims:?}");
        let mut coverage = nobody;
        claims.iter().for_each(|claim| coverage.add(claim.blocks, claim.tokens_per_second));
        assert!(coverage.bottleneck() > 0.0, "seed {seed}: {blocks} blocks, {rounds} rounds: {claims:?}");
    }
}

#[test]
fn who_serves_or_has_the_smaller_peer_id_stays() {
    let claim = |number, blocks, standing| Claim { peer: peer(number), blocks, tokens_per_second: 1.0, standing };
    let mine = claim(5, range(0, 4), Standing::Joining);
    let yields = |other: Claim| rechoose(model(8), &mine, &[other], &mut StdRng::seed_from_u64(1));
    assert_eq!(yields(claim(4, range(0, 4), Standing::Joining)), Some(range(4, 8)));
    assert_eq!(yields(claim(4, range(4, 8), Standing::Joining)), None, "no block in common");
    assert_eq!(yields(claim(6, range(0, 4), Standing::Joining)), None, "the other one moves");
    assert_eq!(yields(claim(4, range(0, 4), Standing::Serving)), None, "it was seen when I chose");
    let full = [claim(1, range(0, 8), Standing::Serving), claim(4, range(0, 8), Standing::Joining)];
    assert_eq!(rechoose(model(8), &mine, &full, &mut StdRng::seed_from_u64(1)), None, "nowhere is better");
}

#[test]
fn rates_that_are_no_numbers_do_no_harm() {
    let mut coverage = Coverage::none(model(2));
    for rate in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
        coverage.add(range(0, 9), rate);
    }
    assert!(coverage.bottleneck().is_finite());
    assert_eq!(coverage.rate(BlockIndex(7)), 0.0);
}
