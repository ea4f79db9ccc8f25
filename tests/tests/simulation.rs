//! The pure logic of client and servers, driven through thousands of random swarms and failures.
//!
//! `SWARM_SIM_SEEDS=100000 cargo test -p swarm-tests --test simulation` looks harder; `SWARM_SIM_FROM=4711` starts there.

#![allow(clippy::unwrap_used)]

use swarm_tests::sim::{Counts, Fault, Scenario, Violation, run};

/// Seeds of a run that nobody asked to look harder.
const SEEDS: u64 = 4000;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn seeds() -> std::ops::Range<u64> {
    let from = number("SWARM_SIM_FROM", 0);
    from..from + number("SWARM_SIM_SEEDS", SEEDS)
}

fn sum(one: Counts, two: Counts) -> Counts {
    Counts {
        failures: one.failures + two.failures,
        failures_during_repair: one.failures_during_repair + two.failures_during_repair,
        refusals: one.refusals + two.refusals,
        late_answers: one.late_answers + two.late_answers,
        fallbacks: one.fallbacks + two.fallbacks,
        no_route: one.no_route + two.no_route,
    }
}

#[test]
fn every_session_ends_as_if_nothing_had_gone_wrong() {
    let mut counts = Counts::default();
    for seed in seeds() {
        match run(&Scenario::random(seed)) {
            Ok(report) => counts = sum(counts, report.counts),
            Err(violation) => panic!("seed {seed}: {violation}\n{:#?}", Scenario::random(seed)),
        }
    }
    let rarest =
        [counts.failures_during_repair, counts.refusals, counts.late_answers, counts.fallbacks, counts.no_route];
    let enough = (seeds().end - seeds().start) as usize / 40;
    assert!(rarest.iter().all(|count| *count >= enough), "the simulation has become too peaceful: {counts:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..50 {
        let report = run(&Scenario::random(seed)).unwrap();
        assert_eq!(Ok(report), run(&Scenario::random(seed)), "seed {seed}");
        assert_ne!(report.trace, run(&Scenario::random(seed + 50)).unwrap().trace);
    }
}

/// What the simulation says of servers with that bug.
fn noticed(fault: Fault) -> Vec<Violation> {
    let faulty = |seed| Scenario { fault, ..Scenario::random(seed) };
    (0..200).filter_map(|seed| run(&faulty(seed)).err()).collect()
}

#[test]
fn servers_that_do_not_rewind_are_noticed() {
    let noticed = noticed(Fault::KeepsStaleRows);
    assert!(noticed.iter().any(|violation| matches!(violation, Violation::WrongOutput { .. })), "{noticed:?}");
}

#[test]
fn servers_that_compute_over_gaps_are_noticed() {
    let noticed = noticed(Fault::ComputesOverGaps);
    assert!(noticed.iter().any(|violation| matches!(violation, Violation::WrongOutput { .. })), "{noticed:?}");
}

#[test]
fn room_that_does_not_come_back_is_noticed() {
    let noticed = noticed(Fault::LeaksReservations);
    assert!(noticed.iter().any(|violation| matches!(violation, Violation::Leaked { .. })), "{noticed:?}");
}
