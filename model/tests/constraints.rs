//! Texts that are drawn at random among the tokens a constraint allows are of its form, with vocabularies of every kind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;
use serde_json::{Value, json};
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{
    Checkpoint, Constraint, Device, Grammars, History, ModelSpec, Sampler, SamplingConfig, Tensor, TextTokenizer,
};

/// Tokens after which a text that has not ended is given up; those here have a few dozen.
const MOST: usize = 600;

/// A vocabulary, and what ends its texts.
struct Vocabulary {
    tokenizer: TextTokenizer,
    vocab: usize,
    eos: Vec<u32>,
    grammars: Grammars,
}

impl Vocabulary {
    fn of(checkpoint: &Checkpoint, vocab: usize) -> Self {
        let tokenizer = checkpoint.tokenizer().unwrap();
        let eos = checkpoint.generation_defaults().unwrap().eos;
        let grammars = Grammars::new(tokenizer.clone(), vocab, &eos);
        Self { tokenizer, vocab, eos, grammars }
    }

    /// Bytes behind letters, as GPT-2's.
    fn byte_level() -> Self {
        // More logits than tokens, as many models have.
        Self::of(&Checkpoint::open(&ModelSpec::Demo).unwrap(), 1100)
    }

    /// SentencePiece's kind, with bytes for what it has no letter for.
    fn sentence_piece() -> Self {
        let letters = ('a'..='z').chain('A'..='Z').chain('0'..='9').chain("\u{2581}{}[]\":,.-_".chars());
        let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
        let pieces = ["\u{2581}the", "\u{2581}fox", "true", "false", "null", "\":", "\u{2581}\"", "\",", "{\"", "ing"];
        let tokens = ["<unk>", "<s>", "</s>"].map(String::from).into_iter().chain(bytes);
        let tokens = tokens.chain(letters.map(String::from)).chain(pieces.map(String::from));
        let ids: serde_json::Map<String, Value> = tokens.enumerate().map(|(id, token)| (token, json!(id))).collect();
        let vocab = ids.len();
        let special = |id: usize, token: &str| json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
        let tokenizer = json!({
            "version": "1.0",
            "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "\u{2581}"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
            ]},
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ]},
            "model": {"type": "BPE", "vocab": ids, "merges": [], "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true},
        });
        let directory = tempfile::tempdir().unwrap();
        SyntheticSpec::default().write(directory.path()).unwrap();
        std::fs::write(directory.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
        let ends = json!({"eos_token_id": 2});
        std::fs::write(directory.path().join("generation_config.json"), ends.to_string()).unwrap();
        Self::of(&Checkpoint::open(&ModelSpec::Directory(directory.path().into())).unwrap(), vocab)
    }

    /// A text whose tokens are drawn with that seed, all allowed ones as likely: its ids, and whether it came to its end.
    fn drawn(&self, constraint: &Constraint, seed: u64) -> (Vec<u32>, bool) {
        let mut matcher = self.grammars.matcher(constraint).unwrap();
        let mut sampler = Sampler::new(&SamplingConfig { temperature: Some(1.0), seed, ..Default::default() }).unwrap();
        let logits = Tensor::zeros(self.vocab, swarm_model::DType::F32, &Device::Cpu).unwrap();
        let mut ids = Vec::new();
        while ids.len() < MOST {
            let mask = matcher.mask().unwrap();
            let ends = self.eos.iter().any(|id| mask.allows(*id));
            assert_eq!(ends, matcher.may_end().unwrap(), "a text ends where its form is complete, and nowhere else");
            let id = sampler.sample_among(&logits, &History::default(), Some(&mask)).unwrap();
            assert!(mask.allows(id));
            if self.eos.contains(&id) {
                return (ids, true);
            }
            matcher.accept(id).unwrap();
            ids.push(id);
            if matcher.is_complete() {
                return (ids, true);
            }
        }
        (ids, false)
    }

    fn text(&self, constraint: &Constraint, seed: u64) -> String {
        let (ids, ended) = self.drawn(constraint, seed);
        let text = self.tokenizer.decode(&ids).unwrap();
        assert!(ended, "no end after {MOST} tokens: {text:?}");
        text
    }
}

