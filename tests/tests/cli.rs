//! The command line as people and scripts rest on it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;
use swarm_tests::harness::{Local, PROMPT, TestSwarm, greedy, program};

/// An entry point where nobody answers.
const NOBODY: &str = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

/// The answer to [`PROMPT`] in so many tokens.
fn answer(tokens: usize) -> String {
    Local::demo().text(PROMPT, &greedy(), tokens).text
}

#[test]
fn the_lines_that_a_server_prints_can_be_pasted() {
    let swarm = TestSwarm::empty("demo", &[]);
    // The first member of a swarm of its own: nobody else is needed.
    let mut command = Command::new(program("swarm-node"));
    command.args(["serve", "--model", "demo", "--block-range", "0..6", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    let mut first = swarm.start("first", command);
    let mut line_with = |words: &str| loop {
        let line = first.line().expect("more lines");
        if line.contains(words) {
            break line.trim().to_string();
        }
    };
    let join = line_with("swarm-node serve ");
    let using = line_with("swarm-node generate ");
    let shell = |line: &str| {
        let folder = program("swarm-node").parent().unwrap().to_path_buf();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", line]).env("PATH", path);
        command
    };
    let second = format!("exec {join} --block-range 6..12 --json --until-stdin-closes");
    let mut second = swarm.start("second", shell(&second));
    second.event("ready");
    let told = swarm.run("generate", shell(&using));
    let expected = Local::demo().text("Once upon a time", &greedy(), 256).text;
    assert_eq!((told.code, told.stdout), (Some(0), format!("{expected}\n")), "{}", told.stderr);
}

#[test]
fn who_asks_for_the_wrong_format_is_told_the_right_one() {
    let mut swarm = TestSwarm::empty("demo", &[]);
    swarm.serve(&[(0, 12)], &["--format", "q8_0"]);
    let mut command = swarm.node("generate");
    command.args(["--model", "demo", "--prompt", "Once"]);
    let exit = swarm.run("generate", command);
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("hint: ") && exit.stderr.contains("`--format q8_0`"), "{}", exit.stderr);
    assert!(!exit.stderr.contains("q4_k") && !exit.stderr.contains("bf16`"), "{}", exit.stderr);
}

#[test]
fn who_finds_no_server_is_told_whom_the_flags_leave_out_and_what_to_paste() {
    let swarm = TestSwarm::demo(&[(0, 6)]);
    let generate = |options: &[&str]| {
        let mut command = swarm.node("generate");
        command.args(["--model", "demo", "--prompt", "Once"]).args(options);
        let exit = swarm.run("generate", command);
        assert_eq!(exit.code, Some(1), "{}", exit.stderr);
        exit.stderr
    };
    let hole = generate(&[]);
    assert!(hole.contains("`swarm-node serve --model demo --block-range 6..12`"), "{hole}");
    assert!(hole.contains("--bootstrap") && !hole.contains("--block-peer"), "{hole}");
    let peer = swarm.servers[0].peer.to_string();
    let blocked = generate(&["--block-peer", &peer]);
    assert!(blocked.contains("--block-peer admit serves blocks 0..12, 1 that they leave out does"), "{blocked}");
    let edges = generate(&["--edges", "served"]);
    assert!(edges.contains("`swarm-node serve --model demo --edges`"), "{edges}");
}

#[test]
fn stdout_is_the_text_and_nothing_else() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let generate = |options: &[&str], input: Option<&str>| {
        let mut command = swarm.node("generate");
        command.args(["--model", "demo", "--max-tokens", "30"]).args(options);
        let mut process = swarm.start("generate", command);
        if let Some(input) = input {
            process.input(input);
        }
        let exit = process.exit();
        assert_eq!(exit.code, Some(0), "{options:?}: {}", exit.stderr);
        exit
    };
    let expected = format!("{}\n", answer(30));
    let file = swarm.folder().join("prompt.txt");
    fs::write(&file, format!("{PROMPT}\n")).unwrap();
    let cases: [(&[&str], Option<&str>); 5] = [
        (&["--prompt", PROMPT], None),
        (&["--prompt", "-"], Some(PROMPT)),
        (&["-"], Some(PROMPT)),
        (&["--prompt-file", file.to_str().unwrap()], None),
        (&["--prompt", PROMPT, "--temperature", "0"], None),
    ];
    for (options, input) in cases {
        assert_eq!(generate(options, input).stdout, expected, "{options:?}");
    }
    let explained = generate(&["--prompt", PROMPT, "--show-route"], None);
    assert_eq!(explained.stdout, expected);
    for server in &swarm.servers {
        let peer = server.peer.to_string();
        assert!(explained.stderr.contains(&peer[peer.len() - 6..]), "{}", explained.stderr);
    }
}

