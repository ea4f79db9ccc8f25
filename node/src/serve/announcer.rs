//! Telling the swarm about this server, again and again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::Rng;
use swarm_protocol::announcement::{Announcement, SegmentKey, ServerState, Shard, Statement, segments, shard_bits};
use swarm_protocol::p2p::QueryError;
use swarm_protocol::swarm_view::SwarmView;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::about::{About, Profile};
use super::error::ServeError;
use super::occupancy::Occupancy;
use super::twins::{TwinWatch, Verdict};
use super::view::{Seen, look};

/// How far an interval may deviate, either way: servers started together do not announce together for long.
const JITTER: f64 = 0.1;

/// Voices that a model wants in the directory: its holders keep four, and one may be gone at any time.
const DIRECTORY_VOICES: f64 = 8.0;

/// How long another member may take to show a fresh announcement before somebody is told. A put is done within a second;
/// the rest is for entry points that are only just starting.
const VISIBLE_WITHIN: Duration = Duration::from_secs(20);

/// The pause before an announcement that is not visible yet is put and looked for again; doubles each time.
const VISIBLE_PAUSE: Duration = Duration::from_millis(250);

/// The longest such pause: when entry points come back, the server is ready soon after.
const LONGEST_VISIBLE_PAUSE: Duration = Duration::from_secs(5);

/// The longest that saying good-bye may take; holders forget a silent server anyway.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(4);

/// Announces one server.
pub(super) struct Announcer {
    about: Arc<About>,
    occupancy: Occupancy,
    interval: Duration,
    /// What is announced; `None` until blocks are chosen.
    profile: Option<Profile>,
    shard_bits: u8,
    twins: TwinWatch,
    /// Whether anything was announced that should be taken back.
    spoken: bool,
}

impl Announcer {
    pub(super) fn new(about: Arc<About>, occupancy: Occupancy, interval: Duration) -> Self {
        let twins = TwinWatch::default();
        Self { about, occupancy, interval, profile: None, shard_bits: 0, twins, spoken: false }
    }

    /// From now on announces the load that `occupancy` shows.
    pub(super) fn set_occupancy(&mut self, occupancy: Occupancy) {
        self.occupancy = occupancy;
    }

    /// Looks the model's servers up.
    ///
    /// # Errors
    /// [`ServeError::Twin`] if another live process speaks under this identity.
    pub(super) async fn look(&mut self) -> Result<Seen, ServeError> {
        let about = &self.about;
        let seen = look(&about.network, about.model, about.model_blocks).await;
        about.metrics.known_servers.set(seen.view.all().count() as i64);
        if let Some(own) = seen.view.get(about.network.peer_id()) {
            self.check_own(own.clone())?;
        }
        self.shard_bits = shard_bits(seen.estimated_servers()).max(seen.shard_bits);
        if let Some(profile) = &self.profile {
            self.about.neighbours.look(&seen.view, self.about.network.peer_id(), profile.blocks);
        }
        Ok(seen)
    }

    fn check_own(&mut self, own: Announcement) -> Result<(), ServeError> {
        let last = self.about.sequence.load(Ordering::Relaxed);
        match self.twins.saw(&own, self.about.instance, last) {
            Verdict::Fine => Ok(()),
            Verdict::ContinueAbove(sequence) => {
                info!(sequence, "an earlier process with this identity used a higher sequence; going on above it");
                self.about.continue_above(sequence);
                Ok(())
            }
            Verdict::Twin => Err(ServeError::Twin(self.about.network.peer_id())),
        }
    }

    /// Announces `profile` from now on, and at once.
    pub(super) async fn announce(&mut self, profile: &Profile, state: ServerState) {
        self.profile = Some(profile.clone());
        self.put(state).await;
    }

    /// Puts one announcement under all its keys; returns its sequence.
    async fn put(&mut self, state: ServerState) -> Option<u64> {
        let profile = self.profile.as_ref()?;
        let announcement = self.about.announcement(profile, state, self.occupancy.load());
        let sequence = announcement.sequence;
        let keys = self.keys(profile);
        let statement = Statement::Announcement(announcement);
        let puts = keys.into_iter().map(|key| self.about.network.put(key, &statement));
        for error in futures::future::join_all(puts).await.into_iter().filter_map(Result::err) {
            log(&error);
        }
        self.spoken = true;
        Some(sequence)
    }

    fn keys(&self, profile: &Profile) -> Vec<SegmentKey> {
        let shard = Shard::of(self.about.network.peer_id(), self.shard_bits);
        segments(profile.blocks).map(|segment| SegmentKey::segment(self.about.model, segment, shard)).collect()
    }

