//! Texts of a given form, stop strings and penalties, through a swarm of real processes.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use swarm_client::{ClientConfig, EdgesPlace, Finish, GenerationConfig, SessionError};
use swarm_model::{Constraint, ModelSpec, SamplingConfig};
use swarm_tests::harness::{Client, GenerateOutput, Local, PROMPT, TestSwarm, greedy, host, sampled};

const TOKENS: usize = 160;

fn animal() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 16},
            "age": {"type": "integer", "minimum": 1, "maximum": 99},
            "brave": {"type": "boolean"},
            "kind": {"enum": ["fox", "owl", "bear cub"]},
        },
        "required": ["name", "age", "brave", "kind"],
        "additionalProperties": false,
    })
}

#[track_caller]
fn is_animal(value: &Value) {
    let keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(keys, ["name", "age", "brave", "kind"]);
    assert!(value["name"].as_str().unwrap().chars().count() <= 16, "{value}");
    assert!(value["age"].as_u64().is_some_and(|age| (1..=99).contains(&age)), "{value}");
    assert!(value["brave"].is_boolean(), "{value}");
    assert!(["fox", "owl", "bear cub"].contains(&value["kind"].as_str().unwrap()), "{value}");
}

fn list() -> Value {
    json!({
        "type": "array",
        "items": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/pair"}]},
        "minItems": 1,
        "maxItems": 3,
        "$defs": {"pair": {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": -5, "maximum": 5}, "b": {"const": "é\"\\"}},
            "required": ["a", "b"],
            "additionalProperties": false,
        }},
    })
}

#[track_caller]
fn is_list(value: &Value) {
    let items = value.as_array().expect("a list");
    assert!((1..=3).contains(&items.len()), "{value}");
    for item in items.iter().filter(|item| !item.is_null()) {
        assert!(
            item["a"].as_f64().is_some_and(|a| a.fract() == 0.0 && a.abs() <= 5.0) && item["b"] == "é\"\\",
            "{value}"
        );
    }
}

fn generate(swarm: &TestSwarm, options: &[&str]) -> GenerateOutput {
    generate_at_most(swarm, TOKENS, options)
}

fn generate_at_most(swarm: &TestSwarm, most: usize, options: &[&str]) -> GenerateOutput {
    let most = most.to_string();
    let told = swarm.generate(&[&["--prompt", PROMPT, "--max-tokens", &most], options].concat()).finish();
    assert_eq!(told.exit.code, Some(0), "{}", told.exit.stderr);
    let tail = told.text.strip_prefix(&told.streamed_text);
    assert!(tail.is_some(), "what was shown is taken back: {:?} of {:?}", told.streamed_text, told.text);
    told
}

#[test]
fn the_command_line_gives_texts_of_a_form() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let schema = swarm.folder().join("animal.schema.json");
    std::fs::write(&schema, animal().to_string()).unwrap();
    let lark = swarm.folder().join("verse.lark");
    std::fs::write(&lark, "start: line line\nline: (\"fox\" | \"owl\") \" \" /[a-z]{2,6}/ \"\\n\"\n").unwrap();
    let (file, inline) = (schema.to_str().unwrap(), list().to_string());
    for how in [&[][..], &["--temperature", "1.2", "--seed", "3"]] {
        let with = |options: &[&str]| generate(&swarm, &[options, how].concat());
        let told = with(&["--json-schema", file]);
        assert_eq!(told.done["finish"], "stop", "{}", told.text);
        is_animal(&serde_json::from_str(&told.text).unwrap());
        is_list(&serde_json::from_str(&with(&["--json-schema", &inline]).text).unwrap());

        let told = with(&["--regex", "(Luna|the fox) (ran|sat)( far)?[.!]"]);
        let (head, _end) = told.text.split_at(told.text.len() - 1);
        let rest = head.strip_prefix("Luna ").or_else(|| head.strip_prefix("the fox ")).expect(&told.text);
        assert!(
            ["ran", "sat", "ran far", "sat far"].contains(&rest) && told.text.ends_with(['.', '!']),
            "{}",
            told.text
        );

        let told = with(&["--grammar", lark.to_str().unwrap()]);
        assert_eq!(told.text.lines().count(), 2);
        for line in told.text.lines() {
            let rest = line.strip_prefix("fox ").or_else(|| line.strip_prefix("owl ")).expect(line);
            assert!((2..=6).contains(&rest.len()), "{line}");
        }
    }
    // A text that is cut off is the beginning of one of its form.
    let told = generate_at_most(&swarm, 5, &["--json-object"]);
    assert!(told.text.starts_with('{') && told.tokens.len() <= 5, "{}", told.text);
    assert!(told.done["finish"] == "length" || serde_json::from_str::<Value>(&told.text).is_ok(), "{}", told.text);
}

