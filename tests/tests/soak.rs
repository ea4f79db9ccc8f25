//! Thirty-two sessions at once, again and again, while servers are killed: every text is the undisturbed one, no session is
//! lost, all KV room comes back, to the token, and memory does not grow.
//!
//! `SWARM_SOAK_SEED` repeats a run, `SWARM_SOAK_ROUNDS` says how often the crowd comes. `RUST_LOG` is heeded by clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

use swarm_tests::soak::{Soak, Tenant, play};
use tracing_subscriber::EnvFilter;

/// Rounds in everyday tests: caches and tables have their size after two, and two more show what is left behind.
const SHORT: usize = 4;

/// Rounds of the slow test: minutes.
const LONG: usize = 40;

/// The crowd that a run without a wish gets; others come with `SWARM_SOAK_SEED=$RANDOM`.
const SEED: u64 = 1;

/// Rounds after which memory must not grow: each kind of session has come, gone and vanished then, and servers have died.
const WARM_UP: usize = 2;

/// What a server's anonymous memory may grow by all the same, in bytes: what an allocator keeps of a crowd that met in another
/// order. A fraction of the KV that the sessions of two rounds fill.
const GROWTH: u64 = 8 << 20;

/// The same for each further round, in bytes: well below the KV of one session.
const GROWTH_PER_ROUND: u64 = 64 << 10;

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().ok().unwrap_or_else(|| panic!("{name}={value} is no number")))
}

fn soak(rounds: usize) {
    let logs = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_writer(std::io::stderr);
    // The tests of a run share it.
    let _ = logs.with_ansi(false).try_init();
    let seed = from_environment("SWARM_SOAK_SEED").unwrap_or(SEED);
    let soak = Soak { seed, rounds: from_environment("SWARM_SOAK_ROUNDS").unwrap_or(rounds) };
    eprintln!("repeat this with {soak}");
    let outcome = play(soak);
    eprintln!("{soak}: {outcome}");
    assert!(outcome.texts > 0 && outcome.left > 0, "nobody came: {outcome}");
    assert!(outcome.reroutes >= soak.rounds, "no session has lost a server: {outcome}");
    outcome.tenants.iter().for_each(flat);
}

/// The first weight is that of a server that has served nobody.
fn flat(tenant: &Tenant) {
    let after = &tenant.memory[1..];
    let Some((warm, later)) = after.get(WARM_UP - 1).zip(after.get(WARM_UP..)) else { return };
    for (round, memory) in later.iter().enumerate() {
        let most = warm + tenant.keeps + GROWTH + GROWTH_PER_ROUND * (round as u64 + 1);
        assert!(*memory <= most, "memory grows: {tenant}");
    }
}

#[test]
fn nothing_is_lost_and_nothing_left_behind_by_a_crowd() {
    soak(SHORT);
}

#[test]
#[ignore = "takes minutes"]
fn nothing_is_lost_and_nothing_left_behind_by_many_crowds() {
    soak(LONG);
}
