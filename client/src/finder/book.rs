//! What a client knows of the servers of one model, and which of them it would use now. Pure: the caller brings the time
//! and the randomness.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rand::Rng;
use swarm_protocol::PeerId;
use swarm_protocol::announcement::{Announcement, ServerState};
use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::model_id::{BlockDigest, NumericClass};
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{EdgesOffer, ServerInfo};

use super::apart::Apart;
use super::kept::KeptPages;
use super::plan::Need;
use super::presence::SHARE;
use crate::route::Candidate;

/// The pause before a server that failed is tried again; doubles with each failure.
const FIRST_AVOIDANCE: Duration = Duration::from_secs(1);

/// The longest such pause.
const LONGEST_AVOIDANCE: Duration = Duration::from_secs(60);

/// How long a server counts as there after it was last heard: several announcements.
const HEARD_WITHIN: Duration = Duration::from_secs(180);

/// How long a server that is no longer heard is remembered.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Weight of a new measurement against what was known: a few steps settle it, one outlier does not.
const SMOOTHING: f64 = 0.2;

/// What a server did.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It could not be reached, broke off, or was silent.
    Failed {
        /// What happened.
        reason: String,
    },
    /// It has no room until then.
    Full {
        /// When to ask again.
        retry_after: Duration,
        /// What it has left.
        free: TokenCount,
    },
    /// It says it will be gone soon.
    Leaving,
    /// It opened a session.
    Opened,
    /// It chose a token.
    Chose {
        /// From the question to the answer.
        took: Duration,
    },
    /// It computed a decode step.
    Stepped {
        /// Waiting and computing, for one block.
        block_time: Duration,
        /// The rest: the way there and back.
        rtt: Duration,
    },
}

/// One server as the client knows it.
#[derive(Debug, Clone)]
pub struct Known {
    /// What it last said of itself.
    pub announcement: Announcement,
    /// blake3 of each of its blocks.
    pub digests: Vec<BlockDigest>,
    /// The longest sequence its model takes.
    pub max_positions: u32,
    /// Round-trip time, smoothed.
    pub rtt: Duration,
    /// When it last answered this client.
    pub heard: Instant,
    /// A decode step through one block as measured by this client, smoothed; beats what the server says.
    pub measured_block_time: Option<Duration>,
    /// The embedding and head that it offers.
    pub edges: Option<EdgesOffer>,
    /// The choice of a token by it, there and back, as measured by this client, smoothed.
    pub measured_choice: Option<Duration>,
    failures: u32,
    avoid_until: Option<Instant>,
    last_failure: Option<String>,
    full_until: Option<Instant>,
}

impl Known {
    pub(super) fn usable(&self, now: Instant) -> bool {
        self.announcement.state == ServerState::Serving
            && self.avoid_until.is_none_or(|until| until <= now)
            && now.saturating_duration_since(self.heard) < HEARD_WITHIN
    }

    fn has_room(&self, tokens: TokenCount, now: Instant) -> bool {
        self.full_until.is_none_or(|until| until <= now) && self.announcement.load.free_tokens >= tokens
    }

    fn digest(&self, block: BlockIndex) -> Option<BlockDigest> {
        let offset = block.0.checked_sub(self.announcement.blocks.start())?;
        self.digests.get(offset as usize).copied()
    }

    /// Why it is not used now, if it is not.
    fn exclusion(&self, class: Option<&NumericClass>, now: Instant) -> Option<String> {
        if self.announcement.state != ServerState::Serving {
            return Some("it is on its way in or out".to_string());
        }
        if class.is_some_and(|class| self.announcement.class != *class) {
            return Some(format!("it computes in numeric class {}", self.announcement.class));
        }
        if !self.usable(now) {
            return Some(self.last_failure.clone().unwrap_or_else(|| "it was not heard for some time".to_string()));
        }
        Some("its weights are not those of the others".to_string())
    }

    /// With `ours` sessions of this client there already, and what it saves each step.
    fn candidate(&self, ours: u32, saving: Duration) -> Candidate {
        let announced = Duration::from_micros(self.announcement.rates.decode_us_per_block.into());
        let block_time = self.measured_block_time.unwrap_or(announced);
        let blocks = self.announcement.blocks.len();
        let queue = Duration::from_micros(self.announcement.load.queue_us.into()) + block_time * blocks * ours / SHARE;
        // What waiting does not make up for, computing does.
        let block_time = block_time.saturating_sub(saving.saturating_sub(queue) / blocks);
        Candidate {
            peer: self.announcement.peer,
            blocks: self.announcement.blocks,
            rtt: self.rtt,
            queue: queue.saturating_sub(saving),
            block_time,
        }
    }
}

/// A server that is announced but has never answered.
#[derive(Debug)]
struct Stranger {
    blocks: BlockRange,
    failures: u32,
    avoid_until: Instant,
    last_failure: String,
}

