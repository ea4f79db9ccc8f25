//! The pure logic of client and servers, driven through thousands of random swarms and failures.
//!
//! `SWARM_SIM_SEEDS=100000 cargo test -p swarm-tests --test simulation` looks harder; `SWARM_SIM_FROM=4711` starts there.
//! `SWARM_SIM_TELL=4711 cargo test -p swarm-tests --test simulation -- --ignored --nocapture` tells what happens in one.

#![allow(clippy::unwrap_used)]

use swarm_tests::sim::{Counts, Fault, Scenario, Violation, run, tell};

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
        assert!(what == "wrong" || count >= seeds / 1000, "the simulation has become too peaceful: {what} {count}");
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

/// What the simulation says of servers with that bug.
fn noticed(fault: Fault, is_it: impl Fn(&Violation) -> bool) {
    let faulty = |seed| Scenario { fault, ..Scenario::random(seed) };
    let noticed: Vec<Violation> = (0..400).filter_map(|seed| run(&faulty(seed)).err()).collect();
    assert!(noticed.iter().any(is_it), "{fault:?}: {noticed:?}");
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

#[test]
fn a_server_that_answers_no_pings_while_it_computes_is_noticed() {
    noticed(Fault::DeafWhileComputing, |found| matches!(found, Violation::Innocent { .. }));
}

#[test]
fn gaps_that_are_not_filled_are_noticed() {
    let never_ends = |found: &Violation| matches!(found, Violation::Endless | Violation::RepairLoop { .. });
    noticed(Fault::SendsNothingAgain, never_ends);
}

#[test]
fn more_kept_than_reserved_is_noticed() {
    noticed(Fault::KeepsTooMuch, |found| matches!(found, Violation::PastReservation { .. }));
}
