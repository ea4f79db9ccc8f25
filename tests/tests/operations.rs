//! What those who run a swarm rest on: settings in a file, logs for machines, completions, a doctor, and files to deploy.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use swarm_tests::harness::{Exit, PROMPT, TestSwarm, program};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn node(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("swarm-node"));
    command.args(arguments);
    command
}

/// A folder without a swarm, for programs that need none.
fn alone(name: &str, command: Command) -> Exit {
    let folder = tempfile::tempdir().unwrap();
    swarm_tests::harness::Process::start(name, command, folder.path()).exit()
}

#[test]
fn bash_completes_commands_and_flags() {
    let script = alone("completions", node(&["completions", "bash"]));
    assert_eq!(script.code, Some(0), "{}", script.stderr);
    let function = script.stdout.lines().find_map(|line| line.trim().strip_prefix("complete -F ")?.split(' ').next());
    let function = function.expect("a function that completes");
    let ask = format!(
        "\nCOMP_WORDS=(swarm-node serve --block-r)\nCOMP_CWORD=2\n{function} swarm-node --block-r serve\n\
         echo \"${{COMPREPLY[@]}}\"\nCOMP_WORDS=(swarm-node gen)\nCOMP_CWORD=1\n{function} swarm-node gen swarm-node\n\
         echo \"${{COMPREPLY[@]}}\"\n"
    );
    let mut bash = Command::new("bash");
    bash.arg("--norc").arg("-c").arg(format!("{}{ask}", script.stdout));
    let answered = alone("bash", bash);
    assert_eq!(answered.stdout, "--block-range\ngenerate\n", "{}", answered.stderr);
    for shell in ["zsh", "fish", "powershell", "elvish"] {
        let script = alone("completions", node(&["completions", shell]));
        assert!(script.code == Some(0) && script.stdout.contains("block-range"), "{shell}: {}", script.stderr);
    }
    assert_eq!(alone("completions", node(&["completions", "cmd"])).code, Some(2));
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let folder = tempfile::tempdir().unwrap();
    let written = alone("man", node(&["man", folder.path().join("man1").to_str().unwrap()]));
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    let page = |name: &str| fs::read_to_string(folder.path().join("man1").join(name)).unwrap();
    assert!(page("swarm-node-serve.1").contains("block\\-range"), "{}", page("swarm-node-serve.1"));
    assert!(page("swarm-node.1").starts_with(".ie") && page("swarm-node.1").contains("swarm\\-node"));
    assert_eq!(alone("man", node(&["man"])).stdout, page("swarm-node.1"));
    // Where there is groff, it has nothing to say against any of them.
    let Ok(groff) = Command::new("groff").arg("--version").stdout(Stdio::null()).status() else { return };
    assert!(groff.success());
    for entry in fs::read_dir(folder.path().join("man1")).unwrap() {
        let path = entry.unwrap().path();
        let mut render = Command::new("groff");
        render.args(["-man", "-Tutf8", "-ww"]).arg(&path);
        let rendered = alone("groff", render);
        assert!(rendered.code == Some(0) && rendered.stdout.len() > 500, "{}: {}", path.display(), rendered.stderr);
    }
}