/// All servers of one model that this client has met, and failures of those it has not.
#[derive(Debug, Default)]
pub struct PeerBook {
    peers: BTreeMap<PeerId, Known>,
    strangers: HashMap<PeerId, Stranger>,
    /// Who cannot reach whom.
    pub(super) apart: Apart,
    /// How many hops of this client's sessions each server computes.
    pub(super) ours: HashMap<PeerId, u32>,
    /// What they keep of texts.
    pub(super) kept: KeptPages,
}

impl PeerBook {
    /// Every server met, in the order of their ids.
    pub fn known(&self) -> impl Iterator<Item = &Known> {
        self.peers.values()
    }

    /// One server.
    pub fn get(&self, peer: PeerId) -> Option<&Known> {
        self.peers.get(&peer)
    }

    /// A server answered a probe: whatever it did before, it is there.
    pub fn probed(&mut self, info: ServerInfo, rtt: Duration, now: Instant) {
        let peer = info.announcement.peer;
        self.strangers.remove(&peer);
        let before = self.peers.remove(&peer);
        let rtt = before.as_ref().map_or(rtt, |known| smoothed(known.rtt, rtt));
        let known = Known {
            announcement: info.announcement,
            digests: info.digests,
            max_positions: info.max_positions,
            rtt,
            heard: now,
            measured_block_time: before.as_ref().and_then(|known| known.measured_block_time),
            edges: info.edges,
            measured_choice: before.as_ref().and_then(|known| known.measured_choice),
            failures: before.as_ref().map_or(0, |known| known.failures),
            avoid_until: None,
            last_failure: None,
            full_until: before.and_then(|known| known.full_until).filter(|until| *until > now),
        };
        self.peers.insert(peer, known);
    }

    /// An announced server did not answer a probe.
    pub fn probe_failed(&mut self, announced: &Announcement, reason: String, now: Instant, rng: &mut impl Rng) {
        if self.peers.contains_key(&announced.peer) {
            self.report(announced.peer, &Outcome::Failed { reason }, now, rng);
            return;
        }
        let failures = self.strangers.get(&announced.peer).map_or(0, |stranger| stranger.failures);
        let stranger = Stranger {
            blocks: announced.blocks,
            failures: failures + 1,
            avoid_until: now + avoidance(failures, rng),
            last_failure: reason,
        };
        self.strangers.insert(announced.peer, stranger);
    }

    /// Forgets a server: it serves something else now.
    pub fn forget(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
        self.strangers.remove(&peer);
    }

    /// Forgets servers that have not been heard for long.
    pub fn forget_silent(&mut self, now: Instant) {
        self.peers.retain(|_, known| now.saturating_duration_since(known.heard) < REMEMBERED);
        self.strangers.retain(|_, stranger| now.saturating_duration_since(stranger.avoid_until) < REMEMBERED);
    }

    /// The servers that are being left alone.
    pub fn avoided(&self, now: Instant) -> impl Iterator<Item = PeerId> {
        let known = self.peers.values().filter(move |known| known.avoid_until.is_some_and(|until| until > now));
        let strangers = self.strangers.iter().filter(move |(_, stranger)| stranger.avoid_until > now);
        known.map(|known| known.announcement.peer).chain(strangers.map(|(peer, _)| *peer))
    }

    /// Takes in what `peer` did.
    pub fn report(&mut self, peer: PeerId, outcome: &Outcome, now: Instant, rng: &mut impl Rng) {
        let Some(known) = self.peers.get_mut(&peer) else {
            return;
        };
        match outcome {
            Outcome::Failed { reason } => {
                // Several sessions report one and the same death.
                if known.avoid_until.is_none_or(|until| until <= now) {
                    known.avoid_until = Some(now + avoidance(known.failures, rng));
                    known.failures += 1;
                }
                known.last_failure = Some(reason.clone());
            }
            Outcome::Full { retry_after, free } => {
                known.full_until = Some(now + *retry_after);
                known.announcement.load.free_tokens = *free;
            }
            Outcome::Leaving => known.announcement.state = ServerState::Leaving,
            Outcome::Opened => known.heard = now,
            Outcome::Chose { took } => {
                known.heard = now;
                known.failures = 0;
                known.measured_choice = Some(known.measured_choice.map_or(*took, |before| smoothed(before, *took)));
            }
            Outcome::Stepped { block_time, rtt } => {
                known.heard = now;
                known.failures = 0;
                let before = known.measured_block_time.unwrap_or(*block_time);
                known.measured_block_time = Some(smoothed(before, *block_time));
                known.rtt = smoothed(known.rtt, *rtt);
            }
        }
    }

    /// The numeric classes that usable servers compute in.
    pub fn classes(&self, now: Instant) -> Vec<NumericClass> {
        let mut classes: Vec<NumericClass> = self
            .peers
            .values()
            .filter(|known| known.usable(now))
            .map(|known| known.announcement.class.clone())
            .collect();
        classes.sort();
        classes.dedup();
        classes
    }

