//! Plots in which something happens to the hero.

use super::{MEET_NEW, Plot};

/// A story about a big storm.
pub(crate) const STORM: Plot = Plot {
    topics: &["a big storm", "building a house", "{a_kind} whose house broke"],
    extras: &[
        ("damage", &["the roof", "the door", "the chimney", "the front wall", "the little fence"]),
        ("stuff", &["wood and nails", "stones and mud", "straw and rope", "bricks and clay"]),
        ("meal", &["hot soup", "pancakes", "fresh bread", "corn and beans", "a big pie"]),
    ],
    problem: &[
        "One night, a big storm came. The wind blew and the rain fell. In the morning, {damage} of {his} house was broken.",
        "{Time}, dark clouds filled the sky. A storm shook the house, and {damage} fell down. {Hero} was safe, but {his} home was not.",
        "One night, {hero} heard a loud crash. The storm had broken {damage} of the house!",
    ],
    attempt: &[
        "{Hero} tried to fix {damage} alone, but it was too heavy. \"What shall I do?\" said the {kind}.",
        "The {kind} worked all morning. Each time {he} put {damage} up, it fell down again.",
        "{He} looked at {damage} and did not know where to begin. The rain came in, and {hero} was cold.",
    ],
    meeting: MEET_NEW,
    solution: &[
        "\"I have {stuff},\" said {pal}. \"We can fix {damage} before the night comes.\" The {kind} and the {palkind} worked side by side.",
        "{Pal} ran home and came back with {stuff}. \"You hold, and I will build,\" said the {palkind}.",
        "\"Do not worry,\" said the {palkind}. {Pal} knew how to build with {stuff}, and {palhe} showed {hero} what to do.",
    ],
    result: &[
        "In the evening, {damage} was as good as new. {Hero} made {meal}, and {pal} ate three plates.",
        "Soon {damage} was stronger than before. \"Please stay for dinner,\" said the {kind}. They ate {meal} by the fire.",
        "When the work was done, the {palkind} was tired and hungry. {Hero} cooked {meal} for {pal}, and they both laughed at the rain.",
    ],
    lessons: &[
        "many hands make light work",
        "good neighbors are like sunshine",
        "after every storm the sun comes back",
    ],
    question: ("What was broken?", "The storm broke {damage} of {his} house. {Hero} and {pal} fixed it with {stuff}."),
};

/// A story about a birthday.
pub(crate) const BIRTHDAY: Plot = Plot {
    topics: &["a birthday", "a birthday gift", "making a gift for a friend"],
    extras: &[
        ("present", &["chocolate cake", "wooden toy", "woolen hat", "string of beads", "clay cup"]),
        (
            "mishap",
            &[
                "it fell on the floor",
                "it broke in two",
                "the rain washed it away",
                "a gust of wind took it",
                "it rolled into the river",
            ],
        ),
        ("idea", &["a song", "a poem", "a dance", "a story", "a picture"]),
    ],
    problem: &[
        "{Pal} the {palkind} was the best friend of {hero}. {Time}, it was the birthday of {pal}. {Hero} wanted to make {a_present}.",
        "{Time}, {hero} remembered that it was the birthday of {pal}, {his} best friend. {Pal} was {a_palkind}. \"I will make {a_present} for {palhim},\" said the {kind}.",
        "{Hero} had a best friend, {a_palkind} named {pal}. For the birthday of {pal}, {hero} made {a_present}.",
    ],
    attempt: &[
        "{He} worked all day long. But on the way to {pal}, {mishap}! {Hero} was very upset.",
        "The {present} was ready at last. Then {mishap}. \"Oh no!\" cried the {kind}. \"Now I have no gift.\"",
        "It was the finest {he} had ever made. But then {mishap}. {Hero} wanted to cry.",
    ],
    meeting: &[
        "There was no time to make a new one. {Hero} sat down and thought hard.",
        "\"What can I give without any money?\" said {hero}. Then {his} eyes grew bright.",
        "The {kind} looked at {his} empty hands. All at once, {he} had an idea.",
    ],
    solution: &[
        "{He} made {idea} just for {pal}. It was all about the two of them.",
        "\"I will give {palhim} {idea},\" said the {kind}. {Hero} thought of all the good days with the {palkind} and began.",
        "{Hero} ran to the house of the {palkind}. \"I have no present,\" {he} said, \"but I made {idea} for you.\"",
    ],
    result: &[
        "{Pal} was quiet for a moment. Then the {palkind} hugged {hero}. \"This is the best gift of all,\" said {pal}.",
        "The {palkind} loved it. \"Nobody ever made {idea} for me before,\" said {pal} to the {kind}.",
        "All the guests clapped, and {pal} smiled from ear to ear. \"Thank you, {hero}!\" said the {palkind}.",
    ],
    lessons: &["the best gifts come from the heart", "love matters more than things", "a good idea can save the day"],
    question: ("What did {hero} give to {pal}?", "{Hero} made {idea} for {pal} the {palkind}."),
};

/// A story about a strange noise.
pub(crate) const NOISE: Plot = Plot {
    topics: &["a strange noise", "a mystery", "{a_kind} who heard a strange noise"],
    extras: &[
        ("noise", &["soft tapping", "low humming", "scratching sound", "strange howl", "tiny bell"]),
        ("source", &["the roof", "the cellar", "the garden", "the old barn", "the kitchen", "the attic"]),
        (
            "reason",
            &[
                "looking for a warm bed",
                "practicing for a concert",
                "making a surprise",
                "looking for a lost button",
                "trying to catch the moon",
            ],
        ),
    ],
    problem: &[
        "One night, {hero} woke up. {He} heard {a_noise}. It came from {source}.",
        "{Time}, {hero} heard {a_noise} from {source}. \"Who is there?\" {he} asked. Nobody answered.",
        "Every night, there was {a_noise} in {source}. {Hero} could not sleep.",
    ],
    attempt: &[
        "\"Maybe it is a ghost,\" thought the {kind}. {He} pulled the blanket over {his} head.",
        "{Hero} took a candle and walked on the tips of {his} toes. {His} heart beat fast.",
        "The {kind} stood very still and listened. There it was again, the {noise}!",
    ],
    meeting: &[
        "Slowly, {he} went to {source} and looked. There sat {a_palkind}! \"Please do not be angry,\" said the {palkind}. \"I am {pal}.\"",
        "{Hero} opened the door to {source}. It was not a ghost at all. It was {pal} the {palkind}!",
        "In {source}, two eyes were shining. Then a small voice said, \"Hello, my name is {pal}.\" It was {a_palkind}.",
    ],
    solution: &[
        "\"I was only {reason},\" said {pal}. {Hero} was so happy that {he} laughed out loud.",
        "The {palkind} had been {reason}. \"I did not want to scare you,\" said {pal}.",
        "\"What are you doing here?\" asked {hero}. \"I am {reason},\" said the {palkind}.",
    ],
    result: &[
        "{Hero} made hot milk for both of them. They sat in {source} and talked until morning.",
        "\"Next time, just knock on my door,\" said the {kind}. {Pal} promised, and they shook hands.",
        "The {kind} helped {pal}, and the noise was never scary again.",
    ],
    lessons: &[
        "things are less scary when you look at them",
        "a strange noise can be a new friend",
        "it is wise to ask before you are afraid",
    ],
    question: ("What did {hero} hear?", "{Hero} heard {a_noise}. It was {pal} the {palkind}, who was {reason}."),
};
