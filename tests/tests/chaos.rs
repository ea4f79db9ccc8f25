//! Random trouble for a swarm of real processes, on this machine and over a network of namespaces: every text is the
//! undisturbed one, and nothing is left behind.
//!
//! `SWARM_CHAOS_SEED` repeats a run, `SWARM_CHAOS_SECONDS` says how long things happen. `RUST_LOG` (for example
//! `swarm_client=debug,swarm_node=debug`) is heeded by clients and servers. The namespaces take root and TUN devices:
//! without, that test says so and passes, except in CI.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use swarm_tests::chaos::{Chaos, NEAR, Outcome, hosts, play};
use swarm_tests::wan::Wan;
use tracing_subscriber::EnvFilter;

/// Seconds of trouble in everyday tests.
const SHORT: u64 = 20;

/// The trouble that a run without a wish gets: whether a change is good is told by the same trouble as before. Others are
/// looked for with `SWARM_CHAOS_SEED=$RANDOM`.
const SEED: u64 = 1;

/// Seconds of trouble on one machine in the slow test.
const LONG: u64 = 150;

/// The same over a network.
const LONG_OVER_NETWORK: u64 = 90;

/// Seconds in which sessions have lost a server at least once, on average.
const SECONDS_PER_REROUTE: u64 = 3;

/// What a server's memory may have grown by, in bytes: buffers that an allocator keeps. A dozen of the long sessions'
/// KV caches on six blocks are as much.
const GROWTH: u64 = 24 << 20;

/// Connections that may be open beyond those at the start: one to each other member, and what is about to close.
const FILES: usize = 24;

/// One run at a time: the others' load would make this one's servers late.
static TURN: Mutex<()> = Mutex::new(());

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().ok().unwrap_or_else(|| panic!("{name}={value} is no number")))
}

fn chaos(seconds: u64) -> Chaos {
    let logs = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_writer(std::io::stderr);
    // The tests of a run share it.
    let _ = logs.with_ansi(false).try_init();
    let seed = from_environment("SWARM_CHAOS_SEED").unwrap_or(SEED);
    let seconds = from_environment("SWARM_CHAOS_SECONDS").unwrap_or(seconds);
    let chaos = Chaos { seed, length: Duration::from_secs(seconds) };
    eprintln!("repeat this with {chaos}");
    chaos
}

fn check(chaos: Chaos, outcome: &Outcome) {
    eprintln!("{chaos}: {outcome}");
    assert!(outcome.told.iter().all(|telling| telling.texts > 0), "a client has told nothing: {outcome}");
    assert!(outcome.reroutes() as u64 >= chaos.length.as_secs() / SECONDS_PER_REROUTE, "too peaceful: {outcome}");
    for left in &outcome.left {
        assert!(left.memory < left.memory_before + GROWTH, "memory was not given back: {outcome}");
        assert!(left.files < left.files_before + FILES, "connections were not closed: {outcome}");
    }
}

fn on_this_machine(seconds: u64) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let chaos = chaos(seconds);
    check(chaos, &play(&chaos.of_processes(), None));
}

/// Without a network, nothing, except in CI: there must be one.
fn over_a_network(seconds: u64) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match Wan::available() {
        Ok(()) => {}
        Err(why) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => panic!("CI tests the network: {why}"),
        Err(why) => return eprintln!("SKIPPED, since there is no wide-area network here: {why}"),
    }
    let chaos = chaos(seconds);
    let hosts = hosts();
    let wan = Wan::new(&hosts.iter().map(String::as_str).collect::<Vec<_>>(), NEAR).unwrap();
    check(chaos, &play(&chaos.of_networks(), Some(wan)));
}

#[test]
fn texts_survive_chaos_on_one_machine() {
    on_this_machine(SHORT);
}

#[test]
fn texts_survive_chaos_over_a_network() {
    over_a_network(SHORT);
}

#[test]
#[ignore = "takes minutes"]
fn texts_survive_long_chaos_on_one_machine() {
    on_this_machine(LONG);
}

#[test]
#[ignore = "takes minutes"]
fn texts_survive_long_chaos_over_a_network() {
    over_a_network(LONG_OVER_NETWORK);
}
