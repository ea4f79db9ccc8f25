//! What cannot be obeyed is refused, with the field and what to do.

use std::io::{Read, Write};

use serde_json::{Value, json};
use swarm_tests::harness::{Api, HttpClient, TestSwarm, eventually};

use super::*;

#[test]
fn an_error_names_the_field_that_is_wrong() {
    let swarm = swarm();
    let api = Api::start(&swarm, &[]);
    let long = "fox ".repeat(3000);
    let message = |content: Value| json!([{"role": "user", "content": content}]);
    let chats = [
        ("messages", json!([])),
        ("messages", json!("hello")),
        ("messages", message(json!(long))),
        ("messages[0].role", json!([{"role": "wizard", "content": "x"}])),
        ("messages[0].content", message(json!(7))),
        ("messages[0].content[0]", message(json!([{"type": "image_url", "image_url": {"url": "data:"}}]))),
        ("temperature", json!("hot")),
        ("temperature", json!(2.5)),
        ("top_p", json!(-0.1)),
        ("n", json!(0)),
        ("n", json!(1000)),
        ("max_tokens", json!(0)),
        ("max_completion_tokens", json!(-5)),
        ("seed", json!("x")),
        ("stream", json!("yes")),
        ("stream_options", json!({"include_usage": true})),
        ("top_logprobs", json!(3)),
        ("logit_bias", json!({"50256": -100})),
        ("presence_penalty", json!(3)),
        ("stop", json!(["a", "b", "c", "d", "e"])),
        ("stop", json!(5)),
        ("tool_choice", json!("required")),
        ("tool_choice", json!("perhaps")),
        ("response_format.type", json!({"type": "xml"})),
        (
            "response_format",
            json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}),
        ),
        ("model", json!(5)),
    ];
    for (param, value) in chats {
        let field = param.split(['[', '.']).next().unwrap();
        let answer = api.http.post("/v1/chat/completions", &with(chat(), field, value.clone()));
        let error = &answer.expect(400)["error"];
        assert_eq!(
            (error["type"].as_str(), error["param"].as_str()),
            (Some("invalid_request_error"), Some(param)),
            "{value} {error}"
        );
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert!(answer.header("x-request-id").is_some());
    }
    let completions = [
        ("prompt", json!(null)),
        ("prompt", json!([])),
        ("prompt", json!({"text": "x"})),
        ("prompt", json!([1, 99999])),
        ("logprobs", json!(100)),
        ("suffix", json!("the end")),
        ("best_of", json!(3)),
    ];
    for (param, value) in completions {
        let error = api.http.post("/v1/completions", &with(completion(), param, value)).expect(400);
        assert_eq!(error["error"]["param"], param, "{error}");
    }
    let error = api.http.post("/v1/chat/completions", &with(chat(), "messages", message(json!(long)))).expect(400);
    assert_eq!(error["error"]["code"], "context_length_exceeded");
    let error = api.http.post("/v1/chat/completions", &with(chat(), "model", json!("gpt-4o"))).expect(404);
    assert_eq!(
        (error["error"]["code"].as_str(), error["error"]["param"].as_str()),
        (Some("model_not_found"), Some("model"))
    );
    // Fields that nobody knows are no error.
    api.chat(&with(with(chat(), "metadata", json!({"a": "b"})), "store", json!(false)));
    // Tokens that do not fit are fewer, not an error.
    let all = with(completion(), "max_tokens", json!(100_000));
    let all = with(all, "stream", json!(true));
    let mut stream = api.http.stream("/v1/completions", &all);
    assert_eq!((stream.status, stream.chunk().is_some()), (200, true));
}

#[test]
fn other_paths_methods_and_types_are_told() {
    let swarm = swarm();
    let api = Api::start(&swarm, &[]);
    assert_eq!(api.http.get("/v1/nonsense").expect(404)["error"]["code"], "unknown_url");
    assert_eq!(api.http.get("/v1/chat/completions").expect(405)["error"]["code"], "method_not_allowed");
    let text = api.http.with("content-type", "text/plain").request("POST", "/v1/completions", b"{}");
    assert_eq!(text.expect(415)["error"]["code"], "unsupported_media_type");
    assert_eq!(api.http.request("POST", "/v1/completions", b"{}").status, 415);
    let broken =
        api.http.with("content-type", "application/json").request("POST", "/v1/completions", b"{\"prompt\": \n  oh}");
    let message = broken.expect(400)["error"]["message"].to_string();
    assert!(message.contains("line 2 column 3"), "{message}");
    // An id that is sane comes back, another one does not.
    let id = |given: &str| {
        api.http.with("x-request-id", given).get("/v1/models").header("x-request-id").unwrap().to_string()
    };
    assert_eq!(id("my-id.7"), "my-id.7");
    assert!(id("no good").starts_with("req_"));
}