#[test]
fn settings_in_a_file_hold_where_nothing_else_is_said() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let file = swarm.folder().join("lab.toml");
    let text = format!(
        "bootstrap = [\"{}\"]\nmodel = \"demo\"\nlog-format = \"json\"\n\n[generate]\nmax-tokens = 7\njson = true\n",
        swarm.bootstrap.address
    );
    fs::write(&file, text).unwrap();
    let generate = |arguments: &[&str], variable: Option<&str>| {
        let mut command = node(&["--config", file.to_str().unwrap(), "generate", "--prompt", PROMPT]);
        command.args(arguments);
        variable.map(|value| command.env("SWARM_MAX_TOKENS", value));
        let exit = swarm.run("generate", command);
        assert_eq!(exit.code, Some(0), "{}", exit.stderr);
        exit.stdout.lines().filter(|line| line.contains("\"event\":\"token\"")).count()
    };
    assert_eq!(generate(&[], None), 7);
    assert_eq!(generate(&[], Some("6")), 6);
    assert_eq!(generate(&["--max-tokens", "5"], Some("6")), 5);
    // The user's own file needs no name; an empty name means none.
    let own = swarm.folder().join("swarm-node/config.toml");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::copy(&file, &own).unwrap();
    let exit = swarm.run("generate", node(&["generate", "--prompt", PROMPT]));
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let none = swarm.run("generate", node(&["--config=", "generate", "--model", "demo", "--prompt", PROMPT]));
    assert_eq!((none.code, none.stderr.contains("no way into a swarm")), (Some(2), true), "{}", none.stderr);
    let shown = swarm.run("config", node(&["config"]));
    assert!(
        shown.stdout.contains(own.to_str().unwrap()) && shown.stdout.contains("`generate`: max-tokens = 7"),
        "{shown:?}"
    );
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wrong.toml");
    for (text, says) in [
        ("[serve]\nblcks = 8\n", ", line 2: \"blcks\" is no flag of `serve`; did you mean \"blocks\"?"),
        ("modle = \"demo\"\n", ", line 1: \"modle\" is no flag of any command; did you mean \"model\"?"),
        ("\n\nmodel = \n", ", line 3: "),
        ("[serve]\nmdns = \"yes\"\n", ", line 2: \"mdns\" takes true or false"),
    ] {
        fs::write(&file, text).unwrap();
        let exit = alone("config", node(&["--config", file.to_str().unwrap(), "keygen", "unused"]));
        let line = exit.stderr.lines().next().unwrap_or_default();
        assert_eq!(exit.code, Some(2), "{text:?}: {line}");
        assert!(line.starts_with(&format!("error: {}", file.display())) && line.contains(says), "{text:?}: {line}");
    }
    // What only clap can know: it says so, and where the value stands.
    fs::write(&file, "[serve]\nmodel = \"demo\"\nblocks = \"many\"\n").unwrap();
    let exit = alone("config", node(&["--config", file.to_str().unwrap(), "serve"]));
    assert_eq!(exit.code, Some(2));
    assert!(exit.stderr.contains("'many'") && exit.stderr.contains(", line 3"), "{}", exit.stderr);
    let missing = alone("config", node(&["--config", "/nowhere/config.toml", "config"]));
    assert!(missing.code == Some(2) && missing.stderr.contains("/nowhere/config.toml"), "{missing:?}");
}

/// All that was written to stderr by the programs of a swarm.
fn logs(swarm: &TestSwarm) -> String {
    let files = fs::read_dir(swarm.folder()).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
    logs.map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()).collect()
}

#[test]
fn logs_are_json_if_wanted_and_never_hold_a_prompt() {
    const SECRET: &str = "Xylophonia";
    let mut swarm = TestSwarm::empty("demo", &["--log", "trace", "--log-format", "json"]);
    swarm.serve(&[(0, 6)], &["--edges"]);
    swarm.serve(&[(6, 12)], &[]);
    for edges in ["own", "served"] {
        let prompt = format!("Once upon a time {SECRET} lived");
        let told = swarm.generate(&["--prompt", &prompt, "--max-tokens", "20", "--edges", edges]).finish();
        assert_eq!(told.exit.code, Some(0), "{}", told.exit.stderr);
    }
    for server in &mut swarm.servers {
        server.process.terminate();
        assert_eq!(server.process.exit().code, Some(0));
    }
    let logs = logs(&swarm);
    assert!(!logs.contains(SECRET), "a prompt was logged");
    let lines: Vec<Value> = logs
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?} is no JSON: {error}")))
        .collect();
    for line in &lines {
        assert!(["time", "level", "target", "message"].iter().all(|key| line[*key].is_string()), "{line}");
    }
    assert!(lines.len() > 100 && lines.iter().any(|line| line["message"] == "a session was opened"));
    assert!(lines.iter().filter(|line| line["session"].is_string()).count() > 2, "sessions are named");
}