#[test]
fn what_cannot_be_obeyed_is_said_before_any_server_is_asked() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let refused = |options: &[&str]| {
        let told = swarm.generate(&[&["--prompt", PROMPT], options].concat()).finish();
        assert_ne!(told.exit.code, Some(0));
        assert!(told.routes.is_empty(), "{:?}", told.routes);
        told.exit.stderr
    };
    let error = refused(&[
        "--json-schema",
        "{\"properties\": {\"age\": {\"type\": \"number\", \"format\": \"big\", \"uniqueItems\": 3}}}",
    ]);
    assert!(error.contains("the JSON schema cannot be used") && error.contains("/properties/age"), "{error}");
    assert!(refused(&["--regex", "a("]).contains("regular expression"));
    assert!(refused(&["--json-schema", "no such file"]).contains("no such file"));
    assert!(refused(&["--regex", "a", "--json-object"]).contains("cannot be used with"));
    assert!(refused(&["--presence-penalty", "3"]).contains("presence_penalty"));
    assert!(refused(&["--stop", ""]).contains("stop"));
    let error = refused(&["--edges", "served", "--regex", "a"]);
    assert!(error.contains("leave out `--edges served`"), "{error}");
}

#[test]
fn a_text_ends_before_a_stop_string() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let whole = generate(&swarm, &[]).text;
    // In the middle of words, so that it begins and ends within tokens; and one that never comes.
    let middle = whole.char_indices().nth(whole.chars().count() / 2).unwrap().0;
    let stop: String = whole[middle..].chars().take(9).collect();
    let told = generate(&swarm, &["--stop", "no such words", "--stop", &stop]);
    let expected = &whole[..whole.find(&stop).unwrap()];
    assert_eq!(
        (told.text.as_str(), &told.done["finish"], &told.done["stop"]),
        (expected, &json!("stop"), &json!(stop))
    );
    assert_eq!(told.streamed_text, expected, "nothing is held back at the end");
    // A beginning of it that is the end of the text is shown.
    let cut = generate_at_most(&swarm, told.tokens.len() - 1, &["--stop", &stop]);
    assert_eq!((&cut.done["finish"], &cut.done["stop"]), (&json!("length"), &Value::Null));
    assert!(whole.starts_with(&cut.text) && cut.text.len() >= cut.streamed_text.len(), "{}", cut.text);
    assert_eq!(cut.tokens, told.tokens[..told.tokens.len() - 1]);
}

