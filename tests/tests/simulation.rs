//! The pure logic of client and servers, driven through thousands of random swarms and failures.
//!
//! `SWARM_SIM_SEEDS=100000 cargo test -p swarm-tests --test simulation` looks harder; `SWARM_SIM_FROM=4711` starts there.
//! `SWARM_SIM_TELL=4711 cargo test -p swarm-tests --test simulation -- --ignored --nocapture` tells what happens in one.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Duration;

use swarm_client::chain::ChainConfig;
use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;
use swarm_tests::sim::{Counts, Fault, Hosting, Operation, Scenario, ServerSpec, Turn, Violation, run, tell};

/// What seldom happens, or never, if nothing is wrong with the servers. A hand-over to a server that is lost is nobody's any more,
/// and does not count as failed.
const RARE: [&str; 4] = ["wrong", "stuck", "unlinked_for_good", "hand_overs_failed"];

/// Seeds of a run that nobody asked to look harder.
const SEEDS: u64 = 10_000;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seeds() -> std::ops::Range<u64> {
    let from = number("SWARM_SIM_FROM", 0);
    from..from + number("SWARM_SIM_SEEDS", SEEDS)
}

#[test]
fn every_session_ends_as_if_nothing_had_gone_wrong() {
    let (mut counts, mut events) = (Counts::default(), 0);
    for seed in seeds() {
        match run(&Scenario::random(seed)) {
            Ok(report) => {
                counts += report.counts;
                events += report.events;
            }
            Err(violation) => panic!("seed {seed}: {violation}\n{:#?}", Scenario::random(seed)),
        }
    }
    let seeds = (seeds().end - seeds().start) as usize;
    println!("{seeds} seeds, {events} events: {:?}", counts.all());
    for (what, count) in counts.all() {
        assert!(
            RARE.contains(&what) || count >= seeds / 1000,
            "the simulation has become too peaceful: {what} {count}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..50 {
        let report = run(&Scenario::random(seed)).unwrap();
        assert_eq!(Ok(report), run(&Scenario::random(seed)), "seed {seed}");
        assert_ne!(report.trace, run(&Scenario::random(seed + 50)).unwrap().trace);
    }
}

#[test]
#[ignore = "tells of one seed"]
fn tell_of_a_seed() {
    let seed = number("SWARM_SIM_TELL", 0);
    println!("{:#?}", Scenario::random(seed));
    tell(&Scenario::random(seed)).iter().for_each(|line| println!("{line}"));
}

/// Seeds at which a bug is looked for: a stale row of another link does harm in one of thousands.
const MOST_TRIED: u64 = 60_000;

/// Looks for a seed at which the simulation says so of servers with that bug.
fn noticed(fault: Fault, is_it: impl Fn(&Violation) -> bool) {
    let faulty = |seed| Scenario { fault, ..Scenario::random(seed) };
    let found =
        (0..number("SWARM_SIM_NOTICE", MOST_TRIED)).find(|seed| run(&faulty(*seed)).is_err_and(|found| is_it(&found)));
    assert!(found.is_some(), "{fault:?} is not noticed");
}

#[test]
fn servers_that_do_not_rewind_are_noticed() {
    noticed(Fault::KeepsStaleRows, |found| matches!(found, Violation::WrongOutput { .. }));
}

#[test]
fn servers_that_compute_over_gaps_are_noticed() {
    noticed(Fault::ComputesOverGaps, |found| matches!(found, Violation::WrongOutput { .. }));
}

#[test]
fn room_that_does_not_come_back_is_noticed() {
    noticed(Fault::LeaksReservations, |found| matches!(found, Violation::Leaked { .. }));
}

#[test]
fn rows_of_an_old_link_are_noticed() {
    noticed(Fault::ListensToOldLinks, |found| matches!(found, Violation::WrongOutput { .. }));
}

#[test]
fn outputs_of_an_old_epoch_are_noticed() {
    noticed(Fault::ForgetsEpochs, |found| matches!(found, Violation::WrongOutput { .. }));
}

/// One server, whose steps take seconds.
fn slow_swarm(fault: Fault) -> Scenario {
    let blocks = BlockRange::new(0, 12).unwrap();
    let (rtt, block_time) = (Duration::from_millis(20), Duration::from_millis(3));
    let server =
        ServerSpec { hosting: Hosting::Fixed(blocks), rtt, rate: 1 << 20, block_time, budget: TokenCount(100) };
    let slow = Operation::Slow { server: 0, factor: 50, lasting: Duration::from_secs(60) };
    Scenario {
        model: blocks,
        servers: vec![server],
        turns: vec![Turn::Prompt(20), Turn::Decode(3)],
        operations: vec![(Duration::ZERO, slow)],
        chain: ChainConfig { chunk: TokenCount(8), least: TokenCount(2), window: 2 },
        standby: false,
        fault,
        ..Scenario::random(0)
    }
}

#[test]
fn a_slow_server_is_waited_for_and_one_that_answers_no_pings_is_not() {
    let report = run(&slow_swarm(Fault::None)).unwrap();
    assert_eq!((report.counts.losses, report.counts.opens), (0, 1));
    let deaf = run(&slow_swarm(Fault::DeafWhileComputing));
    assert!(matches!(deaf, Err(Violation::Innocent { .. })), "{deaf:?}");
}

#[test]
fn more_kept_than_reserved_is_noticed() {
    noticed(Fault::KeepsTooMuch, |found| matches!(found, Violation::PastReservation { .. }));
}
