//! Placement and rebalancing in swarms of up to a thousand servers that join, leave and die.
//!
//! `SWARM_SIM_FROM=4711 cargo test -p swarm-tests --test placement` starts at other seeds.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use swarm_tests::placement_sim::{Outcome, Scenario, best_found, best_reachable, most_conceivable, run};

fn seeds(count: u64) -> std::ops::Range<u64> {
    let from = std::env::var("SWARM_SIM_FROM").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    from..from + count
}

/// How close a swarm at rest is to the best placement found, and what it took.
struct Result {
    ratio: f64,
    outcome: Outcome,
}

fn settle(scenario: &Scenario) -> Result {
    let (seed, blocks) = (scenario.seed, scenario.blocks);
    let outcome = run(scenario).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    // Nothing can be better than this: where it is close, no search is needed.
    let bound = most_conceivable(blocks, &outcome.servers);
    let best = if outcome.bottleneck >= 0.95 * bound { bound } else { best_found(blocks, &outcome.servers, seed) };
    let ratio = outcome.bottleneck / best;
    println!(
        "seed {seed}: {} servers, {ratio:.3} of the best, {} moves after",
        outcome.servers.len(),
        outcome.founding_moves
    );
    println!(
        "  the founding; {} events, {} moves, {} at most after one, {} taken back; {:.3} of the best without moves",
        outcome.events,
        outcome.moves,
        outcome.most_moves,
        outcome.taken_back,
        outcome.without_moves / best
    );
    Result { ratio, outcome }
}

/// Swarms of so many servers, after so many events and so many leaves at once at their end.
fn come_within_a_tenth(swarms: &[(usize, usize, usize, u64)]) {
    for &(servers, events, exodus, count) in swarms {
        for seed in seeds(count) {
            let Result { ratio, outcome } = settle(&Scenario::random(seed, servers, events, 0.0).with_exodus(exodus));
            assert!(ratio >= 0.9, "seed {seed}: {ratio} of the best: {outcome:?}");
            let per_event = outcome.moves as f64 / outcome.events as f64;
            assert!(per_event <= 3.0, "seed {seed}: {per_event} moves for each event: {outcome:?}");
            assert!(outcome.most_moves <= 30, "seed {seed}: {outcome:?}");
        }
    }
}

#[test]
fn a_settled_swarm_comes_within_a_tenth_of_the_best_placement() {
    come_within_a_tenth(&[(80, 30, 0, 4), (150, 30, 30, 2), (300, 20, 40, 1)]);
}

#[test]
fn a_thousand_servers_come_within_a_tenth_of_the_best_placement() {
    come_within_a_tenth(&[(1000, 10, 40, 1)]);
}

/// The seeds of the small swarms begin here: others than those that the rule's numbers were chosen with.
const FRESH: u64 = 300;

/// How far a small swarm may stay behind the best that it could reach: the rule is a search that sometimes misses.
const LEAST_OF_REACHABLE: f64 = 0.7;

/// Few servers of very unequal sizes leave little choice: most blocks have two or three replicas, and the last of a block
/// stays where it is. On average they come within a tenth of the best placement found, reachable or not.
#[test]
fn small_swarms_are_mended_and_come_within_a_tenth_on_average() {
    let mut ratios = Vec::new();
    for (servers, count) in [(12, 4), (16, 4), (24, 3), (40, 3)] {
        for seed in seeds(count).map(|seed| FRESH + seed) {
            let scenario = Scenario::random(seed, servers, 20, 0.0);
            let outcome = run(&scenario).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
            let best = best_found(scenario.blocks, &outcome.servers, seed);
            if best <= 0.0 {
                // Those that are left do not hold all blocks together.
                continue;
            }
            assert!(outcome.bottleneck > 0.0, "seed {seed}: some block has no server: {outcome:?}");
            let reachable = best_reachable(scenario.blocks, &outcome.servers, &outcome.placed, seed);
            let (ratio, of_reachable) = (outcome.bottleneck / best, outcome.bottleneck / reachable);
            println!(
                "seed {seed}: {} servers, {ratio:.3} of the best, {of_reachable:.3} of the best reachable, {} moves",
                outcome.servers.len(),
                outcome.moves
            );
            assert!(of_reachable >= LEAST_OF_REACHABLE, "seed {seed}: {of_reachable} of the reachable: {outcome:?}");
            assert!(outcome.moves as f64 <= 3.0 * outcome.events as f64, "seed {seed}: {outcome:?}");
            ratios.push(ratio);
        }
    }
    let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
    assert!(mean >= 0.9, "{mean} of the best on average: {ratios:?}");
}

#[test]
fn who_is_pinned_stays_and_the_others_make_up_for_it() {
    for seed in seeds(2) {
        let Result { ratio, outcome } = settle(&Scenario::random(seed, 80, 30, 0.3));
        assert!(ratio >= 0.8, "seed {seed}: {ratio} of the best: {outcome:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_outcome() {
    let scenario = Scenario::random(7, 40, 10, 0.1);
    assert_eq!(run(&scenario), run(&scenario));
}
