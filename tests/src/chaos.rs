//! Chaos: servers die, freeze, leave and join, links are cut and slow, all at random moments, while clients tell texts. The
//! moments are drawn from a seed; that the texts are the undisturbed ones, and that nothing is left behind, must hold
//! for every seed.

mod agenda;
mod field;
mod outcome;
mod schedule;
mod state;
mod teller;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use field::Field;
use swarm_client::ClientConfig;
use teller::Crowd;

pub use field::NEAR;
pub use outcome::{Left, Outcome};
pub use schedule::{Host, Identity, Kind, NETWORK_KINDS, Operation, PROCESS_KINDS, Schedule, Slot};
pub use teller::{Line, Telling, Turn, lines};

use crate::wan::Wan;

/// Servers at the start: each block has at least three.
pub const INITIAL: [(u32, u32); 8] = [(0, 4), (4, 8), (8, 12), (0, 4), (4, 8), (8, 12), (0, 6), (6, 12)];

/// Places for servers. Some are free, so that servers can join before others go.
pub const SLOTS: usize = 10;

/// What one run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chaos {
    /// What everything random is drawn from.
    pub seed: u64,
    /// How long new things happen; what was done is undone after that.
    pub length: Duration,
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SWARM_CHAOS_SEED={} SWARM_CHAOS_SECONDS={}", self.seed, self.length.as_secs())
    }
}

impl Chaos {
    /// What happens to processes on this machine's loopback.
    pub fn of_processes(&self) -> Schedule {
        Schedule::draw(self.seed, self.length, &PROCESS_KINDS)
    }

    /// What happens to hosts of a wide-area network, and to the links between them.
    pub fn of_networks(&self) -> Schedule {
        Schedule::draw(self.seed, self.length, &NETWORK_KINDS)
    }
}

/// Lets everything happen to a swarm on this machine, or on hosts of `wan` (see [`hosts`]), while clients tell texts; then
/// checks that every server is as it was before.
///
/// # Panics
/// If something hangs, or is left behind.
pub fn play(schedule: &Schedule, wan: Option<Wan>) -> Outcome {
    let lines = lines();
    let mut field = Field::new(wan);
    let mut crowd = Crowd::gather(&field, Arc::new(lines));
    field.carry_out(schedule, &crowd);
    let told = crowd.hush();
    let left = field.clean_up(crowd);
    Outcome { told, left, counts: schedule.counts() }
}

/// The hosts that [`play`] wants of a wide-area network.
pub fn hosts() -> Vec<String> {
    let servers = (0..SLOTS).map(Host::Server);
    [Host::Entry, Host::Clients].into_iter().chain(servers).map(|host| host.name()).collect()
}

/// How long a session looks for its first servers: at times there is no route for some seconds, and chaos is about texts
/// that go on, not about telling a user soon that there are no servers.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A client with or without standbys, otherwise as by default.
fn client_config(standby: bool) -> ClientConfig {
    ClientConfig { standby, start_patience: START_PATIENCE, ..ClientConfig::default() }
}