#[test]
fn a_reader_may_leave_before_the_end() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    for option in ["", "--json"] {
        let program = program("swarm-node");
        let node = format!("{} generate --bootstrap {}", program.display(), swarm.bootstrap.address);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{node} --model demo --prompt \"$1\" {option} | head -c 5"), "sh", PROMPT]);
        let exit = swarm.run("reader", command);
        assert_eq!((exit.code, exit.stdout.len()), (Some(0), 5), "{}", exit.stderr);
        assert!(!exit.stderr.contains("panicked"), "{}", exit.stderr);
    }
}

#[test]
fn the_json_events_are_the_documented_ones() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let mut generating = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "12", "--wire", "exact"]);
    let mut events = Vec::new();
    while let Some(event) = generating.next_event() {
        events.push(event);
    }
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    let expected = [&["route"][..], &["token"; 12], &["done"]].concat();
    assert_eq!(kinds, expected);
    let times: Vec<f64> = events[..13].iter().map(|event| event["ms"].as_f64().unwrap()).collect();
    assert!(times.is_sorted() && times[0] >= 0.0, "{times:?}");
    let done = events.last().unwrap();
    let hops: Vec<Value> = swarm
        .servers
        .iter()
        .map(|server| {
            serde_json::json!({"peer_id": server.peer.to_string(), "blocks": [server.blocks.start(), server.blocks.end()]})
        })
        .collect();
    for mut route in [events[0]["hops"].clone(), done["route"].clone()] {
        for hop in route.as_array_mut().unwrap() {
            // Rows of 128 elements in bf16, in and out.
            let hop = hop.as_object_mut().unwrap();
            assert_eq!(["bytes_in", "bytes_out"].map(|key| hop.remove(key).unwrap()), [256, 256]);
        }
        assert_eq!(route, Value::from(hops.clone()));
    }
    assert_eq!(done["text"], answer(12));
    assert_eq!(done["prompt_tokens"], Local::demo().encode(PROMPT).len());
    assert_eq!(done["reroutes"], 0);
    assert!(done["time_to_first_token_ms"].as_f64().unwrap() > 0.0);
    assert!(done["tokens_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn bad_usage_is_told_from_failure() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let entry = swarm.bootstrap.address.as_str();
    let generate = |rest: &[&'static str]| [&["generate", "--model", "demo", "--bootstrap", entry][..], rest].concat();
    let on_the_line = [
        &["--prompt-file", "/no/such/file"][..],
        &["--prompt", ""],
        &["--batch", "/no/such/file"],
        &["--prompt", "x", "--regex", "a("],
        &["--prompt", "x", "--json-schema", "{\"type\": \"strin\"}"],
        &["--prompt", "x", "--grammar", "/no/such/file"],
        &["--prompt", "x", "--prefix-key", "/no/such/file"],
        &["--prompt", "x", "--swarm-key", "/no/such/file"],
        &["--prompt", "x", "--edges", "served", "--json-object"],
    ];
    for rest in on_the_line {
        let arguments = generate(rest);
        let mut command = Command::new(program("swarm-node"));
        command.args(&arguments);
        let exit = swarm.run("usage", command);
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(2), ""), "{arguments:?}: {exit:?}");
        let errors = exit.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{arguments:?}: {}", exit.stderr);
    }
    let usage: [&[&str]; 15] = [
        &[],
        &["nonsense"],
        &["serve"],
        &["serve", "--model", "demo", "--block-range", "5..5"],
        &["serve", "--model", "demo", "--blocks", "0"],
        &["serve", "--model", "demo", "--blocks", "3", "--block-range", "0..3"],
        &["serve", "--model", "demo", "--listen", "here"],
        &["generate", "--model", "demo"],
        &["generate", "--prompt", "x"],
        &["generate", "--model", "demo", "--prompt", "x", "--bootstrap", "/ip4/127.0.0.1/tcp/1"],
        &["generate", "--model", "demo", "--prompt", "x", "--max-tokens", "0"],
        &["generate", "--model", "demo", "--prompt", "x", "--swarm", "Not A Name"],
        &["generate", "--model", "demo", "--prompt", "x", "--bootstrap", &swarm.bootstrap.address, "--top-p", "3"],
        // No way in.
        &["generate", "--model", "demo", "--prompt", "x"],
        &["status"],
    ];
    for arguments in usage {
        let mut command = Command::new(program("swarm-node"));
        command.args(arguments);
        let exit = swarm.run("usage", command);
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(2), ""), "{arguments:?}: {exit:?}");
        assert!(!exit.stderr.is_empty(), "{arguments:?}");
    }
    let failures: [&[&str]; 2] =
        [&["keygen", "/dev/null/swarm.key"], &["generate", "--model", "demo", "--prompt", "x", "--bootstrap", NOBODY]];
    for arguments in failures {
        let mut command = Command::new(program("swarm-node"));
        command.args(arguments);
        let exit = swarm.run("failure", command);
        assert_eq!((exit.code, exit.stdout.as_str()), (Some(1), ""), "{arguments:?}: {exit:?}");
        let errors = exit.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{arguments:?}: {}", exit.stderr);
    }
    for arguments in [&["--help"][..], &["--version"], &["serve", "--help"], &["generate", "--help"]] {
        let output = Command::new(program("swarm-node")).args(arguments).output().unwrap();
        assert!(output.status.success() && !output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn a_key_is_made_once_and_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep").join("swarm.key");
    let keygen = || Command::new(program("swarm-node")).arg("keygen").arg(&path).output().unwrap();
    let nowhere = keygen();
    let told = String::from_utf8(nowhere.stderr).unwrap();
    assert_eq!(nowhere.status.code(), Some(1), "{told}");
    assert!(told.contains("mkdir -p") && !path.parent().unwrap().exists(), "a typing error makes no folder: {told}");
    fs::create_dir(path.parent().unwrap()).unwrap();
    let made = keygen();
    assert!(made.status.success(), "{made:?}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let key = fs::read_to_string(&path).unwrap();
    let secret = key.lines().last().unwrap();
    let shown = String::from_utf8(made.stdout).unwrap();
    assert!(key.starts_with("/key/swarm/psk/1.0.0/") && !shown.contains(secret), "{shown}");
    let again = keygen();
    assert_eq!(again.status.code(), Some(1));
    assert_eq!(fs::read_to_string(&path).unwrap(), key, "an existing key is never overwritten");
}

#[test]
fn status_shows_who_serves_what_and_what_is_missing() {
    let mut swarm = TestSwarm::demo(&[]);
    swarm.serve(&[(0, 6)], &["--name", "attic"]);
    swarm.serve(&[(8, 12)], &["--name", "cellar"]);
    let status = |options: &[&str]| {
        let mut command = swarm.node("status");
        command.args(options);
        let exit = swarm.run("status", command);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        exit.stdout
    };
    for options in [&["--json"][..], &["--json", "--model", "demo"]] {
        let status: Value = serde_json::from_str(&status(options)).unwrap();
        let models = status["models"].as_array().unwrap();
        assert_eq!((status["swarm"].as_str(), models.len()), (Some("public"), 1), "{status}");
        let model = &models[0];
        assert_eq!((&model["name"], &model["blocks"]), (&Value::from("demo"), &Value::from(12)));
        assert_eq!(model["missing"], serde_json::json!([[6, 8]]));
        let servers = model["servers"].as_array().unwrap();
        assert_eq!(servers.len(), 2, "{status}");
        for (shown, (server, name)) in servers.iter().zip(swarm.servers.iter().zip(["attic", "cellar"])) {
            assert_eq!(shown["peer_id"], server.peer.to_string());
            assert_eq!(shown["name"], name);
            assert_eq!(shown["blocks"], serde_json::json!([server.blocks.start(), server.blocks.end()]));
            assert_eq!(shown["state"], "serving", "{shown}");
            assert_eq!(shown["free_tokens"], shown["total_tokens"]);
        }
        assert_eq!(model["model_id"], swarm.servers[0].model_id);
    }
    let words = status(&[]);
    for word in ["demo", "attic", "cellar", "6..8"] {
        assert!(words.contains(word), "{words}");
    }
    // A server that is killed without a word is not shown as one that serves.
    swarm.servers[1].process.kill();
    let mut command = swarm.node("status");
    command.args(["--json"]);
    let after: Value = serde_json::from_str(&swarm.run("status", command).stdout).unwrap();
    assert_eq!(after["models"][0]["missing"], serde_json::json!([[6, 12]]), "{after}");
}

#[test]
fn every_setting_may_come_from_the_environment() {
    let swarm = TestSwarm::empty("demo", &["--swarm", "lab"]);
    let mut serve = Command::new(program("swarm-node"));
    serve.arg("serve").envs([
        ("SWARM_MODEL", "demo"),
        ("SWARM_BLOCK_RANGE", "0..12"),
        ("SWARM_BOOTSTRAP", &swarm.bootstrap.address),
        ("SWARM_SWARM", "lab"),
        ("SWARM_LISTEN", "/ip4/127.0.0.1/tcp/0"),
        ("SWARM_CACHE_TOKENS", "320"),
        ("SWARM_THREADS", "1"),
        ("SWARM_JSON", "true"),
    ]);
    let mut server = swarm.start("serve", serve);
    server.event("ready");
    let mut generate = Command::new(program("swarm-node"));
    generate.arg("generate").envs([
        ("SWARM_MODEL", "demo"),
        ("SWARM_BOOTSTRAP", &swarm.bootstrap.address),
        ("SWARM_SWARM", "lab"),
        ("SWARM_PROMPT", PROMPT),
        ("SWARM_MAX_TOKENS", "9"),
    ]);
    let told = swarm.run("generate", generate);
    assert_eq!((told.code, told.stdout), (Some(0), format!("{}\n", answer(9))), "{}", told.stderr);
    let mut status = swarm.node("status");
    status.env("SWARM_JSON", "true");
    let status: Value = serde_json::from_str(&swarm.run("status", status).stdout).unwrap();
    assert_eq!(status["models"][0]["servers"][0]["total_tokens"], 320);
}

#[test]
fn servers_choose_their_blocks_so_that_nothing_is_missing() {
    let swarm = TestSwarm::empty("demo", &[]);
    let start = |blocks: &str| {
        let mut command = swarm.node("serve");
        command.args(["--model", "demo", "--blocks", blocks, "--listen", "/ip4/127.0.0.1/tcp/0", "--threads", "1"]);
        command.args(["--until-stdin-closes", "--json"]);
        swarm.start("serve", command)
    };
    // At the same moment, as after a power cut.
    let mut servers: Vec<_> = ["4", "4", "4"].map(start).into();
    let mut blocks: Vec<Value> = servers.iter_mut().map(|server| server.event("ready")["blocks"].clone()).collect();
    blocks.sort_by_key(|blocks| blocks[0].as_u64());
    assert_eq!(blocks, [[0, 4], [4, 8], [8, 12]].map(|range| serde_json::json!(range)));
    let told = swarm.generate(&["--prompt", PROMPT, "--max-tokens", "9"]).finish();
    assert_eq!(told.text, answer(9), "{}", told.exit.stderr);
}

#[test]
fn a_chat_in_a_pipe_prints_only_its_answers() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let mut command = swarm.node("chat");
    command.args(["--model", "demo", "--max-tokens", "12"]);
    let mut chat = swarm.start("chat", command);
    chat.input("Tell me a story.\nGo on.\n/quit\n");
    let exit = chat.exit();
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    assert_eq!(exit.stdout.lines().filter(|line| !line.is_empty()).count(), 2, "{:?}", exit.stdout);
    assert!(!exit.stdout.contains("Tell me a story"), "{:?}", exit.stdout);
}
