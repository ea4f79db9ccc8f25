//! Which texts go together. Pure.
//!
//! A server computes the steps that wait for it at the same time in one pass, which reads its weights once. Texts that are
//! told side by side drift apart, though: each comes back when it can, and passes get smaller and more. So texts of one route
//! travel in **convoys**: the next steps of a convoy are sent together. There are as many convoys as there are hops, so that
//! every hop has one to compute, unless they would be too small to be worth it.
//!
//! Nobody belongs to a convoy for good. Whoever is back waits for company, and those who wait leave when they are enough, or
//! nearly so and all they left with are back: so whoever fell behind goes on with the next convoy that comes by, and both stay
//! whole.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use swarm_protocol::PeerId;

/// There are only so many convoys that each has about as many texts as this: a pass of so many rows takes hardly twice what one
/// row takes.
const FEW: usize = 8;

/// Part of a convoy's share of the texts, at least, that leaves as a convoy if all it left with are back: the passes of the rest
/// are not worth waiting for.
const NEARLY: (usize, usize) = (2, 3);

/// Fewer than one in so many of a convoy had better go on with the next than alone.
const SPLINTER: usize = 2;

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
    /// When its prompt was sent, or it last left; of one that waits, when it came.
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
        let (mut go, mut around) = (Vec::new(), Duration::ZERO);
        if let Some(old) = self.of.get(&member).filter(|known| *known != way) {
            around = self.ways.get(old).map_or(around, |texts| texts.around);
            go = self.leave(member, now);
        }
        self.of.insert(member, way.to_vec());
        let texts = self.texts(way);
        if texts.around.is_zero() {
            // Until its own is known.
            texts.around = around;
        }
        go.extend(texts.arrive(member, now));
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
        let known = self.places.get(&member).copied();
        // Prompts tell how long a lap takes only as long as nothing else does.
        if let Some(place) = known.filter(|place| !place.is_new() || self.departures == 0) {
            self.around = now.saturating_duration_since(place.since);
        }
        let departure = known.and_then(|place| place.departure);
        self.places.insert(member, Place { waits: true, since: now, departure });
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
        let whole = waiting * NEARLY.1 >= share * NEARLY.0 && self.nobody_is_missing();
        match !self.begin_together() && (waiting >= share || whole) {
            true => self.go(now),
            false => Vec::new(),
        }
    }

    /// Whether those who wait have nothing but their prompts behind them, and wait for others whose prompts were on the way too
    /// when the first of them came: servers are busy with these, and texts that begin together end together.
    fn begin_together(&self) -> bool {
        let (waiting, others): (Vec<_>, Vec<_>) = self.places.values().partition(|place| place.waits);
        let first = waiting.iter().map(|place: &&Place| place.since).min();
        waiting.iter().all(|place| place.is_new())
            && others.iter().any(|place| place.is_new() && first.is_some_and(|first| place.since <= first))
    }

    /// Whether all are back who left with any of those who wait, and whoever waits has been on the way before.
    fn nobody_is_missing(&self) -> bool {
        let (back, away): (Vec<_>, Vec<_>) = self.places.values().partition(|place| place.waits);
        let left_with = |away: &&Place| back.iter().any(|back: &&Place| back.departure == away.departure);
        !back.iter().any(|place| place.is_new()) && !away.iter().any(left_with)
    }

    /// How long those who wait do so after the last of them has come: if they are few, until another convoy comes by.
    fn patience(&self) -> Duration {
        let known = self.places.values().filter(|place| place.waits || !place.is_new()).count();
        let few = self.waiting() * SPLINTER < self.share(known);
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

    /// All of them arrive, in order; who went together.
    fn round(
        convoys: &mut Convoys,
        texts: impl Iterator<Item = u64>,
        way: &[PeerId],
        now: Instant,
    ) -> Vec<Vec<Member>> {
        texts.map(|text| convoys.arrive(Member(text), way, now)).filter(|gone| !gone.is_empty()).collect()
    }

    /// Texts on one route whose prompts took so long and that have left together then; when that was.
    fn on_their_way(texts: u64, way: &[PeerId], start: Instant, prompts: Duration) -> (Convoys, Instant) {
        let (mut convoys, now) = (Convoys::default(), start + prompts);
        (0..texts).for_each(|text| convoys.join(Member(text), way, start));
        assert_eq!(round(&mut convoys, 0..texts, way, now), [members(0..texts)]);
        (convoys, now)
    }

    const AWAY: Duration = Duration::from_millis(100);

    #[test]
    fn there_is_a_convoy_for_every_hop_unless_they_get_too_small() {
        for (texts, hops, sizes) in
            [(16, 3, vec![8, 8]), (4, 3, vec![4]), (48, 3, vec![16, 16, 16]), (16, 1, vec![16]), (17, 3, vec![6, 6, 5])]
        {
            let way = way(hops);
            let (mut convoys, now) = on_their_way(texts, &way, Instant::now(), AWAY);
            for lap in 1..4 {
                let gone = round(&mut convoys, 0..texts, &way, now + AWAY * lap);
                assert_eq!(gone.iter().map(Vec::len).collect::<Vec<_>>(), sizes, "{texts} texts over {hops} hops");
            }
        }
    }

    #[test]
    fn texts_that_begin_together_wait_for_one_another() {
        let (way, start) = (way(3), Instant::now());
        let mut convoys = Convoys::default();
        (0..10).for_each(|text| convoys.join(Member(text), &way, start));
        let read = start + AWAY;
        assert_eq!(round(&mut convoys, 0..9, &way, read), Vec::<Vec<_>>::new());
        assert_eq!(convoys.waits_until(Member(3)), Some(read + AWAY), "as long as their prompts took");
        assert_eq!(convoys.arrive(Member(9), &way, read), members(0..10));
        // Whoever comes later holds up nobody who is on the way already, and is not held up by whoever comes after it.
        convoys.join(Member(10), &way, read);
        assert_eq!(round(&mut convoys, 0..10, &way, read + AWAY), [members(0..5), members(5..10)]);
        assert_eq!(convoys.arrive(Member(10), &way, read + AWAY), []);
        convoys.join(Member(11), &way, read + AWAY * 2);
        assert_eq!(round(&mut convoys, 0..5, &way, read + AWAY * 2), [[members(0..5), members(10..11)].concat()]);
    }

    #[test]
    fn after_a_detour_texts_know_how_long_a_lap_takes() {
        let (one, other) = (way(2), way(2));
        let (mut convoys, left) = on_their_way(3, &one, Instant::now(), AWAY);
        let back = left + AWAY;
        convoys.arrive(Member(0), &one, back);
        assert_eq!(convoys.arrive(Member(1), &other, back), members(1..2), "alone on its route");
        // The next to come over the new route waits for the first, as long as laps took on the old one; whoever is left there goes.
        assert_eq!(convoys.arrive(Member(2), &other, back), members(0..1));
        assert!(convoys.waits_until(Member(2)).unwrap() >= back + AWAY / PATIENCE_SHARE);
    }

    #[test]
    fn whoever_is_late_is_waited_for_so_long_and_then_no_longer() {
        let way = way(1);
        let (mut convoys, left) = on_their_way(3, &way, Instant::now(), AWAY);
        let back = left + AWAY;
        assert_eq!(round(&mut convoys, 0..2, &way, back), Vec::<Vec<_>>::new());
        assert_eq!(convoys.waits_until(Member(2)), None);
        let until = convoys.waits_until(Member(0)).unwrap();
        assert_eq!(until, back + AWAY / PATIENCE_SHARE);
        assert_eq!(convoys.go_without(Member(0), until), members(0..2));
        // Alone it waits for them to come by, and goes on with them.
        assert_eq!(convoys.arrive(Member(2), &way, until), []);
        assert!(convoys.waits_until(Member(2)).unwrap() >= until + AWAY);
        assert_eq!(round(&mut convoys, 0..2, &way, until + AWAY), [members(0..3)]);
    }

    #[test]
    fn a_convoy_does_not_wait_again_for_whom_it_left_behind() {
        let way = way(3);
        let (mut convoys, left) = on_their_way(16, &way, Instant::now(), AWAY);
        let back = left + AWAY;
        assert_eq!(round(&mut convoys, 0..8, &way, back), [members(0..8)]);
        // Of the others one is missing, and then they are a convoy without it.
        assert_eq!(round(&mut convoys, 8..15, &way, back), Vec::<Vec<_>>::new());
        let until = convoys.waits_until(Member(8)).unwrap();
        assert_eq!(convoys.go_without(Member(8), until), members(8..15));
        assert_eq!(round(&mut convoys, 8..15, &way, until + AWAY), [members(8..15)]);
        // It comes back before the others: one of them waits in its stead, and nobody is alone.
        let late = until + AWAY * 3 / 2;
        assert_eq!(convoys.arrive(Member(15), &way, late), []);
        let gone = round(&mut convoys, 0..8, &way, late);
        assert_eq!(gone, [[members(0..7), members(15..16)].concat()]);
        assert_eq!(round(&mut convoys, 8..15, &way, until + AWAY * 2), [members(7..15)]);
    }

    #[test]
    fn an_end_or_another_route_holds_nobody_up() {
        let (one, other) = (way(2), way(2));
        let (mut convoys, left) = on_their_way(3, &one, Instant::now(), AWAY);
        let now = left + AWAY;
        assert_eq!(convoys.arrive(Member(0), &one, now), []);
        assert_eq!(convoys.arrive(Member(1), &other, now), members(1..2), "alone on its route");
        assert_eq!(convoys.leave(Member(2), now), members(0..1));
        assert_eq!(convoys.leave(Member(2), now), []);
        convoys.leave(Member(0), now);
        convoys.leave(Member(1), now);
        assert!(convoys.ways.is_empty() && convoys.of.is_empty());
    }
}
