//! What the hub, the network and the disk do wrong, and what the user is told.

use std::fs;

use swarm_hub::{HubConfig, Token};
use swarm_model::{LoadStage, ModelError, ModelSpec};

use crate::hub_server::{Asked, Fault, Role, Rule};
use crate::support::{Bed, NAME, digests, model, range, spec};

fn message(result: Result<impl Sized, ModelError>) -> String {
    match result {
        Ok(_) => panic!("it went well"),
        Err(error) => error.to_string(),
    }
}

fn refuse(status: u16, code: &'static str, retry_after: Option<u64>) -> Fault {
    Fault::Refuse { status, code, retry_after }
}

#[test]
fn what_passes_is_waited_for() {
    let bed = Bed::new(&model());
    let expected = digests(&bed.local(), range(0, 6)).unwrap();
    bed.hub.rule(Rule::once("/api/", refuse(429, "", Some(0))));
    bed.hub.rule(Rule::once("/api/", refuse(503, "", None)));
    bed.hub.rule(Rule::once("config.json", refuse(500, "", None)));
    let checkpoint = bed.open().unwrap();
    for fault in [Fault::Cut(100_000), Fault::Cut(0), refuse(502, "", None), refuse(429, "", Some(0))] {
        bed.hub.rule(Rule { times: 2, ..Rule::once(".safetensors", fault) });
    }
    assert_eq!(digests(&checkpoint, range(0, 6)).unwrap(), expected);
}

#[test]
fn an_address_that_has_expired_is_asked_for_again() {
    let bed = Bed::new(&model());
    let checkpoint = bed.open().unwrap();
    bed.hub.rule(Rule::of_files(".safetensors", refuse(403, "", None)));
    digests(&checkpoint, range(0, 2)).unwrap();
    let hub = |asked: &&Asked| asked.role == Role::Hub && asked.path.ends_with(".safetensors");
    assert!(bed.hub.asked().iter().filter(hub).count() >= 3);
}

#[test]
fn a_refusal_says_what_to_do() {
    let bed = Bed::new(&model());
    let with_token = HubConfig { token: Token::new("hf_x"), ..bed.config() };
    for (fault, token, words) in [
        (refuse(401, "GatedRepo", None), false, ["is gated", "set HF_TOKEN"]),
        (refuse(403, "GatedRepo", None), true, ["is gated", "ask for access on the page of org/model"]),
        (refuse(401, "", None), true, ["does not accept the token", "make a new one"]),
        (refuse(404, "RevisionNotFound", None), false, ["no revision main", "@main"]),
        (refuse(429, "", Some(3600)), false, ["3600 s", "HF_TOKEN"]),
        (refuse(403, "", None), true, ["refuses", "as told"]),
        (refuse(500, "", None), false, ["cannot be reached", "500"]),
    ] {
        bed.hub.forgive();
        bed.hub.rule(Rule::always("/", fault));
        let config = if token { with_token.clone() } else { bed.config() };
        let said = message(swarm_hub::open(&spec(), &config));
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        assert!(!said.contains('\n') && !said.contains("hf_x"));
    }
    bed.hub.forgive();
    let said = message(swarm_hub::open(&"org/nothing".parse().unwrap(), &bed.config()));
    assert!(said.contains("no repository org/nothing") && said.contains("private"), "{said}");
    let said = message(swarm_hub::open(&format!("{NAME}@v9").parse().unwrap(), &bed.config()));
    assert!(said.contains("no revision v9"), "{said}");
}

#[test]
fn a_gate_in_front_of_the_files_only_is_a_gate() {
    let bed = Bed::new(&model());
    bed.hub.rule(Rule::always("/resolve/", refuse(401, "GatedRepo", None)));
    let said = message(bed.open());
    assert!(said.contains("org/model is gated"), "{said}");
}

#[test]
fn weights_in_other_formats_are_named() {
    let bed = Bed::new(&model());
    fs::rename(bed.directory.path().join("model.safetensors"), bed.directory.path().join("pytorch_model.bin")).unwrap();
    bed.hub.add(NAME, bed.directory.path());
    let said = message(bed.open());
    assert!(said.contains("no safetensors") && said.contains("pytorch_model.bin"), "{said}");
}