#[test]
fn whatever_comes_in_a_body_is_answered() {
    let swarm = swarm();
    let api = Api::start(&swarm, &["--max-body", "100kB"]);
    let client = api.http.with("content-type", "application/json");
    let deep = "[".repeat(50_000);
    let bodies: [&[u8]; 12] = [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe\x00",
        b"\"",
        b"{\"prompt\": \"\\ud800\"}",
        b"{\"prompt\": 1e999}",
        deep.as_bytes(),
        b"{\"prompt\": [[[[]]]]}",
        b"{\"prompt\": \"x\", \"max_tokens\": 99999999999999999999}",
        b"{\"prompt\": \"x\", \"temperature\": NaN}",
    ];
    for path in ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"] {
        for body in bodies {
            let answer = client.request("POST", path, body);
            let error = answer.expect(400);
            assert_eq!(error["error"]["type"], "invalid_request_error", "{path} {:?}", String::from_utf8_lossy(body));
        }
        let large = vec![b' '; 200_000];
        assert_eq!(client.request("POST", path, &large).expect(413)["error"]["code"], "request_too_large");
    }
    // Not announced, but as large: in chunks that never end.
    let mut stream = api.http.connect();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"4000\r\n".as_slice(), &[b' '; 0x4000], b"\r\n"].concat();
    for _ in 0..20 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    // The server may close before it has read all.
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(api.complete(&completion())["choices"][0]["text"], expected(TOKENS));
}