#[test]
fn the_doctor_finds_a_healthy_machine_healthy() {
    let swarm = TestSwarm::demo(&[(0, 6), (6, 12)]);
    let mut command = swarm.node("doctor");
    command.args(["--json", "--model", "demo", "--port", "0"]);
    let exit = swarm.run("doctor", command);
    let report: Value = serde_json::from_str(exit.stdout.trim()).unwrap();
    assert_eq!((exit.code, &report["ok"]), (Some(0), &true.into()), "{report}: {}", exit.stderr);
    let found = |name: &str| {
        let check = report["checks"].as_array().unwrap().iter().find(|check| check["name"] == name);
        check.unwrap_or_else(|| panic!("nobody looked at {name}: {report}")).clone()
    };
    for name in
        ["bootstrap", "DHT", "servers", "clock", "versions", "memory", "cache folder", "disk", "TCP port", "UDP port"]
    {
        assert_eq!(found(name)["verdict"], "good", "{}", found(name));
    }
    assert!(found("servers")["found"].as_str().unwrap().starts_with("2 of 2 asked answer"));
    assert!(found("memory")["found"].as_str().unwrap().contains("12 of the 12 blocks of demo"));
    assert_eq!(found("from outside")["verdict"], "could_be_better", "nobody can tell");
    // Whatever is not good says what to do.
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["next"].is_null(), check["verdict"] == "good", "{check}");
    }
}

#[test]
fn the_doctor_says_what_is_wrong_and_what_to_do() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let key = swarm.folder().join("other.key");
    assert_eq!(swarm.run("keygen", node(&["keygen", key.to_str().unwrap()])).code, Some(0));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_at = format!("/ip4/127.0.0.1/tcp/{}", taken.local_addr().unwrap().port());
    let dead = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let cases: [(&[&str], &str, &str); 6] = [
        (&["--swarm-key", key.to_str().unwrap()], "bootstrap", "key"),
        (&["--swarm", "elsewhere"], "bootstrap", "pass --swarm public"),
        (&["--listen", &taken_at], "TCP port", "choose another port"),
        (&["--model", "demo", "--blocks", "12", "--cache-tokens", "4000000000"], "memory", "--cache-tokens"),
        (&["--model", swarm.folder().to_str().unwrap()], "model", "check --model"),
        (&["--swarm-key", "/nowhere.key"], "swarm key", "another member"),
    ];
    for (options, name, says) in cases {
        let mut command = swarm.node("doctor");
        command.args(options);
        let exit = swarm.run("doctor", command);
        assert_eq!(exit.code, Some(1), "{options:?}: {}", exit.stdout);
        let line = exit.stdout.lines().find(|line| line.starts_with('✗') && line.contains(name));
        let line = line.unwrap_or_else(|| panic!("{options:?}: no line about {name} in\n{}", exit.stdout));
        assert!(line.contains(says) && line.contains("; "), "{options:?}: {line}");
        assert!(exit.stderr.starts_with("error: ") && exit.stderr.lines().count() == 1, "{}", exit.stderr);
    }
    let mut lost = node(&["doctor", "--bootstrap", dead, "--bootstrap", &swarm.bootstrap.address]);
    lost.arg("--json");
    let exit = swarm.run("doctor", lost);
    let report: Value = serde_json::from_str(exit.stdout.trim()).unwrap();
    let entries: Vec<&Value> =
        report["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "bootstrap").collect();
    let verdicts: Vec<&str> = entries.iter().map(|check| check["verdict"].as_str().unwrap()).collect();
    assert_eq!((exit.code, verdicts), (Some(1), vec!["bad", "good"]), "{report}");
    let alone = alone("doctor", node(&["doctor"]));
    assert!(alone.code == Some(0) && alone.stdout.contains("cannot be compared with anybody's"), "{}", alone.stdout);
}

