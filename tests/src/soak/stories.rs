//! Texts that everybody knows beforehand.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use swarm_model::SamplingConfig;

use crate::harness::{Local, PROMPT, greedy, sampled};

/// Texts to choose from.
pub const STORIES: usize = 12;

/// Tokens of a prompt: from one to many chunks of prefill.
const PROMPT_TOKENS: std::ops::Range<usize> = 1..600;

/// Tokens of an answer.
const ANSWER: usize = 120;

/// A prompt and its undisturbed answer.
#[derive(Debug, Clone)]
pub struct Story {
    /// The prompt.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub sampling: SamplingConfig,
    /// What follows.
    pub answer: Vec<u32>,
    /// Whether the text is over after that.
    pub ended: bool,
}

/// All of them. Their prompts begin alike, so that whoever goes from one to the other goes back.
#[derive(Debug, Clone)]
pub struct Stories {
    /// Ids that prompts and rows are taken from.
    pub ids: Vec<u32>,
    /// The texts.
    pub all: Vec<Story>,
}

impl Story {
    /// Whether a part of the answer may stand in the prompt: what is drawn depends on what was drawn before.
    pub fn goes_on(&self) -> bool {
        self.sampling.temperature.is_none()
    }

    /// Prompt and the first `told` tokens of the answer.
    pub fn until(&self, told: usize) -> Vec<u32> {
        [&self.prompt[..], &self.answer[..told]].concat()
    }

    /// What comes after that, if at most `most` tokens are asked for.
    pub fn after(&self, told: usize, most: usize) -> &[u32] {
        &self.answer[told..self.answer.len().min(told + most)]
    }
}

impl Stories {
    /// Draws lengths and ways of sampling, and computes the texts without any network.
    pub fn tell(seed: u64) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let local = Local::demo();
        let opening = local.encode(PROMPT);
        let mut ids = opening.clone();
        while ids.len() < PROMPT_TOKENS.end {
            ids.extend(&opening);
        }
        let all = (0..STORIES).map(|number| {
            let prompt = ids[..rng.random_range(PROMPT_TOKENS)].to_vec();
            let sampling = if number % 3 == 2 { sampled(rng.random()) } else { greedy() };
            let answer = local.answer(&prompt, &sampling, ANSWER).tokens;
            Story { ended: answer.len() < ANSWER, prompt, sampling, answer }
        });
        Self { all: all.filter(|story| !story.answer.is_empty()).collect(), ids }
    }
}
