//! Which texts go together. Pure.
//!
//! A server computes the steps that wait for it at the same time in one pass, which reads its weights once. Texts that are
//! told side by side drift apart, though: each comes back when it can, and passes get smaller and more. So texts of one route
//! travel in **convoys**: the next steps of a convoy are sent together. There are as many convoys as there are hops, so that
//! every hop has one to compute, unless they would be too small to be worth it.
//!
//! Nobody belongs to a convoy for good. Whoever is back waits for company, and those who wait leave when they are enough, or
//! when all they left with are back: so whoever fell behind goes on with the next convoy that comes by, and both stay whole.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use swarm_protocol::PeerId;

/// Texts below which a convoy is not made smaller so that there is one for every hop: a pass of so many rows takes hardly twice
/// what one row takes.
const FEW: usize = 8;

/// Part of the way around the chain that those who are back wait for the others, from when the last of them came.
const PATIENCE_SHARE: u32 = 4;

/// The shortest such wait: what steps that were computed together are apart, some times over.
const LEAST_PATIENCE: Duration = Duration::from_millis(5);

/// The longest: a text that is mended meanwhile catches up later.
const MOST_PATIENCE: Duration = Duration::from_millis(500);

/// Whoever has been away for so many times as long as others were is not counted on.
const OVERDUE_TIMES: u32 = 2;

/// One text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Member(pub(super) u64);

/// The servers that a text goes through; texts of different routes have nothing to do with one another.
pub(super) type Way = Vec<PeerId>;

/// All texts that are being told.
#[derive(Debug, Default)]
pub(super) struct Convoys {
    ways: HashMap<Way, Texts>,
    of: HashMap<Member, Way>,
}

/// The texts of one route.
#[derive(Debug, Default)]
struct Texts {
    hops: usize,
    places: HashMap<Member, Place>,
    /// How often any left.
    departures: u64,
    /// How long the last to come back was away, or its prompt.
    around: Duration,
    last_back: Option<Instant>,
}

/// Where a text is.
#[derive(Debug, Clone, Copy)]
struct Place {
    waits: bool,
    /// When its prompt was sent, or it last left.
    since: Instant,
    /// Which departure was its last; `None` if it has only its prompt behind it, or before it.
    departure: Option<u64>,
}

impl Place {
    fn new(now: Instant) -> Self {
        Self { waits: false, since: now, departure: None }
    }

    fn is_new(&self) -> bool {
        self.departure.is_none()
    }
}

impl Convoys {
    /// A text's prompt is sent.
    pub(super) fn join(&mut self, member: Member, way: &[PeerId], now: Instant) {
        self.of.insert(member, way.to_vec());
        self.texts(way).places.insert(member, Place::new(now));
    }

    fn texts(&mut self, way: &[PeerId]) -> &mut Texts {
        self.ways.entry(way.to_vec()).or_insert_with(|| Texts { hops: way.len(), ..Texts::default() })
    }

    /// A text has its next token. Says who may go on now: it too, or nobody yet.
    pub(super) fn arrive(&mut self, member: Member, way: &[PeerId], now: Instant) -> Vec<Member> {
        let mut go = Vec::new();
        if self.of.get(&member).is_some_and(|known| known != way) {
            go = self.leave(member, now);
        }
        self.of.insert(member, way.to_vec());
        go.extend(self.texts(way).arrive(member, now));
        go
    }

    /// A text is told, or failed. Says who need not wait any longer.
    pub(super) fn leave(&mut self, member: Member, now: Instant) -> Vec<Member> {
        let Some(way) = self.of.remove(&member) else { return Vec::new() };
        let Some(texts) = self.ways.get_mut(&way) else { return Vec::new() };
        texts.places.remove(&member);
        let go = texts.complete(now);
        if texts.places.is_empty() {
            self.ways.remove(&way);
        }
        go
    }

    /// Until when a text that is back waits for company; `None` if it is not waiting.
    pub(super) fn waits_until(&self, member: Member) -> Option<Instant> {
        let texts = self.ways.get(self.of.get(&member)?)?;
        texts.places.get(&member).filter(|place| place.waits)?;
        Some(texts.last_back? + texts.patience())
    }

    /// A text has waited for long enough: it goes on, and so does everybody who waits with it.
    pub(super) fn go_without(&mut self, member: Member, now: Instant) -> Vec<Member> {
        let texts = self.of.get(&member).and_then(|way| self.ways.get_mut(way));
        texts.map(|texts| texts.go(now)).unwrap_or_default()
    }
}

impl Texts {
    fn arrive(&mut self, member: Member, now: Instant) -> Vec<Member> {
        let place = self.places.entry(member).or_insert(Place::new(now));
        place.waits = true;
        self.around = now.saturating_duration_since(place.since);
        self.last_back = Some(now);
        self.complete(now)
    }

    fn waiting(&self) -> usize {
        self.places.values().filter(|place| place.waits).count()
    }

    /// Texts of a convoy, if all of `texts` are divided evenly.
    fn share(&self, texts: usize) -> usize {
        texts.div_ceil(texts.div_ceil(FEW).clamp(1, self.hops.max(1)))
    }

