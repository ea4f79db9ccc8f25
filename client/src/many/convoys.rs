//! Which texts go together. Pure.
//!
//! A server computes the steps that wait for it at the same time in one pass, which reads its weights once. Texts that are
//! told side by side drift apart, though: each comes back when it can, and passes get smaller and more. So texts of one route
//! travel in **convoys**: the next steps of a convoy are sent when all of its texts have their tokens. There are as many
//! convoys as there are hops, so that every hop has one to compute, unless they would be too small to be worth it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use swarm_protocol::PeerId;

/// Texts below which a convoy is not made smaller so that there is one for every hop: a pass of so many rows takes hardly twice
/// what one row takes.
const FEW: usize = 8;

/// Part of a convoy's way around the chain that those who are back wait for the others.
const PATIENCE_SHARE: u32 = 4;

/// The shortest such wait: what steps that were computed together are apart, some times over.
const LEAST_PATIENCE: Duration = Duration::from_millis(5);

/// The longest: a text that is mended meanwhile catches up later.
const MOST_PATIENCE: Duration = Duration::from_millis(500);

/// One text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Member(pub(super) u64);

/// The servers that a text goes through; texts of different routes have nothing to do with one another.
pub(super) type Way = Vec<PeerId>;

/// All texts that are being told.
#[derive(Debug, Default)]
pub(super) struct Convoys {
    ways: HashMap<Way, Vec<Convoy>>,
    of: HashMap<Member, Way>,
}

#[derive(Debug, Default)]
struct Convoy {
    /// Whether each of its texts is back.
    back: HashMap<Member, bool>,
    left: Option<Instant>,
    /// How long the first to come back was away.
    around: Duration,
    last_back: Option<Instant>,
}

impl Convoys {
    /// A text has its next token. Says who may go on now: it too, or nobody yet.
    pub(super) fn arrive(&mut self, member: Member, way: &[PeerId], now: Instant) -> Vec<Member> {
        let mut go = Vec::new();
        if self.of.get(&member).is_some_and(|known| known != way) {
            go = self.leave(member, now);
        }
        self.of.insert(member, way.to_vec());
        let convoys = self.ways.entry(way.to_vec()).or_default();
        let texts = convoys.iter().map(|convoy| convoy.back.len()).sum::<usize>();
        let own = convoys.iter().position(|convoy| convoy.back.contains_key(&member));
        let count = (texts + usize::from(own.is_none())).div_ceil(FEW).clamp(1, way.len().max(1));
        convoys.resize_with(convoys.len().max(count), Convoy::default);
        let smallest = (0..count).min_by_key(|index| convoys[*index].back.len()).unwrap_or(0);
        // Whoever joins, or has a place that is too many, takes the smallest; so do those of one that is larger by two.
        let stays = |own: &usize| *own < count && convoys[*own].back.len() <= convoys[smallest].back.len() + 1;
        let place = own.filter(stays).unwrap_or(smallest);
        if let Some(own) = own.filter(|own| *own != place) {
            convoys[own].back.remove(&member);
            go.extend(convoys[own].complete(now));
        }
        let convoy = &mut convoys[place];
        if let Some(left) = convoy.left.take() {
            convoy.around = now.saturating_duration_since(left);
        }
        convoy.last_back = Some(now);
        convoy.back.insert(member, true);
        go.extend(convoy.complete(now));
        go
    }

    /// A text is told, or failed. Says who need not wait any longer.
    pub(super) fn leave(&mut self, member: Member, now: Instant) -> Vec<Member> {
        let Some(way) = self.of.remove(&member) else { return Vec::new() };
        let Some(convoys) = self.ways.get_mut(&way) else { return Vec::new() };
        let go = convoys.iter_mut().filter_map(|convoy| convoy.back.remove(&member).map(|_| convoy.complete(now)));
        let go = go.flatten().collect();
        if convoys.iter().all(|convoy| convoy.back.is_empty()) {
            self.ways.remove(&way);
        }
        go
    }

    /// Until when a text that is back waits for the others; `None` if it is not waiting.
    pub(super) fn waits_until(&self, member: Member) -> Option<Instant> {
        let convoy = self.convoy(member)?;
        convoy.back.get(&member).filter(|back| **back)?;
        let patience = (convoy.around / PATIENCE_SHARE).clamp(LEAST_PATIENCE, MOST_PATIENCE);
        Some(convoy.last_back? + patience)
    }

    /// A text has waited for long enough: it goes on, and so does everybody who waits with it.
    pub(super) fn go_without(&mut self, member: Member, now: Instant) -> Vec<Member> {
        let convoys = self.of.get(&member).and_then(|way| self.ways.get_mut(way));
        let convoy = convoys.and_then(|convoys| convoys.iter_mut().find(|convoy| convoy.back.contains_key(&member)));
        convoy.map(|convoy| convoy.go(now)).unwrap_or_default()
    }

    fn convoy(&self, member: Member) -> Option<&Convoy> {
        let convoys = self.ways.get(self.of.get(&member)?)?;
        convoys.iter().find(|convoy| convoy.back.contains_key(&member))
    }
}

impl Convoy {
    /// Everybody, if everybody is back.
    fn complete(&mut self, now: Instant) -> Vec<Member> {
        match self.back.values().all(|back| *back) {
            true => self.go(now),
            false => Vec::new(),
        }
    }

    fn go(&mut self, now: Instant) -> Vec<Member> {
        let mut gone: Vec<Member> = self.back.iter().filter(|(_, back)| **back).map(|(member, _)| *member).collect();
        gone.sort();
        self.back.values_mut().for_each(|back| *back = false);
        if !gone.is_empty() {
            self.left = Some(now);
        }
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