    /// The servers of `class`, or of any, that a session with that need can use: up, not avoided, and agreeing with each other on
    /// what their blocks hold. Those without room are left out if `with_room`.
    pub fn candidates(
        &self,
        need: &Need,
        class: Option<&NumericClass>,
        with_room: bool,
        now: Instant,
    ) -> Vec<Candidate> {
        let of_class = |known: &Known| class.is_none_or(|class| known.announcement.class == *class);
        let usable: Vec<&Known> = self.peers.values().filter(|known| known.usable(now) && of_class(known)).collect();
        let agreed = agreed_digests(&usable, need);
        let genuine = |known: &&&Known| {
            known.announcement.blocks.blocks().all(|block| match (known.digest(block), agreed.get(&block)) {
                (Some(digest), Some(agreed)) => digest == *agreed,
                (Some(_), None) => true,
                (None, _) => false,
            })
        };
        usable
            .iter()
            .filter(genuine)
            .filter(|known| !need.avoid.contains(&known.announcement.peer))
            .filter(|known| !with_room || known.has_room(need.tokens, now))
            .map(|known| {
                let ours = self.ours.get(&known.announcement.peer).copied().unwrap_or(0);
                known.candidate(ours, self.saving(known, need))
            })
            .collect()
    }

    /// What a server saves each step by what it keeps of the session's beginning.
    fn saving(&self, known: &Known, need: &Need) -> Duration {
        let Announcement { peer, blocks, rates, .. } = &known.announcement;
        let computed = blocks.intersection(need.range).map_or(0, BlockRange::len);
        let token = Duration::from_nanos(rates.prefill_ns_per_token_block.into()) * computed;
        need.expected.as_ref().map_or(Duration::ZERO, |expected| self.kept.saving(*peer, expected, token))
    }

    /// The round trips that servers have measured to one another.
    pub fn round_trips_between_servers(&self) -> HashMap<(PeerId, PeerId), Duration> {
        let told = self.peers.values().flat_map(|known| {
            let from = known.announcement.peer;
            known
                .announcement
                .neighbours
                .iter()
                .map(move |(to, micros)| ((from, *to), Duration::from_micros((*micros).into())))
        });
        told.collect()
    }

    /// The digests of the blocks in `range` on `peer`.
    pub fn digests(&self, peer: PeerId, range: BlockRange) -> Vec<(BlockIndex, BlockDigest)> {
        let known = self.peers.get(&peer);
        range.blocks().filter_map(|block| Some((block, known?.digest(block)?))).collect()
    }

    /// Why servers of some of `range` are not used now, for people; empty if nobody serves any of it.
    pub fn exclusions(&self, range: BlockRange, class: Option<&NumericClass>, now: Instant) -> Vec<String> {
        let concerns = |blocks: BlockRange| blocks.intersection(range).is_some();
        let known = self.peers.values().filter(|known| concerns(known.announcement.blocks));
        let known = known.filter_map(|known| Some((known.announcement.peer, known.exclusion(class, now)?)));
        let strangers = self.strangers.iter().filter(|(_, stranger)| concerns(stranger.blocks));
        let strangers = strangers.map(|(peer, stranger)| (*peer, stranger.last_failure.clone()));
        known.chain(strangers).map(|(peer, reason)| format!("..{}: {reason}", tail(peer))).collect()
    }

    /// The most room that any usable server of some of `range` has left.
    pub fn largest_room(&self, range: BlockRange, now: Instant) -> Option<TokenCount> {
        let hosts = |known: &&Known| known.usable(now) && known.announcement.blocks.intersection(range).is_some();
        self.peers.values().filter(hosts).map(|known| known.announcement.load.free_tokens).max()
    }
}

/// For each block the digest that most of the servers hold, the smallest where equally many do; what the session has
/// already built on stands firm.
fn agreed_digests(servers: &[&Known], need: &Need) -> BTreeMap<BlockIndex, BlockDigest> {
    let mut votes: BTreeMap<BlockIndex, BTreeMap<BlockDigest, usize>> = BTreeMap::new();
    for known in servers {
        for (block, digest) in known.announcement.blocks.blocks().zip(&known.digests) {
            *votes.entry(block).or_default().entry(*digest).or_default() += 1;
        }
    }
    let winner = |(block, digests): (BlockIndex, BTreeMap<BlockDigest, usize>)| {
        let firm = need.digests.get(&block).copied();
        // Of equal counts `max_by_key` takes the last: walk from the largest digest to the smallest.
        let most = digests.into_iter().rev().max_by_key(|(_, count)| *count).map(|(digest, _)| digest);
        firm.or(most).map(|digest| (block, digest))
    };
    votes.into_iter().filter_map(winner).collect()
}

fn avoidance(failures: u32, rng: &mut impl Rng) -> Duration {
    let pause = (FIRST_AVOIDANCE * 2u32.saturating_pow(failures.min(16))).min(LONGEST_AVOIDANCE);
    pause.mul_f64(rng.random_range(0.75..1.25))
}

/// The end of a peer id, which tells it from others: ed25519 ids all begin alike.
fn tail(peer: PeerId) -> String {
    const SHOWN: usize = 8;
    let id = peer.to_string();
    id.chars().skip(id.len().saturating_sub(SHOWN)).collect()
}

fn smoothed(before: Duration, new: Duration) -> Duration {
    before.mul_f64(1.0 - SMOOTHING) + new.mul_f64(SMOOTHING)
}
