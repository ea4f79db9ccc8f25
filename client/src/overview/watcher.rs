//! Looking again and again, for as many listeners as there are: one task owns what was seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::compare::compare;
use super::look::Lookout;
use super::observation::Observation;
use super::timeline::Timeline;
use super::types::SwarmOverview;

/// The pause between two looks while somebody listens: about what a person follows.
const LISTENED_TO: Duration = Duration::from_secs(2);

/// What each server adds to it: a swarm of 200 servers is then asked every twelve seconds, some fifteen of them a second.
const PER_SERVER: Duration = Duration::from_millis(50);

/// The pause while nobody listens: often enough for a time-line that says when something happened.
const UNHEARD: Duration = Duration::from_secs(30);

/// How old a look may be for whoever asks once.
const FRESH: Duration = Duration::from_secs(1);

/// Questions that wait for a look; one look answers all of them.
const QUESTIONS: usize = 64;

/// Listeners at once: each is a connection that gets everything.
const MOST_LISTENERS: usize = 256;

/// What was seen last.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The swarm now.
    pub overview: Arc<SwarmOverview>,
    /// What has happened.
    pub timeline: Timeline,
    /// No member answered this time: the swarm is shown as it was seen before, its servers silent.
    pub cut_off: bool,
}

/// A swarm that is watched. Handles are cheap; the watching ends with [`Watcher::stop`], or with the last of them.
#[derive(Debug, Clone)]
pub struct Watcher {
    questions: mpsc::Sender<Question>,
    seen: watch::Receiver<Option<Arc<Seen>>>,
    stop: Arc<watch::Sender<bool>>,
    listeners: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Question {
    /// What does it look like now?
    Now(oneshot::Sender<Arc<Seen>>),
    /// Somebody listens from now on.
    Listens,
}

impl Watcher {
    /// Begins to watch what `lookout` sees.
    pub fn start(lookout: Lookout) -> Self {
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let (sender, seen) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let listeners = Arc::new(AtomicUsize::new(0));
        let task = Task { lookout, last: None, sender, listeners: listeners.clone() };
        tokio::spawn(task.run(asked, stopped));
        Self { questions, seen, stop: Arc::new(stop), listeners }
    }

    /// What the swarm looks like, at most a second ago; `None` if the watching has ended.
    pub async fn now(&self) -> Option<Arc<Seen>> {
        let (reply, answer) = oneshot::channel();
        self.questions.send(Question::Now(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Hears of every look from now on, beginning with the last; `None` if there are as many listeners as may be.
    pub fn listen(&self) -> Option<Listener> {
        let place = Place::take(&self.listeners)?;
        // A queue full of questions wakes the task as well.
        let _ = self.questions.try_send(Question::Listens);
        let mut seen = self.seen.clone();
        seen.mark_changed();
        Some(Listener { seen, _place: place })
    }

    /// Ends the watching, and with it what listeners hear.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

/// Hears of every look; of several at once only the last.
#[derive(Debug)]
pub struct Listener {
    seen: watch::Receiver<Option<Arc<Seen>>>,
    _place: Place,
}

impl Listener {
    /// The next look; `None` when the watching has ended.
    pub async fn next(&mut self) -> Option<Arc<Seen>> {
        loop {
            self.seen.changed().await.ok()?;
            let seen = self.seen.borrow_and_update().clone();
            if seen.is_some() {
                return seen;
            }
        }
    }
}

/// One of the listeners that there may be.
#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(listeners: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |count: usize| (count < MOST_LISTENERS).then_some(count + 1);
        listeners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(listeners.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What was seen last, and when.
struct Last {
    observation: Observation,
    seen: Arc<Seen>,
    at: Instant,
}

struct Task {
    lookout: Lookout,
    last: Option<Last>,
    sender: watch::Sender<Option<Arc<Seen>>>,
    listeners: Arc<AtomicUsize>,
}

impl Task {
    async fn run(mut self, mut questions: mpsc::Receiver<Question>, mut stopped: watch::Receiver<bool>) {
        let watching = async {
            self.look().await;
            loop {
                let next = self.next_look();
                tokio::select! {
                    question = questions.recv() => match question {
                        Some(Question::Now(reply)) => self.answer(reply).await,
                        // The pause is another one now.
                        Some(Question::Listens) => {}
                        None => return,
                    },
                    () = sleep_until(next) => self.look().await,
                }
            }
        };
        tokio::select! {
            () = watching => {}
            // Whoever could stop it is gone as well if this fails.
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    }

    fn next_look(&self) -> Instant {
        let Some(last) = &self.last else {
            return Instant::now();
        };
        last.at + pause(self.listeners.load(Ordering::Relaxed), last.observation.servers())
    }

    async fn answer(&mut self, reply: oneshot::Sender<Arc<Seen>>) {
        // Many questions do not make this peer ask its swarm more often than listeners do.
        let servers = |last: &Last| u32::try_from(last.observation.servers()).unwrap_or(u32::MAX);
        if self.last.as_ref().is_none_or(|last| last.at.elapsed() > FRESH.max(PER_SERVER * servers(last))) {
            self.look().await;
        }
        if let Some(last) = &self.last {
            // Whoever asked may be gone.
            let _ = reply.send(last.seen.clone());
        }
    }

    async fn look(&mut self) {
        let observation = self.lookout.look(self.last.as_ref().map(|last| &last.observation)).await;
        let now = unix_ms();
        let timeline = match &self.last {
            Some(last) => {
                let mut timeline = last.seen.timeline.clone();
                timeline.note(compare(&last.observation, &observation), now);
                timeline
            }
            None => Timeline::new(now),
        };
        let overview = Arc::new(SwarmOverview::of(&observation, now));
        let seen = Arc::new(Seen { overview, timeline, cut_off: observation.cut_off });
        self.sender.send_replace(Some(seen.clone()));
        self.last = Some(Last { observation, seen, at: Instant::now() });
    }
}

/// The pause between two looks.
fn pause(listeners: usize, servers: usize) -> Duration {
    let listened_to = LISTENED_TO + PER_SERVER * u32::try_from(servers).unwrap_or(u32::MAX);
    if listeners > 0 { listened_to.min(UNHEARD) } else { UNHEARD }
}

/// The time of day in milliseconds since 1970.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_swarms_are_asked_less_often_and_unheard_ones_hardly() {
        assert_eq!(pause(0, 3), UNHEARD);
        assert_eq!(pause(1, 3), Duration::from_millis(2150));
        assert_eq!(pause(9, 200), Duration::from_secs(12));
        assert_eq!(pause(1, 1_000_000), UNHEARD);
    }

    #[test]
    fn there_are_so_many_places_and_no_more() {
        let listeners = Arc::new(AtomicUsize::new(0));
        let mut places: Vec<Place> = (0..MOST_LISTENERS).filter_map(|_| Place::take(&listeners)).collect();
        assert_eq!(places.len(), MOST_LISTENERS);
        assert!(Place::take(&listeners).is_none());
        places.pop();
        assert!(Place::take(&listeners).is_some());
    }
}