#[test]
fn a_volunteer_learns_what_the_machine_could_do() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let mut command = swarm.node("bench");
    command.args(["--model", "demo", "--json"]);
    let exit = swarm.run("bench", command);
    assert_eq!(exit.code, Some(0), "{}", exit.stderr);
    let report: Value = serde_json::from_str(exit.stdout.trim()).unwrap();
    for path in
        ["/memory_bytes_per_second", "/decode_us_per_block", "/prefill_ns_per_token_block", "/hosts/tokens_per_second"]
    {
        assert!(report.pointer(path).and_then(Value::as_f64).is_some_and(|value| value > 0.0), "{path}: {report}");
    }
    assert_eq!((&report["hosts"]["blocks"], &report["hosts"]["of"]), (&12.into(), &12.into()));
    let network = &report["network"];
    assert_eq!((&network["asked"], network["round_trip_seconds"].as_array().unwrap().len()), (&1.into(), 1));
    assert!(network["sent_bytes_per_second"][0].as_f64().is_some_and(|rate| rate > 0.0), "{network}");
    let mut command = swarm.node("status");
    command.arg("--json");
    let status: Value = serde_json::from_str(swarm.run("status", command).stdout.trim()).unwrap();
    assert_eq!(status["models"][0]["servers"].as_array().unwrap().len(), 1, "it announces nothing");
    let mut words = node(&["bench", "--model", "demo"]);
    words.stderr(Stdio::null());
    let exit = swarm.run("bench", words);
    assert!(["memory ", "block ", "hosts "].iter().all(|word| exit.stdout.contains(word)), "{}", exit.stdout);
}

#[test]
fn a_bootstrap_peer_writes_how_to_join_it() {
    let swarm = TestSwarm::empty("demo", &[]);
    let file = swarm.folder().join("join.toml");
    let mut command = Command::new(program("swarm-bootstrap"));
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--http", "127.0.0.1:0", "--json", "--join-file"]).arg(&file);
    let mut entry = swarm.start("entry", command);
    entry.event("http");
    let mut command = node(&["--config", file.to_str().unwrap(), "serve", "--model", "demo", "--block-range", "0..12"]);
    command.args(["--listen", "/ip4/127.0.0.1/tcp/0", "--json", "--until-stdin-closes"]);
    swarm.start("joins", command).event("ready");
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("bootstrap = [") && text.contains("swarm = \"public\""), "{text}");
}

#[test]
fn errors_say_what_to_do_next() {
    let swarm = TestSwarm::demo(&[(0, 12)]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (tcp, http) = (format!("/ip4/127.0.0.1/tcp/{port}"), format!("127.0.0.1:{port}"));
    let entry = swarm.bootstrap.address.clone();
    let other_peer =
        format!("{}/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", entry.split("/p2p/").next().unwrap());
    let nobody = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let file = swarm.folder().join("text");
    fs::write(&file, "no key, no model, no trace").unwrap();
    let file = file.to_str().unwrap();
    let cases: [(&[&str], &str); 18] = [
        (&["generate", "--model", "demo", "--prompt", "a"], "pass --bootstrap"),
        (&["generate", "--model", "demo", "--prompt", "a", "--bootstrap", nobody], "check that it runs"),
        (&["generate", "--model", "demo", "--prompt", "a", "--bootstrap", &other_peer], "use the line it printed"),
        (
            &["generate", "--model", "demo", "--prompt", "a", "--bootstrap", &entry, "--swarm", "x"],
            "pass --swarm public",
        ),
        (&["generate", "--model", "demo", "--prompt", "a", "--bootstrap", &entry, "--swarm-key", file], "keygen"),
        (&["generate", "--model", "demo", "--prompt-file", "/nowhere", "--bootstrap", &entry], "--prompt"),
        (&["generate", "--model", "/nowhere", "--prompt", "a", "--bootstrap", &entry], "must be `demo`"),
        (&["generate", "--model", "demo", "--prompt", "", "--bootstrap", &entry], "give some text"),
        (&["generate", "--model", "demo", "--prompt", "a", "--temperature", "-1", "--bootstrap", &entry], "must be"),
        (&["generate", "--model", "demo", "--format", "q4_0", "--prompt", "a", "--bootstrap", &entry], "--format"),
        (&["serve", "--model", "demo", "--block-range", "8..20"], "--blocks N"),
        (&["serve", "--model", "demo", "--listen", &tcp], "another program"),
        (&["serve", "--model", "demo", "--http", &http], "choose another --http"),
        (&["serve", "--model", "demo", "--device", "cuda:0"], "--device cpu"),
        (&["serve", "--model", "demo", "--format", "gguf"], "leave --format out"),
        (&["trace", "/nowhere"], "--trace FILE"),
        (&["keygen", file], "choose another name"),
        (&["drain", "attic", "--json"], "swarm-node status"),
    ];
    for (arguments, says) in cases {
        // Where nobody of another test is found.
        let mut command = node(arguments);
        command.env("TMPDIR", swarm.folder()).env("XDG_RUNTIME_DIR", swarm.folder().join("none"));
        command.env("XDG_STATE_HOME", swarm.folder().join("none")).env("HOME", swarm.folder().join("none"));
        let exit = swarm.run("wrong", command);
        let last: Vec<&str> =
            exit.stderr.lines().filter(|line| line.starts_with("error: ") || line.starts_with("hint: ")).collect();
        let quiet = exit.stdout.is_empty() || arguments[0] == "serve";
        assert!(exit.code.is_some_and(|code| code != 0) && quiet, "{arguments:?}: {exit:?}");
        assert!(last.iter().any(|line| line.contains(says)), "{arguments:?}: {says:?} is not in {}", exit.stderr);
    }
}

/// The arguments in the files under `deploy` that run `swarm-node SUBCOMMAND`, with stand-ins for what is set later.
fn deployed() -> Vec<(&'static str, Vec<String>)> {
    let read = |path: &'static str| (path, fs::read_to_string(repository().join("deploy").join(path)).unwrap());
    let peer = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
    let filled = |text: &str| {
        let text = text.replace("$(POD)", "server-0").replace("$(BOOTSTRAP_PEER)", peer);
        text.replace("${SWARM_BLOCKS:-6}", "6").trim_matches(['"', ' ']).to_string()
    };
    let mut lines = Vec::new();
    let (path, unit) = read("systemd/swarm-node.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/swarm-node ")).unwrap();
    lines.push((
        path,
        start.replace("--config /etc/swarm-node/config.toml", "").split_whitespace().map(filled).collect(),
    ));
    let (path, compose) = read("docker/compose.yaml");
    for line in compose.lines().filter_map(|line| line.trim().strip_prefix("command: [")) {
        lines.push((path, line.trim_end_matches(']').split(", ").map(filled).collect()));
    }
    for path in ["kubernetes/swarm.yaml", "kubernetes/api.yaml"] {
        let (path, text) = read(path);
        let mut arguments: Vec<String> = Vec::new();
        for line in text.lines().map(str::trim) {
            match line.strip_prefix("- ") {
                Some(word) if ["serve", "api"].contains(&word) => arguments.push(word.to_string()),
                Some(word) if word.starts_with("--") => arguments.push(filled(word)),
                _ => {}
            }
        }
        lines.push((path, arguments));
    }
    lines
}

