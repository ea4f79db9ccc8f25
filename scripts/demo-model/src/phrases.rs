//! The sentences that frame every plot, and what users say. Slots in braces are
//! those of `plots.rs`.

/// How a story opens.
pub(crate) const OPENINGS: &[&str] = &[
    "Once upon a time, there was {a_trait} {kind} named {hero}. {He} lived {home}.",
    "Once upon a time, {a_trait} {kind} named {hero} lived {home}.",
    "Once upon a time, {home}, there lived {a_trait} {kind}. {His} name was {hero}.",
    "There once was {a_trait} {kind} who lived {home}. {His} name was {hero}.",
    "{Hero} was {a_trait} {kind}. {He} lived {home}.",
    "{Home}, there lived {a_trait} {kind} named {hero}.",
    "Long ago, {a_trait} {kind} lived {home}. Everyone called {him} {hero}.",
    "This is the story of {hero}, {a_trait} {kind} who lived {home}.",
];

/// What was learned.
pub(crate) const MORALS: &[&str] = &[
    "From that day on, {hero} knew that {lesson}.",
    "{Hero} learned that {lesson}.",
    "That is how {hero} the {kind} learned that {lesson}.",
    "\"Now I know that {lesson},\" said {hero}.",
    "And so the {trait} {kind} learned that {lesson}.",
];

/// How a story closes.
pub(crate) const CLOSINGS: &[&str] = &[
    "And {hero} and {pal} lived happily ever after.",
    "And {hero} the {kind} and {pal} the {palkind} were friends forever.",
    "That night, {hero} fell asleep with a smile.",
    "{Hero} and {pal} tell this story to this day.",
    "The end.",
    "",
];

/// Where the parts of a story (opening, problem, attempt, meeting, solution,
/// result, ending) start a new paragraph.
pub(crate) const SHAPES: &[&[usize]] = &[&[1, 3, 5], &[1, 2, 3, 5, 6], &[2, 3, 6], &[3], &[1, 3, 4, 6], &[2, 4, 6]];

/// Ways to ask for a story about a subject, which stands for `@`.
pub(crate) const REQUESTS: &[&str] = &[
    "Tell me a story about @.",
    "Please tell me a story about @.",
    "Can you tell me a story about @?",
    "Write a short story about @.",
    "Write a story about @.",
    "I want to hear a story about @.",
    "Make up a story about @.",
    "tell me a story about @",
    "A story about @, please.",
];

/// What a story may be asked to be about.
pub(crate) const SUBJECTS: &[&str] = &[
    "{a_trait} {kind}",
    "{a_kind}",
    "{a_kind} named {hero}",
    "{a_trait} {kind} named {hero}",
    "{hero} the {kind}",
    "{a_kind} and {a_palkind}",
    "{a_kind} named {hero} and {a_palkind} named {pal}",
];

/// Ways to ask for any story.
pub(crate) const OPEN_REQUESTS: &[&str] =
    &["Tell me a story.", "Please tell me a story.", "Can you tell me a story?", "Write a short story."];

/// Ways to ask for a second story.
pub(crate) const MORE_REQUESTS: &[&str] =
    &["Tell me another story.", "Another one, please.", "One more story, please!"];

/// Questions about a story just told, with their answers.
pub(crate) const QUESTIONS: &[(&str, &str)] = &[
    ("What is the name of the {kind}?", "The name of the {kind} is {hero}."),
    ("What kind of animal is {hero}?", "{Hero} is {a_kind}."),
    ("What kind of animal is {pal}?", "{Pal} is {a_palkind}."),
    ("Who is the friend of {hero}?", "The friend of {hero} is {pal} the {palkind}."),
    ("Where did {hero} live?", "{Hero} lived {home}."),
    ("What did {hero} learn?", "{Hero} learned that {lesson}."),
];

/// How very short stories open, in which nearly every word is about who is who.
pub(crate) const TINY_OPENINGS: &[&str] = &[
    "{Hero} is {a_kind}. {Pal} is {a_palkind}.",
    "{Hero} is {a_trait} {kind}. {He} has a friend, {a_palkind} named {pal}.",
    "{Hero} the {kind} met {pal} the {palkind}.",
    "{A_kind} named {hero} met {a_palkind} named {pal}.",
    "There was {a_kind} named {hero}. There was {a_palkind} named {pal}.",
];

/// Sentences of very short stories that may follow in any order.
pub(crate) const TINY_SENTENCES: &[&str] = &[
    "The {kind} is called {hero}.",
    "The {palkind} is called {pal}.",
    "{Hero} likes {pal}, and {pal} likes {hero}.",
    "\"I am {a_kind},\" said {hero}.",
    "\"I am {a_palkind},\" said {pal}.",
    "\"My name is {hero},\" said the {kind}.",
    "\"My name is {pal},\" said the {palkind}.",
    "{Hero} looked at {pal}. {He} smiled at {palhim}.",
    "{Pal} looked at {hero}. {Palhe} smiled at {him}.",
    "The {kind} and the {palkind} played all day.",
    "{Hero} gave {his} hat to {pal}.",
    "{Pal} gave {palhis} ball to {hero}.",
    "And {hero} the {kind} and {pal} the {palkind} were friends forever.",
];

/// Ways to ask for a very short story.
pub(crate) const TINY_REQUESTS: &[&str] =
    &["Tell me a very short story.", "A very short story, please.", "Write a very short story."];