#[test]
fn nobody_at_the_address_is_said_once_nothing_is_cached() {
    let bed = Bed::new(&model());
    let config = HubConfig { endpoint: "http://127.0.0.1:1".to_string(), ..bed.config() };
    let said = message(swarm_hub::open(&spec(), &config));
    assert!(said.contains("http://127.0.0.1:1 cannot be reached") && said.contains("--offline"), "{said}");
    // What is cached serves as well.
    let expected = digests(&bed.open().unwrap(), range(0, 2)).unwrap();
    assert_eq!(digests(&swarm_hub::open(&spec(), &config).unwrap(), range(0, 2)).unwrap(), expected);
}

#[test]
fn wrong_bytes_are_found_when_a_file_is_whole() {
    let bed = Bed::new(&model());
    bed.hub.rule(Rule::once("config.json", Fault::WrongBytes));
    let said = message(bed.open());
    assert!(said.contains("config.json came damaged") && said.contains("sha1"), "{said}");
    bed.open().unwrap();
    let pull = || swarm_hub::pull(&spec(), &bed.config(), None, &mut |_, _| ());
    bed.hub.rule(Rule::of_files("model.safetensors", Fault::WrongBytes));
    let said = message(pull());
    assert!(said.contains("model.safetensors came damaged") && said.contains("sha256"), "{said}");
    pull().unwrap();
    assert_eq!(digests(&bed.open().unwrap(), range(0, 12)).unwrap(), digests(&bed.local(), range(0, 12)).unwrap());
}

#[test]
fn a_file_that_changes_in_between_is_noticed() {
    let bed = Bed::new(&model());
    let checkpoint = bed.open().unwrap();
    bed.hub.rule(Rule::always(".safetensors", Fault::Changed));
    let said = message(digests(&checkpoint, range(0, 3)));
    assert!(said.contains("changed on the hub"), "{said}");
    bed.hub.forgive();
    assert_eq!(digests(&checkpoint, range(0, 3)).unwrap(), digests(&bed.local(), range(0, 3)).unwrap());
}

#[test]
fn offline_names_what_is_missing() {
    let bed = Bed::new(&model());
    let said = message(swarm_hub::open(&spec(), &bed.offline()));
    assert!(said.contains("org/model is not cached") && said.contains("pull org/model"), "{said}");
    let expected = digests(&bed.open().unwrap(), range(0, 4)).unwrap();
    let before = bed.hub.asked().len();
    let checkpoint = swarm_hub::open(&spec(), &bed.offline()).unwrap();
    assert_eq!(digests(&checkpoint, range(0, 4)).unwrap(), expected);
    let said = message(digests(&checkpoint, range(3, 5)));
    assert!(said.contains("model.safetensors is not cached"), "{said}");
    assert!(message(checkpoint.tokenizer()).contains("tokenizer.json is not cached"));
    assert_eq!(bed.hub.asked().len(), before);
}

#[test]
fn mirrors_without_digests_are_asked_for_each_file() {
    let bed = Bed::new(&model());
    bed.hub.rule(Rule::always("/api/", Fault::NoDigests));
    let checkpoint = bed.open().unwrap();
    assert_eq!(digests(&checkpoint, range(1, 4)).unwrap(), digests(&bed.local(), range(1, 4)).unwrap());
}

#[test]
fn progress_never_goes_back() {
    let bed = Bed::new(&model());
    bed.hub.rule(Rule { times: 3, ..Rule::once(".safetensors", Fault::Cut(200_000)) });
    let checkpoint = bed.open().unwrap();
    let (mut last, mut all) = (0, 0);
    let format = checkpoint.native_format();
    let loaded = checkpoint.load_blocks(range(0, 12), format, &mut |progress| {
        if progress.stage == LoadStage::Fetch {
            assert!(progress.bytes_done >= last && progress.bytes_done <= progress.bytes_total);
            (last, all) = (progress.bytes_done, progress.bytes_total);
        }
    });
    loaded.unwrap();
    assert!(last == all && all > 0);
    assert!(matches!(spec(), ModelSpec::Hub { .. }));
}
