//! What the crowd does, drawn from a seed. Pure: no clock, no network.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use swarm_protocol::block::BlockRange;

use super::stories::{Stories, Story};
use crate::harness::range;

/// Blocks of the demo model.
const BLOCKS: u32 = 12;

/// Clients, each with an identity of its own.
pub(super) const CLIENTS: usize = 4;

/// Sessions of the crowd, all at once, by what they are.
const COMPOSITION: [(Kind, usize); 4] = [(Kind::Texts, 18), (Kind::Rows, 6), (Kind::Guest, 5), (Kind::Process, 3)];

/// Texts of one session.
const TEXTS: std::ops::Range<usize> = 1..4;

/// Tokens that are asked for.
const MOST: std::ops::Range<usize> = 1..100;

/// Pieces that a session of rows is fed, and rows of each.
const PIECES: std::ops::Range<usize> = 3..8;
const PIECE_ROWS: std::ops::Range<usize> = 1..60;

/// Milliseconds between two tokens, at most: a person's or a script's pace.
const MOST_PACE: u64 = 15;

/// Servers that are killed in a round.
pub(super) const KILLS: usize = 2;

/// What a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Texts, by a client with several sessions.
    Texts,
    /// Hidden states through some of the blocks, by such a client.
    Rows,
    /// Texts by a client that joins for them, and goes without closing anything.
    Guest,
    /// A text by a process that is killed in the middle of it.
    Process,
}

/// How often something happens in a plan.
pub type Kinds = BTreeMap<Kind, usize>;

/// A text that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Which of the stories.
    pub story: usize,
    /// Tokens of the answer that stand in the prompt already.
    pub told: usize,
    /// Tokens that are asked for.
    pub most: usize,
    /// Tokens after which the rest is not asked for.
    pub stop_after: Option<usize>,
}

/// Rows that are fed from `position` on, which may be a step back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Where.
    pub position: usize,
    /// How many.
    pub rows: usize,
    /// Which ids they come from: other ones after each step back.
    pub first_id: usize,
}

/// How a session of texts ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// At rest, after its last text.
    Closed,
    /// While a step of its last text is under way, after so many tokens.
    Left(usize),
}

/// What one session does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// What it is.
    pub kind: Kind,
    /// Which client it belongs to.
    pub client: usize,
    /// Tokens it reserves.
    pub room: usize,
    /// Milliseconds between two tokens.
    pub pace: u64,
    /// One after the other.
    pub texts: Vec<Text>,
    /// How it ends.
    pub ending: Ending,
    /// The blocks of a session of rows.
    pub blocks: BlockRange,
    /// What that is fed.
    pub pieces: Vec<Rows>,
}

/// What happens in one round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Sessions, all at once.
    pub scripts: Vec<Script>,
    /// After how many tokens of all sessions together a server is killed.
    pub kills: Vec<usize>,
}

impl Plan {
    /// A round of `stories`.
    pub fn draw(seed: u64, stories: &Stories) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut kinds: Vec<Kind> = COMPOSITION.iter().flat_map(|(kind, count)| vec![*kind; *count]).collect();
        kinds.shuffle(&mut rng);
        let scripts: Vec<Script> =
            kinds.into_iter().enumerate().map(|(number, kind)| script(&mut rng, kind, number, stories)).collect();
        let tokens: usize = scripts.iter().map(|script| script.tokens(stories)).sum();
        // In the first half, so that what they have broken is mended in the same round.
        let kills = (0..KILLS).map(|kill| tokens * (kill + 1) / (2 * KILLS + 2));
        Self { kills: kills.collect(), scripts }
    }

    /// Positions of KV that its sessions fill, each in all blocks it goes through.
    pub fn positions(&self) -> usize {
        self.scripts.iter().map(|script| script.room).sum()
    }
}

/// How many sessions of each kind there are.
pub fn kinds(plan: &Plan) -> Kinds {
    plan.scripts.iter().fold(Kinds::new(), |mut kinds, script| {
        *kinds.entry(script.kind).or_default() += 1;
        kinds
    })
}

impl Script {
    /// Tokens that its client sees, as far as that is certain.
    pub(super) fn tokens(&self, stories: &Stories) -> usize {
        if self.kind == Kind::Process {
            return 0;
        }
        let of = |text: &Text| text.expected(&stories.all[text.story]).len();
        let all: usize = self.texts.iter().map(of).sum();
        match (self.ending, self.texts.last()) {
            (Ending::Left(after), Some(last)) => all - of(last) + after,
            _ => all,
        }
    }
}

impl Text {
    /// What must come of it.
    pub(super) fn expected<'a>(&self, story: &'a Story) -> &'a [u32] {
        let whole = story.after(self.told, self.most);
        &whole[..self.stop_after.unwrap_or(whole.len())]
    }
}

