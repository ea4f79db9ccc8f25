//! Who a story is about: the words that fill the slots of its sentences.

use std::collections::HashMap;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::plots::{PLOTS, Plot};
use crate::words::{ANIMALS, BOYS, GIRLS, HOMES, MEETINGS, TIMES, TRAITS};

/// One of a list of choices, none of which is ever empty.
pub(crate) fn pick<T: Copy>(rng: &mut StdRng, choices: &[T]) -> T {
    choices[rng.random_range(..choices.len())]
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {noun}")
}

/// What fills the slots of one story.
pub(crate) struct Cast {
    pub(crate) plot: &'static Plot,
    slots: HashMap<String, String>,
}

impl Cast {
    /// A plot, two animals to live it, and where and when they do.
    pub(crate) fn draw(rng: &mut StdRng) -> Self {
        let mut cast = Self { plot: &PLOTS[rng.random_range(0..PLOTS.len())], slots: HashMap::new() };
        let kinds: Vec<&str> = ANIMALS.choose_multiple(rng, 2).copied().collect();
        let hero = cast.set_character(rng, "", "hero", kinds[0], "");
        cast.set_character(rng, "pal", "pal", kinds[1], hero);
        let (a_trait, shown) = pick(rng, TRAITS);
        cast.set_with_article("trait", a_trait);
        cast.set("home", pick(rng, HOMES));
        cast.set("time", pick(rng, TIMES));
        cast.set("meeting", pick(rng, MEETINGS));
        for (slot, choices) in cast.plot.extras {
            cast.set_with_article(slot, pick(rng, choices));
        }
        let (lesson, shown) = (pick(rng, cast.plot.lessons), pick(rng, shown));
        cast.set("lesson", &cast.fill(lesson));
        cast.set("shown", &cast.fill(shown));
        cast
    }

    /// Names a character otherwise than `taken`; its slots start with `prefix`.
    fn set_character(
        &mut self,
        rng: &mut StdRng,
        prefix: &str,
        name_slot: &str,
        kind: &str,
        taken: &str,
    ) -> &'static str {
        let girl = rng.random_bool(0.5);
        let name = loop {
            let name = pick(rng, if girl { GIRLS } else { BOYS });
            if name != taken {
                break name;
            }
        };
        let [he, him, his, himself] =
            if girl { ["she", "her", "her", "herself"] } else { ["he", "him", "his", "himself"] };
        self.set(name_slot, name);
        self.set_with_article(&format!("{prefix}kind"), kind);
        self.set(&format!("{prefix}he"), he);
        self.set(&format!("{prefix}him"), him);
        self.set(&format!("{prefix}his"), his);
        self.set(&format!("{prefix}himself"), himself);
        name
    }

    fn set(&mut self, slot: &str, text: &str) {
        self.slots.insert(slot.to_string(), text.to_string());
    }

    /// Sets a slot and its twin with an article.
    fn set_with_article(&mut self, slot: &str, noun: &str) {
        self.set(slot, noun);
        self.set(&format!("a_{slot}"), &with_article(noun));
    }

    /// The template with its slots filled; a slot nobody knows stays in its braces.
    pub(crate) fn fill(&self, template: &str) -> String {
        let mut out = String::new();
        let mut rest = template;
        while let Some((before, after)) = rest.split_once('{') {
            let (slot, tail) = after.split_once('}').unwrap_or((after, ""));
            out.push_str(before);
            out.push_str(&self.filled(slot));
            rest = tail;
        }
        out + rest
    }

    fn filled(&self, slot: &str) -> String {
        let key = slot.to_ascii_lowercase();
        match self.slots.get(&key) {
            Some(text) if slot == key => text.clone(),
            Some(text) => capitalised(text),
            None => format!("{{{slot}}}"),
        }
    }
}
