//! Only what is needed travels.

use swarm_model::{LoadStage, ModelPart};

use crate::hub_server::{Fault, Role, Rule};
use crate::support::{Bed, bytes, digests, model, range, spec};

/// The most that may travel for blocks, beside their own bytes: 2 %.
fn bound(needed: u64) -> u64 {
    needed + needed / 50
}

#[test]
fn a_server_fetches_its_blocks_and_nothing_else() {
    for shards in [1, 3] {
        let bed = Bed::new(&swarm_model::synthetic::SyntheticSpec { shards, blocks: 32, ..model() });
        let checkpoint = bed.open().unwrap();
        let blocks = range(8, 16);
        let needed = bytes(&checkpoint.byte_ranges(ModelPart::Blocks(blocks)));
        let (mut fetched, mut last) = (0, None);
        let format = checkpoint.native_format();
        let loaded = checkpoint.load_blocks(blocks, format, &mut |progress| match progress.stage {
            LoadStage::Fetch => (fetched, last) = (progress.bytes_done, Some(progress.bytes_total)),
            LoadStage::Read => {}
        });
        assert_eq!(loaded.unwrap().digests(), digests(&bed.local(), blocks).unwrap());
        let sent = bed.hub.sent();
        assert!(sent >= needed && sent <= bound(needed), "{sent} bytes for {needed} in {shards} shards");
        assert_eq!(Some(fetched), last);
        let asked = bed.hub.asked();
        assert!(!asked.iter().any(|asked| asked.path.contains("token")), "the tokenizer is the client's");
    }
}

#[test]
fn other_blocks_cost_only_the_difference() {
    let bed = Bed::new(&model());
    digests(&bed.open().unwrap(), range(2, 8)).unwrap();
    let before = bed.hub.sent();
    // The same process goes on, and another one later.
    let checkpoint = bed.open().unwrap();
    assert_eq!(digests(&checkpoint, range(4, 10)).unwrap(), digests(&bed.local(), range(4, 10)).unwrap());
    let (difference, sent) = (bytes(&checkpoint.byte_ranges(ModelPart::Blocks(range(8, 10)))), bed.hub.sent() - before);
    assert!(sent >= difference && sent <= bound(difference), "{sent} bytes for {difference}");
    let before = bed.hub.sent();
    digests(&checkpoint, range(2, 10)).unwrap();
    assert_eq!(bed.hub.sent(), before);
}

#[test]
fn a_client_fetches_edges_and_tokenizer() {
    let bed = Bed::new(&swarm_model::synthetic::SyntheticSpec { tied: false, ..model() });
    let checkpoint = bed.open().unwrap();
    checkpoint.load_edges(checkpoint.native_format()).unwrap();
    let needed = bytes(&checkpoint.byte_ranges(ModelPart::Edges));
    let sent = bed.hub.sent();
    assert!(sent >= needed && sent <= bound(needed) + (64 << 10), "{sent} bytes for {needed}");
    let tokenizer = checkpoint.tokenizer().unwrap();
    assert_eq!(
        tokenizer.encode("hello", true).unwrap(),
        bed.local().tokenizer().unwrap().encode("hello", true).unwrap()
    );
    checkpoint.chat_template().unwrap();
    checkpoint.generation_defaults().unwrap();
}

#[test]
fn the_token_goes_to_the_hub_and_nowhere_else() {
    let bed = Bed::new(&model());
    let config = swarm_hub::HubConfig { token: swarm_hub::Token::new("hf_secret"), ..bed.config() };
    digests(&swarm_hub::open(&spec(), &config).unwrap(), range(0, 1)).unwrap();
    for asked in bed.hub.asked() {
        let expected = (asked.role == Role::Hub).then(|| "hf_secret".to_string());
        assert_eq!(asked.token, expected, "{asked:?}");
    }
    assert!(bed.hub.asked().iter().any(|asked| asked.role == Role::Files));
}

#[test]
fn a_server_without_ranges_sends_whole_files() {
    let bed = Bed::new(&swarm_model::synthetic::SyntheticSpec { shards: 3, ..model() });
    bed.hub.rule(Rule::always(".safetensors", Fault::IgnoreRange));
    let checkpoint = bed.open().unwrap();
    let expected = digests(&bed.local(), range(3, 9)).unwrap();
    assert_eq!(digests(&checkpoint, range(3, 9)).unwrap(), expected);
    // Whole shards are verified, and other tools see them.
    let cached = swarm_hub::list(&bed.config());
    assert!(cached[0].bytes > 0 && cached[0].parts.as_ref().unwrap().complete.len() == 1, "{cached:?}");
    let before = bed.hub.sent();
    assert_eq!(digests(&bed.open().unwrap(), range(3, 9)).unwrap(), expected);
    assert!(bed.hub.sent() - before < 20_000);
}
