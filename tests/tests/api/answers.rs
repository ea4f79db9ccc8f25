//! Answers are those of the model, whatever form they are asked for in.

use serde_json::{Value, json};
use swarm_client::GenerationConfig;
use swarm_model::{ChatMessage, SamplingConfig};
use swarm_tests::harness::{Api, Client, Local, PROMPT, eventually, greedy};

use super::*;

#[test]
fn models_are_listed_with_what_is_known_of_them() {
    let swarm = swarm();
    let api = Api::start(&swarm, &[]);
    let list = api.http.get("/v1/models").expect(200);
    assert_eq!(list["object"], "list");
    let model = &list["data"][0];
    assert_eq!((model["id"].as_str(), model["object"].as_str()), (Some("demo"), Some("model")));
    assert_eq!(
        (model["context_length"].as_u64(), model["model_id"].as_str()),
        (Some(2048), Some(swarm.servers[0].model_id.as_str()))
    );
    assert_eq!(&api.http.get("/v1/models/demo").expect(200), model);
    let error = api.http.get("/v1/models/org/name").expect(404);
    assert_eq!(error["error"]["code"], "model_not_found");
    assert_eq!(api.http.get("/health").expect(200)["status"], "ok");
    api.http.get("/ready").expect(200);
}

#[test]
fn a_completion_is_the_models_text_in_one_piece_or_as_it_comes() {
    let swarm = swarm();
    let api = Api::start(&swarm, &[]);
    let whole = api.complete(&completion());
    assert_eq!(whole["choices"][0]["text"], expected(TOKENS));
    assert_eq!(
        (whole["object"].as_str(), whole["choices"][0]["finish_reason"].as_str()),
        (Some("text_completion"), Some("length"))
    );
    let prompt_tokens = Local::demo().encode(PROMPT).len();
    let usage = &whole["usage"];
    assert_eq!(
        (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()),
        (Some(prompt_tokens as u64), Some(TOKENS as u64))
    );
    let route = whole["swarm"]["route"].as_array().unwrap();
    let peers: Vec<String> = swarm.servers.iter().map(|server| server.peer.to_string()).collect();
    assert_eq!(route.iter().map(|hop| hop["peer"].as_str().unwrap()).collect::<Vec<_>>(), peers);
    assert_eq!(route.iter().map(|hop| hop["blocks"].as_str().unwrap()).collect::<Vec<_>>(), ["0..6", "6..12"]);
    assert!(whole["swarm"]["time_to_first_token_ms"].as_f64().unwrap() > 0.0);
    assert_eq!((&whole["swarm"]["reroutes"], whole["system_fingerprint"].as_str().unwrap().len()), (&json!(0), 15));

    let chunks = api.http.stream("/v1/completions", &with(completion(), "stream", json!(true))).rest();
    assert_eq!(completion_text(&chunks), expected(TOKENS));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "length");
    assert!(chunks.last().unwrap()["swarm"]["route"].is_array());
    // The same as token ids; and without a model's name, which is the first one's.
    let ids = with(completion(), "prompt", json!(Local::demo().encode(PROMPT)));
    assert_eq!(api.complete(&with(ids, "model", json!("")))["choices"][0]["text"], expected(TOKENS));
    // A prompt that is repeated.
    let echoed = api.complete(&with(completion(), "echo", json!(true)));
    assert_eq!(echoed["choices"][0]["text"], format!("{PROMPT}{}", expected(TOKENS)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_is_answered_as_the_template_asks() {
    let swarm = swarm();
    let api = Api::start(&swarm, &[]);
    let client = Client::of(&swarm).await;
    let messages = [ChatMessage::new("system", "Be kind."), ChatMessage::new("user", "Tell me a story about a fox.")];
    let ids = client.model.encode_chat(&messages).unwrap();
    let expected = Local::demo().answer(&ids, &greedy(), TOKENS);
    let parts = json!([{"type": "text", "text": "Tell me a story "}, {"type": "text", "text": "about a fox."}]);
    let request = with(
        chat(),
        "messages",
        json!([{"role": "developer", "content": "Be kind."}, {"role": "user", "content": parts}]),
    );
    let whole = api.chat(&request);
    let choice = &whole["choices"][0];
    assert_eq!(
        (whole["object"].as_str(), choice["message"]["role"].as_str()),
        (Some("chat.completion"), Some("assistant"))
    );
    assert_eq!(
        (choice["message"]["content"].as_str(), &choice["logprobs"]),
        (Some(expected.text.as_str()), &Value::Null)
    );

    let request = with(with(request, "stream", json!(true)), "stream_options", json!({"include_usage": true}));
    let stream = api.http.stream("/v1/chat/completions", &request);
    assert_eq!(stream.header("content-type"), Some("text/event-stream"));
    let chunks = stream.rest();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(chat_text(&chunks), expected.text);
    let (last, before) = chunks.split_last().unwrap();
    assert!(before.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == last["id"]));
    assert_eq!(
        (&last["choices"], last["usage"]["completion_tokens"].as_u64()),
        (&json!([]), Some(expected.tokens.len() as u64))
    );
    assert!(last["swarm"]["request_id"].as_str().unwrap().starts_with("req_"));
}

#[test]
fn a_seed_gives_the_same_text_and_n_gives_as_many() {
    let swarm = swarm();
    let api = Api::start(&swarm, &[]);
    let request =
        json!({"prompt": PROMPT, "max_tokens": 20, "temperature": 0.9, "top_p": 0.95, "top_k": 50, "seed": 7, "n": 3});
    let texts = |answer: &Value| -> Vec<String> {
        let choices = answer["choices"].as_array().unwrap();
        assert!(choices.iter().enumerate().all(|(place, choice)| choice["index"] == place));
        choices.iter().map(|choice| choice["text"].as_str().unwrap().to_string()).collect()
    };
    let expected: Vec<String> = (7..10)
        .map(|seed| {
            let sampling =
                SamplingConfig { temperature: Some(0.9), top_p: Some(0.95), top_k: Some(50), seed, ..greedy() };
            Local::demo().text(PROMPT, &sampling, 20).text
        })
        .collect();
    let whole = api.complete(&request);
    assert_eq!(texts(&whole), expected);
    let prompt = Local::demo().encode(PROMPT).len() as u64;
    assert_eq!(whole["usage"]["prompt_tokens"].as_u64(), Some(prompt), "the prompt counts once");
    let chunks = api.http.stream("/v1/completions", &with(request.clone(), "stream", json!(true))).rest();
    let streamed: Vec<String> = (0..3)
        .map(|index| {
            let of = chunks.iter().map(|chunk| &chunk["choices"][0]).filter(|choice| choice["index"] == index);
            of.filter_map(|choice| choice["text"].as_str()).collect()
        })
        .collect();
    assert_eq!(streamed, expected);
    // Several prompts, two answers to each.
    let prompts = with(with(request, "prompt", json!([PROMPT, "One night, a big storm came."])), "n", json!(2));
    let both = texts(&api.complete(&prompts));
    assert_eq!((both.len(), &both[..2]), (4, &expected[..2]));
    // Without a seed two answers differ.
    let unseeded = json!({"prompt": PROMPT, "max_tokens": 40, "temperature": 1.5, "n": 2});
    let two = texts(&api.complete(&unseeded));
    assert_ne!(two[0], two[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odds_are_the_models_own_in_both_forms() {
    let swarm = swarm();
    let api = Api::start(&swarm, &[]);
    let client = Client::of(&swarm).await;
    let ids = client.model.encode(PROMPT).unwrap();
    let mut session = client.model.text_session_for(&ids, ids.len() + 10).await.unwrap();
    let config = GenerationConfig { max_tokens: 10, probabilities: Some(3), ..GenerationConfig::default() };
    let mut generation = session.generate(&ids, config).unwrap();
    let mut odds = Vec::new();
    while let Some(event) = generation.next().await.unwrap() {
        if let swarm_client::GenerationEvent::Token { probabilities, .. } = event {
            odds.push(probabilities.unwrap());
        }
    }
    let request = with(with(completion(), "max_tokens", json!(10)), "logprobs", json!(3));
    let whole = api.complete(&request);
    let legacy = &whole["choices"][0]["logprobs"];
    let logs: Vec<f32> =
        legacy["token_logprobs"].as_array().unwrap().iter().map(|log| log.as_f64().unwrap() as f32).collect();
    assert_eq!(logs, odds.iter().map(|odds| odds.chosen).collect::<Vec<_>>());
    let tokens: String = legacy["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(tokens, whole["choices"][0]["text"].as_str().unwrap());
    assert!(
        legacy["top_logprobs"].as_array().unwrap().iter().all(|top| (3..=4).contains(&top.as_object().unwrap().len()))
    );
    assert_eq!(legacy["text_offset"][0], 0);

    let request = with(with(chat(), "logprobs", json!(true)), "top_logprobs", json!(2));
    let content = api.chat(&request)["choices"][0]["logprobs"]["content"].clone();
    let content = content.as_array().unwrap();
    assert_eq!(content.len(), TOKENS);
    for token in content {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["token"]), (2, &token["token"]), "greedy takes the likeliest");
        assert_eq!(token["bytes"].as_array().unwrap().len(), token["token"].as_str().unwrap().len());
    }
    let chunks = api.http.stream("/v1/chat/completions", &with(request, "stream", json!(true))).rest();
    let streamed: Vec<&Value> = chunks.iter().map(|chunk| &chunk["choices"][0]["logprobs"]["content"][0]).collect();
    let streamed: Vec<&Value> = streamed.into_iter().filter(|token| token.is_object()).collect();
    assert_eq!(streamed, content.iter().collect::<Vec<_>>());
}

#[test]
fn embeddings_are_the_mean_of_the_last_hidden_states() {
    let swarm = swarm();
    let api = Api::start(&swarm, &[]);
    let texts = [PROMPT, "One night, a big storm came."];
    let answer = api.http.post("/v1/embeddings", &json!({"model": "demo", "input": texts})).expect(200);
    let vector = |index: usize| -> Vec<f32> {
        let numbers = answer["data"][index]["embedding"].as_array().unwrap();
        numbers.iter().map(|number| number.as_f64().unwrap() as f32).collect()
    };
    let local = Local::demo();
    for (index, text) in texts.into_iter().enumerate() {
        let ids = local.encode(text);
        let rows = local.final_norm(&local.forward(swarm_tests::harness::range(0, 12), &local.embed(&ids)));
        let sum: Vec<f64> = (0..128).map(|at| rows.iter().map(|row| f64::from(row[at])).sum()).collect();
        let length = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
        let found = vector(index);
        assert_eq!(found.len(), 128);
        assert!(found.iter().zip(&sum).all(|(found, sum)| (f64::from(*found) - sum / length).abs() < 1e-6));
    }
    let tokens: usize = texts.iter().map(|text| local.encode(text).len()).sum();
    assert_eq!(answer["usage"]["prompt_tokens"].as_u64(), Some(tokens as u64));
    // As token ids, and in base64: the same numbers.
    let ids = json!({"input": local.encode(PROMPT), "encoding_format": "base64"});
    let packed = api.http.post("/v1/embeddings", &ids).expect(200)["data"][0]["embedding"].clone();
    assert_eq!(packed.as_str().unwrap().len(), (128 * 4_usize).div_ceil(3) * 4);
    let error = api.http.post("/v1/embeddings", &json!({"input": "x", "dimensions": 7})).expect(400);
    assert_eq!(error["error"]["param"], "dimensions");
}

#[test]
fn the_next_turn_begins_where_the_last_one_ended() {
    let swarm = swarm();
    let api = Api::start(&swarm, &["--api-key", "alice-key,bob-key"]);
    let question = [PROMPT; 12].join(" ");
    let long = json!({"messages": [{"role": "user", "content": question}], "max_tokens": 20, "temperature": 0});
    let told = |key: &str, request: &Value| {
        let client = api.http.with("authorization", &format!("Bearer {key}"));
        client.post("/v1/chat/completions", request).expect(200)
    };
    let cached = |answer: &Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let first = told("alice-key", &long);
    assert_eq!(cached(&first), 0);
    let text = first["choices"][0]["message"]["content"].clone();
    let mut next = long.clone();
    next["messages"]
        .as_array_mut()
        .unwrap()
        .extend([json!({"role": "assistant", "content": text}), json!({"role": "user", "content": "And then?"})]);
    // Pages are kept when a session has ended, which is a moment after its answer.
    eventually("the beginning is known", || (cached(&told("alice-key", &next)) >= 128).then_some(()));
    let others = told("bob-key", &long);
    assert_eq!(cached(&others), 0, "what one key has computed is nobody else's");
    assert_eq!(others["choices"], first["choices"]);
    assert_eq!(first["swarm"]["reused_tokens"], 0);
}
