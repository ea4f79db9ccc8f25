//! Models by name, from a hub on this machine: whole swarms, processes that are killed in the middle, and the commands.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use swarm_client::{ClientConfig, EdgesPlace, HubConfig};
use swarm_model::synthetic::{GgufTypes, SyntheticSpec, gguf_of, write_gguf};
use swarm_model::{Checkpoint, ModelPart, ModelSpec};
use swarm_protocol::model_id::WeightFormat;
use swarm_tests::harness::{
    Client, Exit, Local, PROMPT, Process, Server, TestSwarm, eventually, greedy, program, range, ready,
};
use swarm_tests::hub_server::{Fault, HubServer, Rule};
use tempfile::TempDir;

const NAME: &str = "org/model";
const TOKENS: usize = 40;
/// Bytes of headers and small files beside the weights of one process.
const BESIDE: u64 = 64 << 10;

/// The bundled model's files.
fn demo_files() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/demo")
}

fn hub(directory: &Path) -> HubServer {
    let hub = HubServer::start();
    hub.add(NAME, directory);
    hub
}

/// `command` with that hub, and a cache in `home`.
fn with_hub(mut command: Command, hub: &HubServer, home: &Path) -> Command {
    hub.point(&mut command, home);
    command
}

fn config(hub: &HubServer, home: &Path) -> HubConfig {
    let (endpoint, home) = (hub.endpoint(), home.display().to_string());
    HubConfig::new(Path::new("/nowhere"), &|name: &str| match name {
        "HF_ENDPOINT" => Some(endpoint.clone()),
        "HF_HOME" => Some(home.clone()),
        _ => None,
    })
}

fn serve(swarm: &mut TestSwarm, hub: &HubServer, home: &Path, blocks: &str) -> Process {
    let command = swarm.serve_command(blocks);
    swarm.start("serve", with_hub(command, hub, home))
}

fn block_bytes(directory: &Path, start: u32, end: u32) -> u64 {
    let checkpoint = Checkpoint::open(&ModelSpec::Directory(directory.to_path_buf())).unwrap();
    let ranges = checkpoint.byte_ranges(ModelPart::Blocks(range(start, end)));
    ranges.iter().map(|range| range.bytes.end - range.bytes.start).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swarm_of_a_name_survives_a_kill() {
    let hub = hub(&demo_files());
    let homes: Vec<TempDir> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut swarm = TestSwarm::empty(NAME, &[]);
    let started: Vec<Process> = [("0..6", 0), ("6..12", 1), ("6..12", 2)]
        .into_iter()
        .map(|(blocks, home)| serve(&mut swarm, &hub, homes[home].path(), blocks))
        .collect();
    swarm.servers = started.into_iter().map(ready).collect();
    let needed = block_bytes(&demo_files(), 0, 6) + 2 * block_bytes(&demo_files(), 6, 12);
    assert!(hub.sent() <= needed + 3 * BESIDE, "{} bytes for {needed}", hub.sent());
    let client = ClientConfig { hub: config(&hub, homes[3].path()), ..ClientConfig::default() };
    let client = Client::with(&swarm, &NAME.parse().unwrap(), None, client).await;
    let mut killed = false;
    let told = client.tell_with(PROMPT, greedy(), TOKENS, async |tokens, route| {
        if tokens == TOKENS / 2 && !killed {
            killed = true;
            let last = route.last().unwrap().peer;
            swarm.server(last).process.kill();
        }
    });
    let told = told.await.unwrap();
    assert_eq!(told.lost.len(), 1);
    assert_eq!(told.summary.tokens, Local::demo().text(PROMPT, &greedy(), TOKENS).tokens);
}

/// A client that leaves embedding and head to servers fetches neither.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_edges_fetches_no_weights() {
    let hub = hub(&demo_files());
    let homes: Vec<TempDir> = (0..2).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut swarm = TestSwarm::empty(NAME, &[]);
    let mut command = with_hub(swarm.serve_command("0..12"), &hub, homes[0].path());
    command.arg("--edges");
    swarm.servers = vec![ready(swarm.start("serve", command))];
    let before = hub.sent();
    let config = config(&hub, homes[1].path());
    let config = ClientConfig { hub: config, edges: EdgesPlace::Served, ..ClientConfig::default() };
    let client = Client::with(&swarm, &NAME.parse().unwrap(), None, config).await;
    let tokenizer = std::fs::metadata(demo_files().join("tokenizer.json")).unwrap().len();
    let sent = hub.sent() - before;
    assert!(sent <= tokenizer + BESIDE, "{sent} bytes");
    let told = client.tell(PROMPT, greedy(), TOKENS).await.unwrap();
    assert_eq!(told.summary.tokens, Local::demo().text(PROMPT, &greedy(), TOKENS).tokens);
    assert_eq!(hub.sent() - before, sent);
}