#[test]
fn who_says_nothing_is_not_waited_for() {
    let swarm = swarm();
    let api = Api::start(&swarm, &["--read-timeout", "1s"]);
    // A head that does not end, and a body.
    let mut head = api.http.connect();
    head.write_all(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-slow: ").unwrap();
    let mut body = api.http.connect();
    body.write_all(
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{",
    )
    .unwrap();
    let mut silent = api.http.connect();
    let mut answer = Vec::new();
    // All three end; of the first the server may or may not say why.
    head.read_to_end(&mut answer).unwrap();
    let mut answer = String::new();
    body.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    silent.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_model_that_nobody_serves_is_refused_at_once_until_somebody_does() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    let api = Api::start(&swarm, &[]);
    api.http.get("/v1/models").expect(200);
    assert_eq!(api.http.get("/ready").status, 503);
    for request in [completion(), with(completion(), "stream", json!(true))] {
        let answer = api.http.post("/v1/completions", &request);
        assert_eq!(answer.expect(503)["error"]["code"], "no_route");
        assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    }
    swarm.serve(&[(0, 12)], &[]);
    eventually("the model is served now", || {
        let answer = api.http.post("/v1/completions", &completion());
        (answer.status == 200).then(|| assert_eq!(answer.json()["choices"][0]["text"], expected(TOKENS)))
    });
}

#[test]
fn a_page_that_had_its_name_lead_here_is_refused() {
    let swarm = swarm();
    let api = Api::start(&swarm, &["--allow-host", "box.example"]);
    let port = api.http.address.port();
    let asked = |http: &HttpClient, name: &str, path: &str| http.with("host", &format!("{name}:{port}")).get(path);
    for path in ["/", "/v1/models", "/api/v1/swarm", "/metrics"] {
        for name in ["evil.example", "127.0.0.1.evil.example"] {
            assert_eq!(asked(&api.http, name, path).expect(403)["error"]["code"], "unknown_host", "{path}");
        }
        for name in ["127.0.0.1", "[::1]", "localhost", "box.example"] {
            assert_eq!(asked(&api.http, name, path).status, 200, "{name} {path}");
        }
    }
    // Nor is the map shown that needs no key.
    let api = Api::start(&swarm, &["--api-key", "one-key"]);
    assert_eq!(asked(&api.http, "evil.example", "/api/v1/swarm").status, 403);
    assert_eq!(asked(&api.http.with("authorization", "Bearer one-key"), "localhost", "/v1/models").status, 200);
}

#[test]
fn keys_open_the_door_and_nothing_else_does() {
    let swarm = swarm();
    let file = swarm.folder().join("keys");
    std::fs::write(&file, "# for friends\nfile-key\n\n").unwrap();
    let api = Api::start(&swarm, &["--api-key", "one-key", "--api-key-file", file.to_str().unwrap()]);
    let status = |header: Option<&str>| {
        let client = header.map_or(api.http.clone(), |value| api.http.with("authorization", value));
        let answer = client.get("/v1/models");
        if answer.status == 401 {
            assert_eq!(answer.json()["error"]["code"], "invalid_api_key");
        }
        answer.status
    };
    assert_eq!([status(Some("Bearer one-key")), status(Some("bearer file-key"))], [200, 200]);
    for wrong in [None, Some("Bearer "), Some("Bearer one-ke"), Some("Basic one-key"), Some("Bearer # for friends")] {
        assert_eq!(status(wrong), 401, "{wrong:?}");
    }
    assert_eq!(api.http.post("/v1/chat/completions", &chat()).status, 401);
    assert_eq!(api.http.get("/health").status, 200, "whoever watches needs no key");
    let mut command = swarm.node("api");
    command.args(["--model", "demo", "--http", "127.0.0.1:0"]).env("SWARM_API_KEY", "");
    assert_eq!(swarm.run("api", command).code, Some(2), "an empty key is a mistake");
}

#[test]
fn pages_may_ask_only_if_their_origin_may() {
    let swarm = swarm();
    let api = Api::start(&swarm, &["--cors", "https://example.org", "--api-key", "one-key"]);
    let preflight = |origin: &str| {
        let client = api.http.with("origin", origin).with("access-control-request-method", "POST");
        let client = client.with("access-control-request-headers", "authorization,content-type,x-stainless-os");
        let answer = client.request("OPTIONS", "/v1/chat/completions", b"");
        assert_eq!(answer.status, 200);
        answer.header("access-control-allow-origin").map(str::to_string)
    };
    assert_eq!(preflight("https://example.org").as_deref(), Some("https://example.org"));
    assert_eq!(preflight("https://evil.org"), None);
    let answer = api.http.with("origin", "https://example.org").get("/v1/models");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (401, Some("https://example.org")));
    let closed = Api::start(&swarm, &[]);
    assert_eq!(
        closed.http.with("origin", "https://example.org").get("/v1/models").header("access-control-allow-origin"),
        None
    );
    let any = Api::start(&swarm, &["--cors", "*"]);
    assert_eq!(
        any.http.with("origin", "https://x.org").get("/v1/models").header("access-control-allow-origin"),
        Some("*")
    );
}

#[test]
fn a_model_of_its_own_stands_in_while_nobody_serves() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    let api = Api::start(&swarm, &["--fallback-model", "demo"]);
    let answer = api.http.post("/v1/completions", &completion());
    let whole = answer.expect(200);
    assert_eq!(
        (whole["choices"][0]["text"].as_str(), &whole["swarm"]["fallback"]),
        (Some(expected(TOKENS).as_str()), &json!(true))
    );
    assert_eq!(answer.header("x-swarm-fallback"), Some("demo"));
    let stream = api.http.stream("/v1/completions", &with(completion(), "stream", json!(true)));
    assert_eq!(stream.header("x-swarm-fallback"), Some("demo"));
    let chunks = stream.rest();
    assert_eq!(completion_text(&chunks), expected(TOKENS));
    assert_eq!(chunks.last().unwrap()["swarm"]["route"], json!([]));
    // A server that comes is used.
    swarm.serve(&[(0, 12)], &[]);
    eventually("the swarm answers", || {
        let answer = api.http.post("/v1/completions", &completion());
        assert_eq!(answer.expect(200)["choices"][0]["text"], expected(TOKENS));
        answer.header("x-swarm-fallback").is_none().then_some(())
    });
}
