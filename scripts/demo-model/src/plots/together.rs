//! Plots about what animals do for each other.

use super::{MEET_NEW, Plot};

/// A story about helping others.
pub(crate) const HELPING: Plot = Plot {
    topics: &["helping others", "helping a friend", "{a_kind} who helped {a_palkind}"],
    extras: &[
        (
            "trouble",
            &[
                "stuck in the mud",
                "caught in a net",
                "lost in the fog",
                "cold and wet",
                "very hungry",
                "hurt and alone",
            ],
        ),
        ("tool", &["long rope", "strong branch", "basket of food", "warm coat", "little boat", "old ladder"]),
    ],
    problem: &[
        "{Time}, {hero} heard a cry. \"Help! Help!\" It was {a_palkind} named {pal}, and {palhe} was {trouble}.",
        "{Time}, the {kind} saw {a_palkind} {meeting}. The {palkind} was {trouble}. {Palhis} name was {pal}.",
        "{Time}, {hero} was going to the market. {Meeting}, {he} found {pal} the {palkind}, who was {trouble}.",
    ],
    attempt: &[
        "Many animals had walked past, but nobody had stopped. \"I will not leave you here,\" said {hero}.",
        "{Hero} tried to help with {his} own two hands, but it was too hard. \"I need a better plan,\" said the {kind}.",
        "\"Please do not go away,\" said {pal}. \"I will stay,\" said {hero}. \"Let me think.\"",
    ],
    meeting: &[
        "Then {hero} remembered that {he} had {a_tool} at home. {He} ran as fast as {he} could to get it.",
        "The {kind} looked around and saw {a_tool}. \"That is just what we need!\" {he} said.",
        "{Hero} had an idea. \"Wait here,\" {he} told the {palkind}. Soon {he} came back with {a_tool}.",
    ],
    solution: &[
        "It was hard work, but {hero} did not stop. With the {tool}, {he} helped {pal} until the {palkind} was safe.",
        "\"Now be calm,\" said {hero}. {He} used the {tool}, and little by little everything was all right.",
        "With the {tool} and a bit of luck, the {kind} saved the {palkind}.",
    ],
    result: &[
        "\"You are my hero,\" said {pal}. The next day, the {palkind} brought {hero} a cake.",
        "{Pal} had tears in {palhis} eyes. \"I will never forget this,\" said the {palkind} to the {kind}.",
        "The {palkind} thanked {hero} again and again. From that day on, {hero} and {pal} did everything together.",
    ],
    lessons: &["helping others makes you happy", "a kind act is never wasted", "even one animal can make a difference"],
    question: (
        "What was wrong with {pal}?",
        "{Pal} the {palkind} was {trouble}, and {hero} helped {palhim} with {a_tool}.",
    ),
};

/// A story about sharing.
pub(crate) const SHARING: Plot = Plot {
    topics: &["sharing", "sharing {food}", "{a_kind} who did not want to share"],
    extras: &[
        ("food", &["apples", "berries", "nuts", "cookies", "carrots", "pears", "plums", "honey cakes"]),
        ("store", &["basket", "box", "bag", "jar", "cart"]),
    ],
    problem: &[
        "{Time}, {hero} found a big {store} full of {food}. \"These {food} are all mine,\" {he} said.",
        "{Hero} had a {store} full of {food}. {He} counted the {food} every night and never gave one away.",
        "{Time}, the {kind} filled a {store} with {food}. {He} wanted to keep them all for {himself}.",
    ],
    attempt: &[
        "{He} hid the {store} so that nobody could see it. Then {he} sat down and ate alone. It was not much fun.",
        "The {kind} ate and ate until {his} belly hurt. There were still so many {food} left.",
        "\"If I share, I will have less,\" thought {hero}. So {he} closed the door and sat in the dark with {his} {food}.",
    ],
    meeting: &[
        "Then there was a knock at the door. It was {a_palkind} named {pal}. \"I have not eaten all day,\" said {pal}.",
        "{Meeting}, {hero} saw {pal} the {palkind}. {Palhe} looked thin and tired. \"Do you have some food for me?\" {palhe} asked.",
        "{A_palkind} named {pal} came by. {Palhe} looked at the {food} but was too shy to ask.",
    ],
    solution: &[
        "{Hero} looked at the {store} and then at {pal}. {His} heart felt warm. \"Please sit down,\" said the {kind}. \"We can eat the {food} together.\"",
        "At first the {kind} wanted to say no. Then {he} saw how sad the {palkind} was. \"Take as many {food} as you like,\" said {hero}.",
        "{Hero} thought for a long time. Then {he} gave half of the {food} to the {palkind}. \"Half for you and half for me,\" {he} said.",
    ],
    result: &[
        "They ate {food} and talked until the stars came out. The {food} had never tasted so good.",
        "\"Thank you, {hero},\" said {pal}. The {palkind} told funny stories, and the {kind} laughed and laughed.",
        "{Pal} smiled and ate. The next day, the {palkind} came back with bread and milk, and {palhe} shared them with {hero}.",
    ],
    lessons: &["food tastes better when you share it", "sharing makes friends", "what you give comes back to you"],
    question: ("What did {hero} share?", "{Hero} shared {his} {food} with {pal} the {palkind}."),
};