#[test]
fn a_server_that_moves_fetches_the_difference() {
    let hub = hub(&demo_files());
    let homes: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut swarm = TestSwarm::empty(NAME, &[]);
    let mut servers: Vec<Server> = homes
        .iter()
        .map(|home| {
            let mut command = with_hub(swarm.serve_command_of(6), &hub, home.path());
            command.args(["--announce-interval", "1s"]);
            ready(swarm.start("anywhere", command))
        })
        .collect();
    let lonely = (0..3).find(|one| servers.iter().filter(|other| other.blocks == servers[*one].blocks).count() == 1);
    let before = hub.sent();
    let mut dead = servers.remove(lonely.expect("three servers of two halves"));
    dead.process.kill();
    let home = eventually("the half that died is cached elsewhere", || {
        let of = |home: &TempDir| swarm_hub::list(&config(&hub, home.path())).pop()?.parts;
        homes.iter().find(|home| of(home).is_some_and(|parts| parts.complete == [range(0, 12)]))
    });
    let needed = block_bytes(&demo_files(), dead.blocks.start(), dead.blocks.end());
    let sent = hub.sent() - before;
    assert!(sent >= needed && sent <= needed + BESIDE, "{sent} bytes for {needed} in {}", home.path().display());
}

/// A model in six files, so that some can be whole while another is on its way.
fn in_six_files() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let spec =
        SyntheticSpec { hidden: 256, intermediate: 512, blocks: 12, head_dim: 64, shards: 6, ..Default::default() };
    spec.write(directory.path()).unwrap();
    directory
}

/// Bytes that are cached, as far as they are written down.
fn cached(hub: &HubServer, home: &Path) -> u64 {
    swarm_hub::list(&config(hub, home)).pop().map_or(0, |model| model.bytes)
}

/// The shard whose bytes are held back.
const HELD: &str = "model-00004-of-00006.safetensors";

