//! A soak: crowds of sessions of random lengths come, go back, lose interest and vanish, while servers die and return. Every
//! text that is told to its end is the undisturbed one, all room comes back, to the token, and memory does not grow.

mod crowd;
mod house;
mod plan;
mod stories;

use std::fmt;
use std::sync::Arc;

use crowd::Crowd;
use house::House;

pub use house::Tenant;
pub use plan::{Ending, Kind, Kinds, Plan, Rows, Script, Text, kinds};
pub use stories::{STORIES, Stories, Story};

/// What one run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Soak {
    /// What everything random is drawn from.
    pub seed: u64,
    /// How often the same crowd comes.
    pub rounds: usize,
}

/// What a run came to; all texts were right, no session failed, and all room was free after every round.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Texts told to their end.
    pub texts: usize,
    /// Sessions that were left in the middle of a step, with or without their whole client.
    pub left: usize,
    /// How often a session has replaced a server.
    pub reroutes: usize,
    /// Servers that were killed and came back.
    pub kills: usize,
    /// Positions that sessions have taken of the KV caches, all of them together.
    pub positions: usize,
    /// Each server that was there all the time.
    pub tenants: Vec<Tenant>,
}

impl fmt::Display for Soak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SWARM_SOAK_SEED={} SWARM_SOAK_ROUNDS={}", self.seed, self.rounds)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { texts, left, reroutes, kills, positions, tenants } = self;
        writeln!(f, "{texts} texts, {left} sessions left, {reroutes} reroutes, {kills} kills, {positions} positions")?;
        tenants.iter().try_for_each(|tenant| writeln!(f, "{tenant}"))
    }
}

/// Lets the crowd come `rounds` times, and looks at every server when it has gone.
///
/// # Panics
/// If a text differs, a session fails or hangs, or room does not come back.
pub fn play(soak: Soak) -> Outcome {
    let stories = Arc::new(Stories::tell(soak.seed));
    let plan = Plan::draw(soak.seed, &stories);
    let mut house = House::open();
    let crowd = Crowd::gather(&house, stories);
    let mut outcome = Outcome { positions: plan.positions() * soak.rounds, ..Outcome::default() };
    for round in 0..soak.rounds {
        let visit = crowd.visit(&house, &plan);
        outcome.kills += house.trouble(&plan, visit.progress(), |server| crowd.load(server));
        let seen = crowd.await_end(visit);
        outcome.texts += seen.texts;
        outcome.left += seen.left;
        outcome.reroutes += seen.reroutes;
        house.await_free(|server| crowd.load(server));
        house.weigh();
        eprintln!("round {round}: {seen:?}");
    }
    crowd.go();
    outcome.tenants = house.close();
    outcome
}