fn person() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "kind": {"enum": ["fox", "brave bird"]},
            "friends": {"type": "array", "items": {"$ref": "#/$defs/friend"}, "maxItems": 2},
        },
        "required": ["name", "age", "kind"],
        "additionalProperties": false,
        "$defs": {"friend": {"anyOf": [{"type": "null"}, {"type": "boolean"}]}},
    })
}

#[track_caller]
fn is_person(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert!(value["name"].as_str().unwrap().chars().count() <= 8, "{text}");
    assert!(value["age"].as_i64().is_some_and(|age| (0..=120).contains(&age)), "{text}");
    assert!(["fox", "brave bird"].contains(&value["kind"].as_str().unwrap()), "{text}");
    let friends = value.get("friends").map(|friends| friends.as_array().unwrap().clone()).unwrap_or_default();
    assert!(friends.len() <= 2 && friends.iter().all(|friend| friend.is_null() || friend.is_boolean()), "{text}");
    let keys = ["name", "age", "kind", "friends"];
    assert!(value.as_object().unwrap().keys().all(|key| keys.contains(&key.as_str())), "{text}");
    // Within strings there may be more than between the parts.
    let longest = text.split(|letter: char| !letter.is_whitespace()).map(str::len).max();
    assert!(longest <= Some(41) && !text.contains("\n\n"), "there is room for endless space: {text:?}");
}

#[test]
fn json_of_a_schema_with_every_kind_of_vocabulary() {
    for vocabulary in [Vocabulary::byte_level(), Vocabulary::sentence_piece()] {
        let constraint = Constraint::JsonSchema(person());
        (0..60).for_each(|seed| is_person(vocabulary.text(&constraint, seed).trim_start()));
    }
}

#[test]
fn grammars_and_regular_expressions() {
    let vocabulary = Vocabulary::byte_level();
    let regex = Constraint::Regex(r"[a-c]{2,5}-([0-9]{2}|é)".to_string());
    let lark = Constraint::Lark("start: \"<\" name \">\" (\" \" name)*\nname: /[ab]{1,3}/\n".to_string());
    for seed in 0..40 {
        let text = vocabulary.text(&regex, seed);
        let (head, tail) = text.split_once('-').unwrap();
        assert!((2..=5).contains(&head.len()) && head.chars().all(|letter| "abc".contains(letter)), "{text}");
        assert!(tail == "é" || (tail.len() == 2 && tail.chars().all(|digit| digit.is_ascii_digit())), "{text}");
        let text = vocabulary.text(&lark, seed);
        let (first, rest) = text.strip_prefix('<').unwrap().split_once('>').unwrap();
        assert!(
            std::iter::once(first).chain(rest.split(' ').skip(1)).all(|name| (1..=3).contains(&name.len())),
            "{text}"
        );
    }
    // A grammar without an end is cut off by whoever generates.
    let endless = Constraint::JsonObject;
    assert!((0..5).all(|seed| vocabulary.drawn(&endless, seed).0.len() <= MOST));
}

#[test]
fn what_reads_like_a_special_token_is_none() {
    let vocabulary = Vocabulary::byte_level();
    let text = "a <|end|> b<|eos|>";
    let constraint = Constraint::JsonSchema(json!({"const": text}));
    let (ids, ended) = vocabulary.drawn(&constraint, 1);
    assert!(ended && ids.iter().all(|id| *id > 4), "{ids:?}");
    assert_eq!(serde_json::from_str::<Value>(&vocabulary.tokenizer.decode(&ids).unwrap()).unwrap(), text);
}

#[test]
fn a_copy_goes_its_own_way() {
    let vocabulary = Vocabulary::byte_level();
    let constraint = Constraint::JsonSchema(person());
    let (ids, _) = vocabulary.drawn(&constraint, 3);
    let mut one = vocabulary.grammars.matcher(&constraint).unwrap();
    let masks: Vec<usize> = ids
        .iter()
        .map(|id| {
            let mut other = one.copy();
            let count = one.mask().unwrap().count();
            assert_eq!(other.mask().unwrap().count(), count);
            one.accept(*id).unwrap();
            count
        })
        .collect();
    // What it knows follows from the tokens alone.
    let mut again = vocabulary.grammars.matcher(&constraint).unwrap();
    for (id, count) in ids.iter().zip(masks) {
        assert_eq!(again.mask().unwrap().count(), count);
        again.accept(*id).unwrap();
    }
}

