//! How long a peer may be silent before it counts as gone, following what was measured of it.
//!
//! A peer that computes answers pings, so silence and slowness are told apart: [`Liveness`] bounds the wait for an
//! answer to a ping, [`progress_deadline`] the wait for a step of a peer that does answer pings.
//!
//! Pure: who drives it reads the clock.

use std::time::Duration;

/// The shortest silence that is held against a peer: a busy two-core machine answers a ping late by hundreds of
/// milliseconds, though its usual answer takes one.
pub const FLOOR: Duration = Duration::from_secs(1);

/// The longest silence that is waited for when nothing large is under way: nobody at a prompt waits longer for a peer
/// that is most likely gone, and the slowest links answer a ping within it.
pub const CEILING: Duration = Duration::from_secs(10);

/// The silence allowed before the first answer: room for a lost packet and its second try, over a slow link.
pub const INITIAL: Duration = Duration::from_secs(3);

/// The rate of a link that was not measured yet, in bytes a second: the slowest that running a model over makes sense.
pub const UNMEASURED_RATE: f64 = 64.0 * 1024.0;

/// How many times slower than measured a link may become before what travels over it counts as lost.
pub const RATE_MARGIN: f64 = 4.0;

/// Transfers of fewer bytes say nothing of the rate: they measure the round trip.
pub const SMALLEST_TRANSFER: usize = 64 * 1024;

/// Weight of a new answer in the smoothed time (RFC 6298, alpha).
const TIME_GAIN: f64 = 1.0 / 8.0;

/// Weight of a new answer in the mean deviation (RFC 6298, beta).
const DEVIATION_GAIN: f64 = 1.0 / 4.0;

/// Mean deviations above the smoothed time that an answer may take (RFC 6298, K).
const DEVIATIONS: f64 = 4.0;

/// The mean deviation is taken for at least this part of the smoothed time: an even run of answers says little of the
/// next, so the wait is never less than twice the usual time.
const LEAST_DEVIATION: f64 = 1.0 / DEVIATIONS;

/// Weight of a new transfer in the pace: links change slowly, but a few chunks of one prompt should be enough to notice.
const PACE_GAIN: f64 = 1.0 / 4.0;

/// The slowest pace believed, in seconds a byte: a slower transfer was stuck, and must not make the next wait endless.
const SLOWEST_PACE: f64 = 1.0 / UNMEASURED_RATE;

/// The shortest wait for a step: queues and a first touch of cold weights delay also steps of a few milliseconds.
pub const STEP_FLOOR: Duration = Duration::from_secs(10);

/// The longest wait for a step, whatever it was expected to take: a person gives up about then.
pub const STEP_CEILING: Duration = Duration::from_secs(120);

/// How many times longer than expected a step may take: on a server that became busy it shares the processors with
/// sessions that were not there when the rate was measured.
pub const STEP_MARGIN: u32 = 20;

/// What was measured of one peer's answers and of the link to it.
///
/// The wait follows RFC 6298: the smoothed time of an answer plus four mean deviations, within [`FLOOR`] and
/// [`CEILING`]. To it comes the time that bytes under way may take, since an answer queues behind them.
#[derive(Debug, Clone, Default)]
pub struct Liveness {
    answer: Option<Answer>,
    /// Smoothed seconds a byte: the mean of times, unlike that of rates, follows a link that gets slower at once.
    pace: Option<f64>,
}

/// Seconds from asking to hearing.
#[derive(Debug, Clone, Copy)]
struct Answer {
    smoothed: f64,
    deviation: f64,
}

impl Answer {
    fn wait(&self) -> Duration {
        let deviation = self.deviation.max(LEAST_DEVIATION * self.smoothed);
        seconds(self.smoothed + DEVIATIONS * deviation)
    }
}

impl Liveness {
    /// Nothing measured yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the time from asking to hearing. One longer than [`CEILING`] counts as that: an answer that came after
    /// all says that the peer lives, and should not lengthen many later waits.
    pub fn observe(&mut self, answer: Duration) {
        let seconds = answer.min(CEILING).as_secs_f64();
        self.answer = Some(match self.answer {
            None => Answer { smoothed: seconds, deviation: seconds / 2.0 },
            Some(Answer { smoothed, deviation }) => Answer {
                smoothed: mix(smoothed, seconds, TIME_GAIN),
                deviation: mix(deviation, (smoothed - seconds).abs(), DEVIATION_GAIN),
            },
        });
    }

    /// Takes in that `bytes` reached the peer, or came from it, within `took`. Transfers below [`SMALLEST_TRANSFER`]
    /// change nothing.
    pub fn observe_transfer(&mut self, bytes: usize, took: Duration) {
        if bytes < SMALLEST_TRANSFER {
            return;
        }
        let pace = (took.as_secs_f64() / bytes as f64).min(SLOWEST_PACE);
        self.pace = Some(self.pace.map_or(pace, |known| mix(known, pace, PACE_GAIN)));
    }

    /// How long the peer may be silent while it owes an answer and `bytes_under_way` bytes, in both directions, share
    /// the link with it. Counted from asking, or from the last byte heard if that was later.
    pub fn deadline(&self, bytes_under_way: usize) -> Duration {
        let wait = self.answer.map_or(INITIAL, |answer| answer.wait().clamp(FLOOR, CEILING));
        wait.saturating_add(self.transfer_time(bytes_under_way))
    }

    /// How long `bytes` may take: at [`UNMEASURED_RATE`], or [`RATE_MARGIN`] times what was measured.
    fn transfer_time(&self, bytes: usize) -> Duration {
        let pace = self.pace.map_or(1.0 / UNMEASURED_RATE, |pace| RATE_MARGIN * pace);
        seconds(bytes as f64 * pace)
    }
}