/// A story about a long journey.
pub(crate) const JOURNEY: Plot = Plot {
    topics: &["a long journey", "{a_kind} who wanted to see {sight}", "a trip to see {sight}"],
    extras: &[
        (
            "sight",
            &[
                "the sea",
                "the snow",
                "the big city",
                "the end of the rainbow",
                "the highest hill",
                "the moon lake",
                "the great waterfall",
            ],
        ),
        ("block", &["wide river", "high wall", "thick fog", "deep hole", "dark forest"]),
        (
            "pack",
            &["some bread and cheese", "a map and a hat", "a little flute", "a bottle of water", "a blue umbrella"],
        ),
    ],
    problem: &[
        "{Hero} had never seen {sight}. {Time}, {he} took {pack} and started to walk.",
        "All {his} life, {hero} had dreamed of {sight}. {Time}, the {kind} packed {pack} and left home.",
        "\"I want to see {sight},\" said {hero}. {Time}, {he} put {pack} in a bag and set out.",
    ],
    attempt: &[
        "{He} walked for three days. Then {he} came to {a_block}. {Hero} could not go on.",
        "The road was long. After many miles, there was {a_block} in front of {him}. \"Oh no,\" said the {kind}.",
        "Everything went well until {hero} came to {a_block}. {He} sat down and did not know what to do.",
    ],
    meeting: MEET_NEW,
    solution: &[
        "\"I know this place,\" said the {palkind}. \"There is a secret way.\" {Pal} led {him} past the {block}.",
        "\"Climb on my back,\" said {pal} with a laugh. Together, the {kind} and the {palkind} got past the {block}.",
        "\"I want to see {sight} too,\" said the {palkind}. They worked together, and soon the {block} was behind them.",
    ],
    result: &[
        "And then they saw it. It was {sight}! {Hero} and {pal} sat there for hours and did not say a word.",
        "On the next day, {hero} saw {sight} at last. \"It is so beautiful,\" {he} said. {Pal} agreed.",
        "When they came to {sight}, the {kind} danced for joy. \"I will remember this day forever,\" said {hero} to {pal}.",
    ],
    lessons: &[
        "a long road is shorter with a friend",
        "dreams can come true",
        "the best part of a trip is the company",
    ],
    question: ("What did {hero} want to see?", "{Hero} wanted to see {sight}."),
};

/// A story about friendship.
pub(crate) const FRIENDSHIP: Plot = Plot {
    topics: &["friendship", "making a new friend", "{a_kind} who was lonely"],
    extras: &[
        ("game", &["hide and seek", "catch", "chess", "a counting game", "a guessing game", "tag"]),
        ("gift", &["shiny shell", "white feather", "daisy", "sweet cookie", "picture", "round pebble"]),
    ],
    problem: &[
        "But {hero} was lonely. {He} wanted a friend to play {game} with.",
        "{Hero} had many toys but nobody to play {game} with. \"I wish I had a friend,\" {he} said.",
        "{Time}, the {kind} wanted to play {game}. But you cannot play {game} alone.",
    ],
    attempt: &[
        "{He} asked the baker. The baker was too busy. {He} asked the farmer. The farmer was too tired. {Hero} went home with {his} head down.",
        "{Hero} waited by the window all day, but nobody came. The {kind} felt very alone.",
        "\"Will you play with me?\" {he} asked the clouds. The clouds just floated away.",
    ],
    meeting: &[
        "{Time}, a new family came to live next door. There was {a_palkind} named {pal}, and {palhe} looked lonely too.",
        "Then {he} saw {a_palkind} {meeting}. The {palkind} was all alone. {Palhis} name was {pal}.",
        "{Meeting}, someone was crying softly. It was {pal} the {palkind}. \"I have no friends,\" said {pal}.",
    ],
    solution: &[
        "{Hero} was nervous, but {he} walked up to the {palkind} and gave {palhim} {a_gift}. \"Do you want to play {game}?\" {he} asked.",
        "\"Hello, {pal},\" said {hero}. \"This is for you.\" {He} held out {a_gift}. The {palkind} began to smile.",
        "The {kind} had an idea. {He} gave {a_gift} to {pal} and said, \"We could play {game} together.\"",
    ],
    result: &[
        "\"I love {game}!\" said {pal}. They played until it was dark.",
        "{Pal} kept the {gift} forever. And every afternoon, the {kind} and the {palkind} played {game}.",
        "Soon the two were laughing and playing {game}. {Hero} was not lonely any more, and {pal} was not lonely either.",
    ],
    lessons: &[
        "a friend can be closer than you think",
        "it only takes one hello to make a friend",
        "friends make every day brighter",
    ],
    question: ("What did {hero} give to {pal}?", "{Hero} gave {a_gift} to {pal} the {palkind}."),
};