#[test]
fn errors_name_the_place() {
    let grammars = Vocabulary::byte_level().grammars;
    let why = |constraint: &Constraint| grammars.matcher(constraint).unwrap_err().to_string();
    let schema = |part: Value| {
        let items = json!({"type": "array", "items": part});
        Constraint::JsonSchema(json!({"type": "object", "properties": {"a": {"type": "string"}, "b/c": items}}))
    };
    for (part, word) in [
        (json!({"type": "strin"}), "strin"),
        (json!({"type": "string", "pattern": "("}), "regex"),
        (json!({"type": "string", "format": "phone"}), "phone"),
        (json!({"$ref": "#/$defs/gone"}), "gone"),
        (json!({"uniqueItems": true, "type": "array"}), "uniqueItems"),
    ] {
        let error = why(&schema(part.clone()));
        assert!(error.starts_with("the JSON schema cannot be used: "), "{error}");
        assert!(error.contains(word) && error.contains("/properties/b~1c/items"), "{part}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    assert!(why(&Constraint::JsonSchema(json!([]))).contains("object"));
    assert!(why(&Constraint::Lark("start: FOO\n".to_string())).contains("FOO"));
    assert_eq!(why(&Constraint::Regex("a(".to_string())), "the regular expression cannot be used: unclosed group");
    let long = Constraint::Regex("a".repeat(2 << 20));
    assert!(why(&long).contains("1048576"));
}

#[test]
fn a_token_that_is_not_allowed_is_refused() {
    let vocabulary = Vocabulary::byte_level();
    let mut matcher = vocabulary.grammars.matcher(&Constraint::Regex("ab".to_string())).unwrap();
    let mask = matcher.mask().unwrap();
    let other = (0..vocabulary.vocab as u32).find(|id| !mask.allows(*id)).unwrap();
    assert!(matcher.accept(other).is_err());
}

/// A schema of what JSON can be, not deep.
fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "boolean"})),
        Just(json!({"type": "null"})),
        (-50i64..0, 0i64..50).prop_map(|(least, most)| json!({"type": "integer", "minimum": least, "maximum": most})),
        (0usize..6).prop_map(|most| json!({"type": "string", "maxLength": most})),
        prop::collection::vec("[a-z\"\\\\é]{0,4}", 1..3).prop_map(|all| json!({"enum": all})),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), 0usize..3)
                .prop_map(|(items, most)| json!({"type": "array", "items": items, "maxItems": most})),
            prop::collection::btree_map("[a-c]", inner, 0..3).prop_map(|properties| {
                let required: Vec<String> = properties.keys().cloned().collect();
                json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
            }),
        ]
    })
}

/// Whether a value is of a schema made by [`schema`].
fn fits(schema: &Value, value: &Value) -> bool {
    if let Some(all) = schema["enum"].as_array() {
        return all.contains(value);
    }
    let most = |key: &str| schema[key].as_u64().unwrap() as usize;
    match schema["type"].as_str().unwrap() {
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        // -0 is one, but of no integer type.
        "integer" if value.as_f64() == Some(0.0) => true,
        "integer" => value.as_i64().is_some_and(|value| {
            schema["minimum"].as_i64() <= Some(value) && Some(value) <= schema["maximum"].as_i64()
        }),
        "string" => value.as_str().is_some_and(|text| text.chars().count() <= most("maxLength")),
        "array" => value.as_array().is_some_and(|items| {
            items.len() <= most("maxItems") && items.iter().all(|item| fits(&schema["items"], item))
        }),
        _ => value.as_object().is_some_and(|object| {
            let properties = schema["properties"].as_object().unwrap();
            object.len() == properties.len()
                && properties.iter().all(|(key, schema)| object.get(key).is_some_and(|value| fits(schema, value)))
        }),
    }
}

thread_local! {
    static VOCABULARY: Vocabulary = Vocabulary::byte_level();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_schema_gives_texts_that_fit_it(schema in schema(), seed in any::<u64>()) {
        let text = VOCABULARY.with(|vocabulary| vocabulary.text(&Constraint::JsonSchema(schema.clone()), seed));
        let value: Value = serde_json::from_str(&text).map_err(|error| TestCaseError::fail(format!("{error}: {text:?}")))?;
        prop_assert!(fits(&schema, &value), "{} of {}", text, schema);
    }
}