/// How long a peer that answers pings may take for a step which, by what was measured of it, takes `expected`.
pub fn progress_deadline(expected: Duration) -> Duration {
    expected.saturating_mul(STEP_MARGIN).clamp(STEP_FLOOR, STEP_CEILING)
}

/// The exponentially weighted mean after one more value.
fn mix(known: f64, new: f64, gain: f64) -> f64 {
    known + gain * (new - known)
}

/// Seconds as a duration; those too many for one are the longest there is.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A peer that answered `count` times after `each`.
    fn answered(count: usize, each: Duration) -> Liveness {
        let mut peer = Liveness::new();
        (0..count).for_each(|_| peer.observe(each));
        peer
    }

    #[test]
    fn an_unknown_peer_has_the_initial_time() {
        assert_eq!(Liveness::new().deadline(0), INITIAL);
    }

    #[test]
    fn the_first_answer_counts_as_rfc_6298_says() {
        assert_eq!(answered(1, millis(600)).deadline(0), millis(600 + 4 * 300));
    }

    #[test]
    fn a_fast_peer_has_the_floor() {
        assert_eq!(answered(1, millis(1)).deadline(0), FLOOR);
        assert_eq!(answered(100, Duration::ZERO).deadline(0), FLOOR);
    }

    #[test]
    fn no_answer_however_late_lifts_it_over_the_ceiling() {
        assert_eq!(answered(1, Duration::MAX).deadline(0), CEILING);
        assert_eq!(answered(100, Duration::from_secs(60)).deadline(0), CEILING);
    }

    #[test]
    fn it_follows_a_peer_that_gets_slower() {
        let mut peer = answered(50, millis(2));
        for round in 0..40 {
            let late = millis(if round % 2 == 0 { 800 } else { 950 });
            assert!(late < peer.deadline(0), "round {round}: {:?}", peer.deadline(0));
            peer.observe(late);
            assert!(round == 0 || peer.deadline(0) > millis(1500), "round {round}: {:?}", peer.deadline(0));
        }
        assert!(peer.deadline(0) < millis(2000), "{:?}", peer.deadline(0));
    }

    #[test]
    fn a_slow_peer_as_regular_as_a_clock_has_room_above_the_floor() {
        assert_eq!(answered(200, millis(800)).deadline(0), millis(1600));
    }

    #[test]
    fn an_outlier_is_forgotten() {
        let mut peer = answered(50, millis(20));
        peer.observe(Duration::from_secs(3600));
        assert_eq!(peer.deadline(0), CEILING);
        let mut waits = Vec::new();
        while peer.deadline(0) > FLOOR {
            peer.observe(millis(20));
            waits.push(peer.deadline(0));
            assert!(waits.len() <= 25, "{waits:?}");
        }
    }

    #[test]
    fn bytes_under_way_have_their_time() {
        let peer = answered(50, millis(1));
        assert_eq!(peer.deadline(64 * 1024), FLOOR + Duration::from_secs(1));
        assert_eq!(Liveness::new().deadline(64 * 1024), INITIAL + Duration::from_secs(1));
        assert_eq!(peer.deadline(usize::MAX).max(CEILING), peer.deadline(usize::MAX));
    }

    #[test]
    fn a_link_may_become_four_times_slower() {
        let mut peer = answered(50, millis(1));
        peer.observe_transfer(MIB, Duration::from_secs(1));
        assert_eq!(peer.deadline(3 * MIB), FLOOR + Duration::from_secs(12));
        (0..20).for_each(|_| peer.observe_transfer(MIB, Duration::from_secs(4)));
        let wait = peer.deadline(MIB) - FLOOR;
        assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(16), "{wait:?}");
    }

    #[test]
    fn small_transfers_say_nothing_of_the_rate() {
        let mut peer = Liveness::new();
        peer.observe_transfer(0, Duration::from_secs(1));
        peer.observe_transfer(SMALLEST_TRANSFER - 1, millis(1));
        assert_eq!(peer.deadline(MIB), Liveness::new().deadline(MIB));
    }

    #[test]
    fn a_stuck_transfer_is_no_licence_to_be_silent() {
        let mut peer = Liveness::new();
        peer.observe_transfer(MIB, Duration::MAX);
        assert_eq!(peer.deadline(MIB), INITIAL + Duration::from_secs(4 * 16));
        (0..30).for_each(|_| peer.observe_transfer(MIB, millis(10)));
        assert!(peer.deadline(MIB) < INITIAL + millis(100), "{:?}", peer.deadline(MIB));
    }

    #[test]
    fn a_step_has_twenty_times_what_it_should_take() {
        assert_eq!(progress_deadline(Duration::ZERO), STEP_FLOOR);
        assert_eq!(progress_deadline(millis(499)), STEP_FLOOR);
        assert_eq!(progress_deadline(Duration::from_secs(2)), Duration::from_secs(40));
        assert_eq!(progress_deadline(Duration::from_secs(7)), STEP_CEILING);
        assert_eq!(progress_deadline(Duration::MAX), STEP_CEILING);
    }

    proptest! {
        #[test]
        fn whatever_was_measured_it_stays_within_bounds(
            answers in prop::collection::vec(any::<Duration>(), 0..20),
            transfers in prop::collection::vec((any::<usize>(), any::<Duration>()), 0..20),
            bytes in any::<usize>(),
        ) {
            let mut peer = Liveness::new();
            answers.into_iter().for_each(|answer| peer.observe(answer));
            transfers.into_iter().for_each(|(bytes, took)| peer.observe_transfer(bytes, took));
            prop_assert!((FLOOR..=CEILING).contains(&peer.deadline(0)));
            prop_assert!(peer.deadline(bytes) >= peer.deadline(0));
        }
    }
}