#[test]
fn penalties_do_what_they_say() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let plain = generate(&swarm, &[]).tokens;
    let (presence, frequency) = (Some(1.5), Some(1.1));
    for (options, sampling) in [
        (&["--presence-penalty", "1.5"][..], SamplingConfig { presence_penalty: presence, ..greedy() }),
        (&["--frequency-penalty", "1.1"], SamplingConfig { frequency_penalty: frequency, ..greedy() }),
        (
            &["--presence-penalty=-1.5", "--temperature", "0.9", "--min-p", "0.1"],
            SamplingConfig { presence_penalty: Some(-1.5), temperature: Some(0.9), min_p: Some(0.1), ..greedy() },
        ),
    ] {
        let told = generate(&swarm, options).tokens;
        assert_ne!(told, plain, "{options:?}");
        assert_eq!(told, Local::demo().text(PROMPT, &sampling, TOKENS).tokens, "{options:?}");
    }
    let most = |tokens: &[u32]| tokens.iter().map(|id| tokens.iter().filter(|other| *other == id).count()).max();
    let told = generate(&swarm, &["--frequency-penalty", "2"]).tokens;
    assert!(most(&told[..plain.len().min(told.len())]) < most(&plain), "the commonest token has become rarer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_server_takes_nothing_of_the_form_along() {
    for sampling in [greedy(), sampled(4)] {
        let mut swarm = TestSwarm::demo(&[(0, 6), (0, 6), (6, 12), (6, 12)]);
        let client = Client::of(&swarm).await;
        let items = json!({"type": "array", "items": animal(), "minItems": 2, "maxItems": 2});
        let constraint = Some(Constraint::JsonSchema(items));
        let config = GenerationConfig { max_tokens: 400, sampling, constraint, ..Default::default() };
        let alone = client.tell_as(PROMPT, config.clone(), async |_, _| {}).await.unwrap().summary;
        let mut killed = Vec::new();
        let told = client.tell_as(PROMPT, config, async |tokens, route| {
            for (after, block) in [(10, 0), (25, 11)] {
                if tokens == after {
                    let victim = swarm.server(host(route, block));
                    victim.process.kill();
                    killed.push(victim.peer);
                }
            }
        });
        let told = told.await.unwrap();
        let lost: Vec<_> = told.lost.iter().map(|(peer, _)| *peer).collect();
        assert_eq!((told.summary.tokens, told.summary.finish), (alone.tokens, Finish::EndOfText));
        assert_eq!(lost, killed);
        let value: Value = serde_json::from_str(&told.summary.text).unwrap();
        value.as_array().unwrap().iter().for_each(is_animal);
        assert_eq!(value.as_array().unwrap().len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_the_choice_to_servers_is_told_that_they_know_no_form() {
    let mut swarm = TestSwarm::demo(&[(0, 12)]);
    swarm.serve(&[(0, 1)], &["--edges"]);
    let config = ClientConfig { edges: EdgesPlace::Served, ..ClientConfig::default() };
    let client = Client::with(&swarm, &ModelSpec::Demo, None, config).await;
    let config = GenerationConfig { constraint: Some(Constraint::JsonObject), ..Default::default() };
    let refused = client.model.check(&config);
    assert!(matches!(refused, Err(SessionError::ConstraintElsewhere)), "{refused:?}");
    let refused = client.tell_as(PROMPT, config, async |_, _| {}).await;
    assert!(matches!(refused, Err(SessionError::ConstraintElsewhere)));
    // Stop strings are this client's own business.
    let stop = vec![".".to_string()];
    let config = GenerationConfig { stop: stop.clone(), ..Default::default() };
    let told = client.tell_as(PROMPT, config, async |_, _| {}).await.unwrap().summary;
    assert_eq!(told.finish, Finish::Stop(".".to_string()));
    assert!(!told.text.contains('.') && told.text.len() > 3, "{:?}", told.text);
}

#[test]
fn a_batch_has_lines_of_many_kinds() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let input = swarm.folder().join("in.jsonl");
    let lines = [
        json!({"id": "plain", "prompt": PROMPT, "max_tokens": 30}),
        json!({"id": "stop", "prompt": PROMPT, "stop": [".", "!"]}),
        json!({"id": "schema", "prompt": PROMPT, "json_schema": animal(), "temperature": 1.0, "seed": 5}),
        json!({"id": "regex", "prompt": PROMPT, "regex": "[a-z]{3}"}),
        json!({"id": "penalty", "prompt": PROMPT, "max_tokens": 30, "frequency_penalty": 1.5}),
        json!({"id": "bad", "prompt": PROMPT, "regex": "("}),
    ];
    std::fs::write(&input, lines.map(|line| line.to_string()).join("\n")).unwrap();
    let mut command = swarm.node("generate");
    command.args(["--model", "demo", "--max-tokens", "160", "--batch"]).arg(&input);
    let exit = swarm.run("batch", command);
    assert_eq!(exit.code, Some(1), "one line has no text: {}", exit.stderr);
    let told: Vec<Value> = exit.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |id: &str| told.iter().find(|line| line["id"] == id).unwrap_or_else(|| panic!("no {id} in {told:?}"));
    let text = |id: &str| of(id)["text"].as_str().unwrap();
    assert_eq!(text("plain"), Local::demo().text(PROMPT, &greedy(), 30).text);
    assert!(!text("stop").contains(['.', '!']) && of("stop")["stop"].is_string(), "{}", of("stop"));
    is_animal(&serde_json::from_str(text("schema")).unwrap());
    assert!(text("regex").len() == 3 && text("regex").chars().all(|letter| letter.is_ascii_lowercase()));
    let sampling = SamplingConfig { frequency_penalty: Some(1.5), ..greedy() };
    assert_eq!(text("penalty"), Local::demo().text(PROMPT, &sampling, 30).text);
    assert!(of("bad")["error"].as_str().unwrap().contains("regular expression"), "{}", of("bad"));
}