fn script(rng: &mut StdRng, kind: Kind, number: usize, stories: &Stories) -> Script {
    let mut script = Script {
        kind,
        client: number % CLIENTS,
        room: 0,
        pace: rng.random_range(0..=MOST_PACE),
        texts: Vec::new(),
        ending: Ending::Closed,
        blocks: range(0, BLOCKS),
        pieces: Vec::new(),
    };
    if kind == Kind::Rows {
        let start = rng.random_range(0..BLOCKS);
        script.blocks = range(start, rng.random_range(start + 1..=BLOCKS));
        script.pieces = pieces(rng);
        script.room = script.pieces.iter().map(|piece| piece.position + piece.rows).max().unwrap_or_default();
        return script;
    }
    let count = if kind == Kind::Texts { rng.random_range(TEXTS) } else { 1 };
    script.texts = (0..count).map(|_| text(rng, stories)).collect();
    let room = |text: &Text| stories.all[text.story].prompt.len() + text.told + text.most;
    script.room = script.texts.iter().map(room).max().unwrap_or_default();
    let last = script.texts.last().map_or(0, |text| text.expected(&stories.all[text.story]).len());
    // Of the others, one in three loses interest.
    if kind != Kind::Texts || rng.random_range(0..3) == 0 {
        script.ending = Ending::Left(rng.random_range(0..last.max(1)));
    }
    script
}

fn text(rng: &mut StdRng, stories: &Stories) -> Text {
    let number = rng.random_range(0..stories.all.len());
    let story = &stories.all[number];
    let told = if story.goes_on() { rng.random_range(0..story.answer.len()) } else { 0 };
    let rest = story.answer.len() - told;
    let most = if story.ended { rng.random_range(MOST) } else { rng.random_range(MOST).min(rest) };
    let stop_after = rng.random_bool(0.2).then(|| rng.random_range(1..=most.min(rest)));
    Text { story: number, told, most, stop_after }
}

fn pieces(rng: &mut StdRng) -> Vec<Rows> {
    let (count, mut held, mut first_id) = (rng.random_range(PIECES), 0, 0);
    let piece = |_| {
        let back = held > 0 && rng.random_bool(0.4);
        if back {
            first_id += 7;
        }
        let position = if back { rng.random_range(0..held) } else { held };
        let rows = rng.random_range(PIECE_ROWS);
        held = position + rows;
        Rows { position, rows, first_id }
    };
    (0..count).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::greedy;

    fn stories() -> Stories {
        let story = |number: u32| Story {
            prompt: (0..=number * 40).collect(),
            sampling: greedy(),
            answer: (0..=number * 9).collect(),
            ended: number.is_multiple_of(2),
        };
        Stories { ids: (0..500).collect(), all: (0..9).map(story).collect() }
    }

    #[test]
    fn a_seed_says_all() {
        let stories = stories();
        assert_eq!(Plan::draw(7, &stories), Plan::draw(7, &stories));
        assert_ne!(Plan::draw(7, &stories), Plan::draw(8, &stories));
    }

    #[test]
    fn every_session_fits_into_its_room_and_every_kill_happens() {
        let stories = stories();
        for seed in 0..200 {
            let plan = Plan::draw(seed, &stories);
            assert_eq!(kinds(&plan), COMPOSITION.into_iter().collect(), "seed {seed}");
            for script in &plan.scripts {
                let fits = |text: &Text| stories.all[text.story].until(text.told).len() + text.most <= script.room;
                assert!(script.texts.iter().all(fits), "seed {seed}: {script:?}");
                let joined = |pair: &[Rows]| pair[1].position <= pair[0].position + pair[0].rows;
                assert!(script.pieces.windows(2).all(joined), "seed {seed}: {script:?}");
            }
            let tokens: usize = plan.scripts.iter().map(|script| script.tokens(&stories)).sum();
            assert!(plan.kills.iter().all(|after| *after < tokens), "seed {seed}: {:?}", plan.kills);
        }
    }

    #[test]
    fn sessions_are_left_closed_and_taken_back() {
        let stories = stories();
        let plans: Vec<Plan> = (0..20).map(|seed| Plan::draw(seed, &stories)).collect();
        let scripts = || plans.iter().flat_map(|plan| &plan.scripts);
        assert!(scripts().any(|script| script.ending == Ending::Closed && script.kind == Kind::Texts));
        assert!(scripts().any(|script| script.ending != Ending::Closed && script.kind == Kind::Texts));
        assert!(scripts().flat_map(|script| &script.texts).any(|text| text.stop_after.is_some()));
        let back = |pair: &[Rows]| pair[1].position < pair[0].position + pair[0].rows;
        assert!(scripts().any(|script| script.pieces.windows(2).any(back)));
    }
}
