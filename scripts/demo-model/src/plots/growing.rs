//! Plots in which the hero masters something.

use super::{MEET_NEW, Plot};

/// A story about something lost.
pub(crate) const LOST_THING: Plot = Plot {
    topics: &["something lost", "a lost {thing}", "finding a lost {thing}"],
    extras: &[
        ("color", &["red", "blue", "green", "yellow", "golden", "silver"]),
        ("thing", &["hat", "ball", "key", "kite", "drum", "bell", "ring", "book", "scarf", "lamp"]),
        (
            "spot",
            &[
                "under a pile of leaves",
                "inside a hollow log",
                "behind the well",
                "in the long grass",
                "under the bench",
                "between two stones",
            ],
        ),
    ],
    problem: &[
        "{Hero} had a {color} {thing}, and {he} loved it more than anything. {Time}, the {thing} was gone.",
        "{Time}, {hero} could not find {his} {color} {thing}. It was {his} favorite thing in the world.",
        "{Time}, {hero} went out to play with {his} {color} {thing}. But when {he} came home, the {thing} was not there. {He} had lost it!",
    ],
    attempt: &[
        "{He} looked under the bed. {He} looked behind the door. The {color} {thing} was not there. {Hero} began to cry.",
        "The {kind} looked everywhere, but {he} could not find the {thing}. \"Where can it be?\" said {hero}.",
        "{Hero} walked all the way to the river and back. There was no {thing}. {He} felt very sad.",
    ],
    meeting: MEET_NEW,
    solution: &[
        "\"Let us look together,\" said the {palkind}. They looked high and low. At last {pal} found the {color} {thing} {spot}!",
        "{Pal} had very good eyes. {Palhe} looked around and saw something {color} {spot}. It was the {thing}!",
        "\"I saw a {color} {thing} today,\" said {pal}. \"It was {spot}. Come with me!\" They ran there, and there was the {thing}.",
    ],
    result: &[
        "{Hero} held the {thing} close. \"Thank you, {pal}!\" {he} said. The {palkind} smiled.",
        "The {kind} jumped for joy. \"You found my {thing}!\" said {hero}. {He} gave {pal} a big hug.",
        "\"Now we can both play with it,\" said {hero}. So the {kind} and the {palkind} played with the {thing} all day.",
    ],
    lessons: &[
        "two pairs of eyes are better than one",
        "it is good to ask for help",
        "a friend is worth more than a {thing}",
    ],
    question: ("What did {hero} lose?", "{Hero} lost a {color} {thing}. It was {spot}."),
};

/// A story about learning a skill.
pub(crate) const LEARNING: Plot = Plot {
    topics: &["learning to {skill}", "{a_kind} who wanted to {skill}", "learning something new"],
    extras: &[
        (
            "skill",
            &[
                "swim",
                "sing",
                "dance",
                "paint",
                "whistle",
                "climb trees",
                "fly a kite",
                "bake bread",
                "read",
                "jump over the stream",
            ],
        ),
        (
            "reward",
            &["a warm apple pie", "a cup of sweet tea", "a honey cake", "a bowl of berries", "a crown of flowers"],
        ),
    ],
    problem: &[
        "More than anything, {hero} wanted to {skill}. But {he} did not know how.",
        "{Time}, {hero} saw the others {skill}. \"I want to {skill} too,\" said the {kind}.",
        "{Hero} had one big wish. {He} wished that {he} could {skill}.",
    ],
    attempt: &[
        "{He} tried once. {He} tried twice. It did not work at all. \"I will never learn to {skill},\" said {hero}.",
        "{Time}, {he} tried to {skill} all alone, but everything went wrong. The {kind} sat down and sighed.",
        "The {kind} tried and tried until {he} was tired. Some birds laughed at {him}, and {hero} felt very sad.",
    ],
    meeting: MEET_NEW,
    solution: &[
        "\"I can {skill},\" said {pal}. \"I will teach you. Watch me first, and then do it slowly.\" {Hero} watched the {palkind} and tried again.",
        "\"Nobody can {skill} on the first day,\" said the {palkind}. \"We will practice together.\" So {pal} and {hero} practiced every day for a week.",
        "{Pal} showed {him} how to begin. \"Do not hurry,\" said the {palkind}. \"Try one small step, and then one more.\"",
    ],
    result: &[
        "At last, {hero} could {skill}! \"Look at me!\" {he} shouted. {Pal} was so proud that {palhe} gave the {kind} {reward}.",
        "After some time, the {kind} could {skill} as well as anyone. {Hero} thanked {pal} with {reward}.",
        "And then it worked. \"I can {skill}!\" said {hero}. The {palkind} clapped, and they shared {reward}.",
    ],
    lessons: &["practice makes you better", "you should never give up", "small steps can take you far"],
    question: ("What did {hero} want to do?", "{Hero} wanted to {skill}, and {pal} the {palkind} showed {him} how."),
};

/// A story about being brave.
pub(crate) const AFRAID: Plot = Plot {
    topics: &["being brave", "{a_kind} who was afraid of {fear}", "being afraid of {fear}"],
    extras: &[
        (
            "fear",
            &[
                "the dark",
                "thunder",
                "deep water",
                "the tall hill",
                "loud noises",
                "the wind",
                "strangers",
                "the big bridge",
            ],
        ),
        ("comfort", &["little song", "small lamp", "smooth stone", "warm blanket", "funny rhyme"]),
    ],
    problem: &[
        "There was only one problem. {Hero} was afraid of {fear}.",
        "But {hero} had a secret. {He} was very much afraid of {fear}.",
        "Nobody knew that the {kind} was afraid of {fear}. {Hero} never told anyone.",
    ],
    attempt: &[
        "{Time}, {he} wanted to visit {his} grandmother, but {he} thought of {fear} and ran back home. {His} knees were shaking.",
        "{Time}, all the others went out to play. {Hero} thought of {fear} and hid under a blanket.",
        "{Time}, {he} closed {his} eyes and tried not to think of {fear}. It did not help. A tear ran down {his} nose.",
    ],
    meeting: MEET_NEW,
    solution: &[
        "\"When I was small, I was afraid of {fear} too,\" said the {palkind}. {Pal} gave {him} {a_comfort} and held {his} hand.",
        "\"Being brave does not mean that you are never afraid,\" said {pal}. Then the {palkind} gave {hero} {a_comfort}. \"This will help you,\" {palhe} said.",
        "{Pal} thought for a moment. \"Take {a_comfort} with you,\" said the {palkind}. \"I will walk right beside you.\"",
    ],
    result: &[
        "{Hero} took a deep breath and went on. With the {comfort} and a friend, {fear} did not seem so bad. The {kind} was not afraid any more.",
        "Step by step, {hero} felt better. \"I did it!\" said the {kind}. {Pal} smiled at {him}.",
        "That night, {hero} thought of {fear} and was not afraid. {He} thought of the {comfort} and of {pal} the {palkind}, and {he} slept very well.",
    ],
    lessons: &[
        "everyone is afraid sometimes",
        "being brave is easier with a friend",
        "it helps to talk about your fears",
    ],
    question: ("What was {hero} afraid of?", "{Hero} was afraid of {fear}."),
};