    /// Everybody who waits, if they are enough.
    fn complete(&mut self, now: Instant) -> Vec<Member> {
        let overdue = |place: &Place| now.saturating_duration_since(place.since) > self.around * OVERDUE_TIMES;
        let counted = |place: &&Place| place.waits || !(place.is_new() || overdue(place));
        let (waiting, share) = (self.waiting(), self.share(self.places.values().filter(counted).count()));
        // Convoys need not be of one size; small ones, though, had better wait for others.
        let whole = waiting * 3 >= share * 2 && self.nobody_is_missing();
        match !self.begin_together() && (waiting >= share || whole) {
            true => self.go(now),
            false => Vec::new(),
        }
    }

    /// Whether those who wait do so for others whose prompts were sent with theirs: servers are busy with these, and texts that
    /// begin together end together.
    fn begin_together(&self) -> bool {
        let mut new = self.places.values().filter(|place| place.is_new());
        self.places.values().all(|place| place.is_new() || !place.waits) && new.any(|place| !place.waits)
    }

    /// Whether all are back who left with any of those who wait, and whoever waits has been on the way before.
    fn nobody_is_missing(&self) -> bool {
        let (back, away): (Vec<_>, Vec<_>) = self.places.values().partition(|place| place.waits);
        let left_with = |away: &&Place| back.iter().any(|back: &&Place| back.departure == away.departure);
        !back.iter().any(|place| place.is_new()) && !away.iter().any(left_with)
    }

    /// How long those who wait do so after the last of them has come: if they are few, until another convoy comes by.
    fn patience(&self) -> Duration {
        let few = self.waiting() * 2 < self.share(self.places.len());
        let patience = if few || self.begin_together() { self.around } else { self.around / PATIENCE_SHARE };
        patience.clamp(LEAST_PATIENCE, MOST_PATIENCE)
    }

    fn go(&mut self, now: Instant) -> Vec<Member> {
        self.departures += 1;
        let mut gone = Vec::new();
        for (member, place) in self.places.iter_mut().filter(|(_, place)| place.waits) {
            *place = Place { waits: false, since: now, departure: Some(self.departures) };
            gone.push(*member);
        }
        gone.sort();
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(hops: usize) -> Way {
        (0..hops).map(|_| PeerId::random()).collect()
    }

    fn members(range: std::ops::Range<u64>) -> Vec<Member> {
        range.map(Member).collect()
    }

    /// All arrive once, in order; who went together.
    fn round(convoys: &mut Convoys, texts: u64, way: &[PeerId], now: Instant) -> Vec<Vec<Member>> {
        (0..texts).map(|text| convoys.arrive(Member(text), way, now)).filter(|gone| !gone.is_empty()).collect()
    }

    /// Three texts on one route that have left together.
    fn on_their_way(way: &[PeerId], now: Instant) -> Convoys {
        let mut convoys = Convoys::default();
        // The first goes alone and the others wait for it to come round.
        round(&mut convoys, 3, way, now);
        assert_eq!(convoys.arrive(Member(0), way, now), members(0..3));
        convoys
    }

    #[test]
    fn there_is_a_convoy_for_every_hop_unless_they_get_too_small() {
        for (texts, hops, sizes) in [(16, 3, vec![8, 8]), (4, 3, vec![4]), (48, 3, vec![16, 16, 16]), (16, 1, vec![16])]
        {
            let (mut convoys, way, now) = (Convoys::default(), way(hops), Instant::now());
            // They come one after the other, and sort themselves out as they come again.
            for _ in 0..texts {
                round(&mut convoys, texts, &way, now);
            }
            let mut last: Vec<usize> = round(&mut convoys, texts, &way, now).iter().map(Vec::len).collect();
            last.sort();
            assert_eq!(last, sizes, "{texts} texts over {hops} hops");
        }
    }

    #[test]
    fn whoever_is_late_is_waited_for_so_long_and_then_no_longer() {
        let (way, start) = (way(1), Instant::now());
        let mut convoys = on_their_way(&way, start);
        let away = Duration::from_millis(100);
        let back = start + away;
        assert_eq!(convoys.arrive(Member(0), &way, back), []);
        assert_eq!(convoys.arrive(Member(1), &way, back), []);
        assert_eq!(convoys.waits_until(Member(2)), None);
        let until = convoys.waits_until(Member(0)).unwrap();
        assert_eq!(until, back + away / PATIENCE_SHARE);
        assert_eq!(convoys.go_without(Member(0), until), members(0..2));
        // It joins the others on their next turn.
        assert_eq!(convoys.arrive(Member(2), &way, until), []);
        assert_eq!(convoys.arrive(Member(0), &way, until), []);
        assert_eq!(convoys.arrive(Member(1), &way, until), members(0..3));
    }

    #[test]
    fn an_end_or_another_route_holds_nobody_up() {
        let (one, other, now) = (way(2), way(2), Instant::now());
        let mut convoys = on_their_way(&one, now);
        assert_eq!(convoys.arrive(Member(0), &one, now), []);
        assert_eq!(convoys.arrive(Member(1), &other, now), members(1..2), "alone on its route");
        assert_eq!(convoys.leave(Member(2), now), members(0..1));
        assert_eq!(convoys.leave(Member(2), now), []);
        convoys.leave(Member(0), now);
        convoys.leave(Member(1), now);
        assert!(convoys.ways.is_empty() && convoys.of.is_empty());
    }
}