    /// Announces `profile` from now on, and at once, instead of what was announced before: whoever finds only the old word
    /// reads that it no longer holds.
    pub(super) async fn announce_instead(&mut self, profile: &Profile, state: ServerState) {
        self.put(ServerState::Leaving).await;
        self.announce(profile, state).await;
    }

    /// Announces again and again; ends only with an error.
    pub(super) async fn keep_announcing(&mut self, state: ServerState) -> ServeError {
        loop {
            if let Err(error) = self.next_round(state).await {
                return error;
            }
        }
    }

    fn pause(&self) -> Duration {
        self.interval.mul_f64(rand::rng().random_range(1.0 - JITTER..1.0 + JITTER))
    }

    /// Waits until it is time to announce again, looks the model's servers up, and announces.
    ///
    /// # Errors
    /// [`ServeError::Twin`] if another live process speaks under this identity.
    pub(super) async fn next_round(&mut self, state: ServerState) -> Result<Seen, ServeError> {
        sleep(self.pause()).await;
        let seen = self.look().await?;
        self.put(state).await;
        if state == ServerState::Serving {
            self.put_in_directory(&seen).await;
        }
        Ok(seen)
    }

    /// A few servers of each model name it in the directory, drawn anew each time.
    pub(super) async fn put_in_directory(&self, seen: &Seen) {
        let servers = f64::from(seen.estimated_servers().max(1));
        if !rand::rng().random_bool((DIRECTORY_VOICES / servers).min(1.0)) {
            return;
        }
        let entry = Statement::Directory(self.about.directory_entry(self.shard_bits));
        if let Err(error) = self.about.network.put(SegmentKey::directory(), &entry).await {
            log(&error);
        }
    }

    /// Announces that sessions are welcome, and waits until this can be read, as long as it takes: from another member if
    /// there are `others`. A loaded server outlives its entry points, which may come back at any time.
    ///
    /// Gives what was read beside it: who else announces these blocks, or some near them, of its own shard.
    ///
    /// # Errors
    /// [`ServeError::Twin`] if another live process speaks under this identity.
    pub(super) async fn announce_serving(&mut self, profile: &Profile, others: bool) -> Result<SwarmView, ServeError> {
        self.profile = Some(profile.clone());
        let mut pause = VISIBLE_PAUSE;
        let mut told = Instant::now();
        loop {
            let seen = self.look().await?;
            let sequence = self.put(ServerState::Serving).await.unwrap_or(0);
            let (missing, view) = self.not_shown(profile, sequence, others).await;
            if missing == 0 {
                self.put_in_directory(&seen).await;
                return Ok(view);
            }
            if told.elapsed() >= VISIBLE_WITHIN {
                told = Instant::now();
                warn!(
                    missing,
                    "no other member of the swarm shows this server's announcement yet; announcing goes on, check that \
                     the bootstrap peers run and can be reached"
                );
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_VISIBLE_PAUSE);
        }
    }

    /// How many of the announcement's records no member shows, and what stands under the same keys.
    async fn not_shown(&self, profile: &Profile, sequence: u64, others: bool) -> (usize, SwarmView) {
        let own = |statement: &Statement| {
            statement.peer() == self.about.network.peer_id() && statement.sequence() >= sequence
        };
        let mut missing = 0;
        let mut view = SwarmView::new(self.about.model);
        for key in self.keys(profile) {
            let found = self.about.network.get(key).await.unwrap_or_default();
            let holders: BTreeSet<_> =
                found.iter().filter(|found| found.statements.iter().any(own)).map(|found| found.holder).collect();
            let shown = holders.iter().any(|holder| holder.is_some() || !others);
            missing += usize::from(!shown);
            for statement in found.into_iter().flat_map(|found| found.statements) {
                if let Statement::Announcement(announcement) = statement {
                    view.insert(announcement);
                }
            }
        }
        (missing, view)
    }

    /// Stops keeping records for the swarm, for good.
    pub(super) async fn retire(&self) {
        self.about.network.retire().await;
    }

    /// Tells the swarm that this server is on its way out, if it ever knew of it.
    pub(super) async fn say_goodbye(&mut self) {
        if self.spoken && timeout(GOODBYE_TIMEOUT, self.put(ServerState::Leaving)).await.is_err() {
            debug!("saying good-bye took too long");
        }
    }
}

fn log(error: &QueryError) {
    match error {
        // The first member of a swarm has nobody to tell; its own store answers whoever comes.
        QueryError::NoPeers(_) => debug!(%error, "an announcement reached no other member"),
        _ => warn!(%error, "an announcement was not stored"),
    }
}