#[test]
fn a_pull_that_is_killed_goes_on() {
    let (files, home, folder) = (in_six_files(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = hub(files.path());
    let all = block_bytes(files.path(), 0, 12);
    hub.rule(Rule::always(HELD, Fault::Hold(100_000)));
    let pull = || {
        let mut command = with_hub(Command::new(program("swarm-node")), &hub, home.path());
        command.args(["pull", NAME, "--json"]);
        Process::start("pull", command, folder.path())
    };
    let mut first = pull();
    hub.wait_until_held(1);
    eventually("the other files are written down", || (cached(&hub, home.path()) > all * 3 / 4).then_some(()));
    first.kill();
    hub.forgive();
    hub.release();
    let before = hub.sent();
    let exit = pull().exit();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let sent = hub.sent() - before;
    assert!(sent < all / 3, "{sent} of {all} bytes came again");
    // Every file is whole, hence verified; and it is the same model.
    let spec: ModelSpec = NAME.parse().unwrap();
    let offline = HubConfig { offline: true, ..config(&hub, home.path()) };
    let ours = swarm_hub::open(&spec, &offline).unwrap();
    let theirs = Checkpoint::open(&ModelSpec::Directory(files.path().into())).unwrap();
    let digests = |checkpoint: &Checkpoint| {
        let blocks = checkpoint.load_blocks(range(0, 12), checkpoint.native_format(), &mut |_| ()).unwrap();
        blocks.digests().to_vec()
    };
    assert_eq!(digests(&ours), digests(&theirs));
}

#[test]
fn a_server_that_is_killed_while_it_fetches_goes_on() {
    let (files, home) = (in_six_files(), tempfile::tempdir().unwrap());
    let hub = hub(files.path());
    let all = block_bytes(files.path(), 0, 12);
    let mut swarm = TestSwarm::empty(NAME, &[]);
    hub.rule(Rule::always(HELD, Fault::Hold(100_000)));
    let mut first = serve(&mut swarm, &hub, home.path(), "0..12");
    hub.wait_until_held(1);
    eventually("the other files are written down", || (cached(&hub, home.path()) > all * 3 / 4).then_some(()));
    first.kill();
    hub.forgive();
    hub.release();
    let before = hub.sent();
    let mut second = serve(&mut swarm, &hub, home.path(), "0..12");
    let fetching = second.event("fetching");
    assert!(fetching["total_bytes"].as_u64().unwrap() < all / 3, "{fetching}");
    ready_after(second);
    let sent = hub.sent() - before;
    assert!(sent < all / 3, "{sent} of {all} bytes came again");
}

/// Waits for a server whose listening has been passed over.
fn ready_after(mut process: Process) {
    process.event("ready");
}

fn run(hub: &HubServer, home: &Path, arguments: &[&str]) -> Exit {
    let mut command = with_hub(Command::new(program("swarm-node")), hub, home);
    command.args(arguments);
    Process::start("command", command, home).exit()
}

fn output(exit: &Exit) -> Value {
    assert_eq!(exit.code, Some(0), "{exit:?}");
    serde_json::from_str(exit.stdout.trim()).unwrap()
}

#[test]
fn the_commands_say_what_is_there() {
    let (hub, home) = (hub(&demo_files()), tempfile::tempdir().unwrap());
    let run = |arguments: &[&str]| run(&hub, home.path(), arguments);
    assert!(run(&["models"]).stdout.contains("no model of the hub is cached"));
    let offline = run(&["pull", NAME, "--offline"]);
    assert!(offline.code == Some(1) && offline.stderr.starts_with("error: org/model is not cached"), "{offline:?}");
    let pulled = output(&run(&["pull", NAME, "--blocks", "2..5", "--json"]));
    assert_eq!(pulled["bytes"], json!(block_bytes(&demo_files(), 2, 5)));
    let models = output(&run(&["models", "--json"]));
    let model = &models["cached"][0];
    assert_eq!((&model["complete"], &model["edges"], &model["blocks"]), (&json!([[2, 5]]), &json!(false), &json!(12)));
    let words = run(&["models"]).stdout;
    assert!(words.contains("org/model") && words.contains("blocks 2..5 of 12") && words.contains("bf16"), "{words}");
    output(&run(&["pull", NAME, "--json"]));
    assert!(run(&["models"]).stdout.contains("all 12 blocks and edges"));
    let removed = output(&run(&["rm", NAME, "--json"]));
    assert!(removed["freed_bytes"].as_u64().unwrap() > block_bytes(&demo_files(), 0, 12));
    let again = run(&["rm", NAME]);
    assert!(again.code == Some(1) && again.stderr.contains("nothing of org/model is cached"), "{again:?}");
    let limited = run(&["pull", NAME, "--max-disk", "100kB"]);
    assert!(limited.code == Some(1) && limited.stderr.contains("--max-disk"), "{limited:?}");
}

/// The first part of the model of [`in_gguf_files`].
const FIRST_PART: &str = "mixed-00001-of-00002.gguf";
/// Bytes beside the tensors of one process: of each of the two parts as much as is read of a header at once.
const BESIDE_GGUF: u64 = 2 * (300 << 10);

/// A model of mixed types in two GGUF files, and another that nobody asks for.
fn in_gguf_files() -> TempDir {
    let (directory, from) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let spec = SyntheticSpec { hidden: 512, intermediate: 1536, blocks: 8, head_dim: 128, ..Default::default() };
    spec.write(from.path()).unwrap();
    let from = Checkpoint::open(&ModelSpec::Directory(from.path().into())).unwrap();
    let file = gguf_of(&from, &GgufTypes { matrices: "q4_k", careful: "q6_k", edges: "q6_k" }).unwrap();
    let first = write_gguf(&file, &directory.path().join("mixed.gguf"), 2).unwrap();
    assert!(first.ends_with(FIRST_PART), "{}", first.display());
    write_gguf(&file, &directory.path().join("other.gguf"), 1).unwrap();
    directory
}

#[test]
fn a_gguf_file_by_name_travels_in_parts() {
    let (files, homes) = (in_gguf_files(), [(); 3].map(|()| tempfile::tempdir().unwrap()));
    let hub = hub(files.path());
    let name = format!("{NAME}:{FIRST_PART}");
    let path = files.path().join(FIRST_PART);
    let local = Checkpoint::open(&ModelSpec::Gguf(path.clone())).unwrap();
    let bytes_of = |part| local.byte_ranges(part).iter().map(|range| range.bytes.end - range.bytes.start).sum::<u64>();
    let travelled = |what: &str, before: u64, needed: u64| {
        let sent = hub.sent() - before;
        assert!(sent >= needed && sent <= needed + BESIDE_GGUF, "{what}: {sent} bytes for {needed}");
        hub.sent()
    };
    let mut swarm = TestSwarm::empty(&name, &[]);
    let mut before = 0;
    for ((start, end), home) in [(0, 4), (4, 8)].into_iter().zip(&homes) {
        let server = serve(&mut swarm, &hub, home.path(), &format!("{start}..{end}"));
        swarm.servers.push(ready(server));
        before = travelled("a server", before, bytes_of(ModelPart::Blocks(range(start, end))));
    }
    let mut command = with_hub(swarm.node("generate"), &hub, homes[2].path());
    command.args(["--model", &name, "--prompt", PROMPT, "--max-tokens", &TOKENS.to_string(), "--json"]);
    let exit = swarm.run("generate", command);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    let events = exit.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let done = events.into_iter().find(|event| event["event"] == "done").unwrap();
    let expected = Local::open(&ModelSpec::Gguf(path), WeightFormat::Gguf).text(PROMPT, &greedy(), TOKENS);
    assert_eq!(done["tokens"], json!(expected.tokens));
    travelled("the client", before, bytes_of(ModelPart::Edges));
    assert!(hub.asked().iter().all(|asked| !asked.path.contains("other.gguf")));
}

#[test]
fn a_gguf_file_is_pulled_listed_and_removed_by_name() {
    let (files, home) = (in_gguf_files(), tempfile::tempdir().unwrap());
    let hub = hub(files.path());
    let name = format!("{NAME}:{FIRST_PART}");
    let run = |arguments: &[&str]| run(&hub, home.path(), arguments);
    output(&run(&["pull", &name, "--blocks", "2..4", "--json"]));
    let words = run(&["models"]).stdout;
    assert!(words.contains(&name) && words.contains("blocks 2..4 of 8") && words.contains("gguf"), "{words}");
    let pulled = output(&run(&["pull", &name, "--json"]));
    let length = |file: &str| std::fs::metadata(files.path().join(file)).unwrap().len();
    let all = length(FIRST_PART) + length("mixed-00002-of-00002.gguf");
    assert_eq!(pulled["bytes"], json!(all));
    output(&run(&["pull", &format!("{NAME}:other.gguf"), "--blocks", "0..1", "--json"]));
    let listed = output(&run(&["models", "--json"]));
    let of = |file: &str| listed["cached"].as_array().unwrap().iter().find(|model| model["file"] == file).cloned();
    let whole = of(FIRST_PART).expect("the model in parts");
    assert_eq!((&whole["bytes"], &whole["edges"], &whole["complete"]), (&json!(all), &json!(true), &json!([[0, 8]])));
    let removed = output(&run(&["rm", &name, "--json"]));
    assert_eq!(removed["freed_bytes"], json!(all));
    let words = run(&["models"]).stdout;
    assert!(words.contains("other.gguf") && !words.contains(FIRST_PART), "{words}");
    let again = run(&["rm", &name]);
    assert!(again.code == Some(1) && again.stderr.contains("nothing of"), "{again:?}");
    let missing = run(&["pull", &format!("{NAME}:none.gguf")]);
    assert!(missing.code == Some(1) && missing.stderr.contains("no file none.gguf, only mixed-"), "{missing:?}");
    let none = run(&["pull", NAME]);
    assert!(none.code == Some(1) && none.stderr.contains(&name), "{none:?}");
}