#[test]
fn what_is_deployed_are_commands_that_exist() {
    let lines = deployed();
    assert!(lines.len() >= 7, "{lines:?}");
    for (path, arguments) in lines {
        let name = if arguments[0].starts_with("--") { "swarm-bootstrap" } else { "swarm-node" };
        // Everything before it is parsed, and nothing is run.
        let mut command = Command::new(program(name));
        command.args(&arguments).arg("--help");
        let exit = alone("deployed", command);
        assert_eq!(exit.code, Some(0), "{path}: {arguments:?}: {}", exit.stderr);
    }
}

#[test]
fn units_are_what_systemd_takes() {
    let Ok(status) = Command::new("systemd-analyze").arg("--version").stdout(Stdio::null()).status() else { return };
    assert!(status.success());
    let folder = tempfile::tempdir().unwrap();
    for unit in ["swarm-node.service", "swarm-bootstrap.service"] {
        let text = fs::read_to_string(repository().join("deploy/systemd").join(unit)).unwrap();
        let here = format!("{}/", program("swarm-node").parent().unwrap().display());
        let text = text.replace("/usr/local/bin/", &here).replace("man:swarm-node(1) ", "");
        fs::write(folder.path().join(unit), text).unwrap();
        let mut verify = Command::new("systemd-analyze");
        verify.arg("verify").arg(folder.path().join(unit));
        let exit = alone("systemd-analyze", verify);
        assert_eq!((exit.code, exit.stderr.as_str()), (Some(0), ""), "{unit}");
        // The drain must be over before systemd kills.
        assert!(
            unit != "swarm-node.service"
                || fs::read_to_string(folder.path().join(unit)).unwrap().contains("TimeoutStopSec=90s")
        );
    }
}
