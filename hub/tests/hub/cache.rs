//! The cache: shared with other tools and processes, repaired, limited, emptied.

use std::fs;
use std::path::{Path, PathBuf};

use swarm_hub::{HubConfig, HubError};
use swarm_model::{ModelError, ModelPart};

use crate::hub_server::{Fault, Rule, commit};
use crate::support::{Bed, NAME, bytes, digests, model, range, spec};

fn folder(bed: &Bed) -> PathBuf {
    bed.cache.path().join("models--org--model")
}

fn pull(bed: &Bed, part: Option<ModelPart>) -> Result<swarm_hub::Pulled, ModelError> {
    swarm_hub::pull(&spec(), &bed.config(), part, &mut |_, _| ())
}

fn hub_error(error: &ModelError) -> &HubError {
    match error {
        ModelError::Source(error) => error.downcast_ref().unwrap(),
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_whole_lies_where_other_tools_look() {
    let bed = Bed::new(&model());
    let pulled = pull(&bed, None).unwrap();
    let folder = folder(&bed);
    assert_eq!(fs::read_to_string(folder.join("refs/main")).unwrap(), commit(NAME, 0));
    assert_eq!(pulled.commit, commit(NAME, 0));
    let snapshot = folder.join("snapshots").join(pulled.commit);
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let path = snapshot.join(name);
        assert_eq!(fs::read(&path).unwrap(), fs::read(bed.directory.path().join(name)).unwrap(), "{name}");
        let target = fs::read_link(&path).unwrap();
        assert!(target.starts_with("../../blobs"), "{}", target.display());
    }
    // Nothing of it is fetched again.
    let before = bed.hub.asked().len();
    assert_eq!(pull(&bed, None).unwrap().fetched, 0);
    assert_eq!(bed.hub.asked().len(), before + 1);
}

#[test]
fn what_other_tools_have_put_there_is_used() {
    let bed = Bed::new(&model());
    // As another tool leaves it: no files of ours.
    pull(&bed, None).unwrap();
    fs::remove_dir_all(folder(&bed).join("swarm-node")).unwrap();
    let before = bed.hub.asked().len();
    let expected = digests(&bed.local(), range(0, 12)).unwrap();
    let offline = swarm_hub::open(&spec(), &bed.offline()).unwrap();
    assert_eq!(digests(&offline, range(0, 12)).unwrap(), expected);
    offline.tokenizer().unwrap();
    assert_eq!(bed.hub.asked().len(), before);
    assert_eq!(digests(&bed.open().unwrap(), range(0, 12)).unwrap(), expected);
    assert!(bed.hub.asked()[before..].iter().all(|asked| asked.path.starts_with("/api/")));
    let listed = swarm_hub::list(&bed.config());
    assert!(listed.len() == 1 && listed[0].parts.as_ref().unwrap().edges, "{listed:?}");
}

#[test]
fn a_file_that_becomes_whole_by_and_by_is_handed_over() {
    let bed = Bed::new(&model());
    let checkpoint = bed.open().unwrap();
    for start in (0..12).step_by(3) {
        digests(&checkpoint, range(start, start + 3)).unwrap();
    }
    checkpoint.load_edges(checkpoint.native_format()).unwrap();
    let whole = folder(&bed).join("snapshots").join(commit(NAME, 0)).join("model.safetensors");
    assert_eq!(fs::read(whole).unwrap(), fs::read(bed.directory.path().join("model.safetensors")).unwrap());
    // The blocks stay readable where they are mapped.
    assert_eq!(digests(&checkpoint, range(0, 12)).unwrap(), digests(&bed.local(), range(0, 12)).unwrap());
}

#[test]
fn two_at_once_fetch_everything_once() {
    let bed = Bed::new(&model());
    let expected = digests(&bed.local(), range(0, 8)).unwrap();
    std::thread::scope(|scope| {
        let load = || digests(&bed.open().unwrap(), range(0, 8)).unwrap();
        let loads: Vec<_> = (0..3).map(|_| scope.spawn(load)).collect();
        loads.into_iter().for_each(|load| assert_eq!(load.join().unwrap(), expected));
    });
    let needed = bytes(&bed.local().byte_ranges(ModelPart::Blocks(range(0, 8))));
    assert!(bed.hub.sent() < needed + needed / 50, "{} bytes for {needed}", bed.hub.sent());
}

#[test]
fn damaged_pieces_are_fetched_again() {
    let bed = Bed::new(&model());
    let expected = digests(&bed.open().unwrap(), range(0, 4)).unwrap();
    let part = fs::read_dir(folder(&bed).join("swarm-node")).unwrap().flatten().map(|entry| entry.path());
    let part = part.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "part")).unwrap();
    let mut bytes = fs::read(&part).unwrap();
    let within = bed.local().byte_ranges(ModelPart::Blocks(range(1, 2)))[0].bytes.start;
    bytes[within as usize] ^= 0xff;
    fs::write(&part, bytes).unwrap();
    let before = bed.hub.sent();
    assert_eq!(digests(&bed.open().unwrap(), range(0, 4)).unwrap(), expected);
    assert!(bed.hub.sent() > before + 100_000);
}

#[test]
fn the_least_recently_used_goes_first() {
    let bed = Bed::new(&model());
    let all = bytes(&bed.local().byte_ranges(ModelPart::Blocks(range(0, 12))));
    for name in ["org/one", "org/two"] {
        bed.hub.add(name, bed.directory.path());
    }
    let limited = HubConfig { max_disk: Some(2 * all), ..bed.config() };
    let open = |name: &str| swarm_hub::open(&name.parse().unwrap(), &limited);
    let load = |name| digests(&open(name).unwrap(), range(0, 8));
    let cached = |name: &str| {
        let parts = swarm_hub::list(&limited).into_iter().find(|model| model.repository == name);
        parts.and_then(|model| model.parts).is_some_and(|parts| parts.complete == [range(0, 8)])
    };
    load(NAME).unwrap();
    load("org/one").unwrap();
    load(NAME).unwrap();
    load("org/two").unwrap();
    assert!(cached(NAME) && !cached("org/one") && cached("org/two"));
    // What is in use stays, whatever else is wanted.
    let (held, also) = (open(NAME).unwrap(), open("org/two").unwrap());
    let error = load("org/one").unwrap_err();
    assert!(matches!(hub_error(&error), HubError::OverLimit { .. }), "{error}");
    assert!(error.to_string().contains("--max-disk"));
    drop((held, also));
    load("org/one").unwrap();
}

#[test]
fn what_others_have_put_there_is_not_ours_to_delete() {
    let bed = Bed::new(&model());
    pull(&bed, None).unwrap();
    fs::remove_dir_all(folder(&bed).join("swarm-node")).unwrap();
    bed.hub.add("org/one", bed.directory.path());
    let limited = HubConfig { max_disk: Some(1000), ..bed.config() };
    let error = swarm_hub::open(&"org/one".parse().unwrap(), &limited).unwrap_err();
    assert!(error.to_string().contains("--max-disk"), "{error}");
    digests(&swarm_hub::open(&spec(), &bed.offline()).unwrap(), range(0, 12)).unwrap();
}

#[test]
fn removing_frees_what_nobody_uses() {
    let bed = Bed::new(&model());
    let checkpoint = bed.open().unwrap();
    digests(&checkpoint, range(0, 2)).unwrap();
    let in_use = swarm_hub::remove(&bed.config(), &spec()).unwrap_err();
    assert!(matches!(in_use, HubError::InUse { .. }), "{in_use}");
    digests(&swarm_hub::open(&spec(), &bed.offline()).unwrap(), range(0, 2)).unwrap();
    drop(checkpoint);
    let needed = bytes(&bed.local().byte_ranges(ModelPart::Blocks(range(0, 2))));
    assert!(swarm_hub::remove(&bed.config(), &spec()).unwrap() >= needed);
    assert!(!folder(&bed).exists());
    let gone = swarm_hub::remove(&bed.config(), &spec()).unwrap_err();
    assert!(matches!(gone, HubError::NothingCached { .. }), "{gone}");
}

#[test]
fn one_revision_goes_and_the_other_stays() {
    let bed = Bed::new(&model());
    pull(&bed, None).unwrap();
    let other = tempfile::tempdir().unwrap();
    swarm_model::synthetic::SyntheticSpec { seed: 2, ..model() }.write(other.path()).unwrap();
    bed.hub.add(NAME, other.path());
    pull(&bed, None).unwrap();
    let old = format!("{NAME}@{}", commit(NAME, 0)).parse().unwrap();
    let freed = swarm_hub::remove(&bed.config(), &old).unwrap();
    assert_eq!(freed, length(&bed.directory.path().join("model.safetensors")));
    digests(&swarm_hub::open(&spec(), &bed.offline()).unwrap(), range(0, 12)).unwrap();
    assert!(swarm_hub::open(&old, &bed.offline()).is_err());
}

#[test]
fn a_commit_stays_as_long_as_it_has_another_name() {
    let bed = Bed::new(&model());
    pull(&bed, None).unwrap();
    let main = fs::read_to_string(folder(&bed).join("refs/main")).unwrap();
    fs::write(folder(&bed).join("refs/v1.0"), &main).unwrap();
    let tagged = format!("{NAME}@v1.0").parse().unwrap();
    digests(&swarm_hub::open(&tagged, &bed.offline()).unwrap(), range(0, 12)).unwrap();
    assert_eq!(swarm_hub::remove(&bed.config(), &tagged).unwrap(), 0);
    assert!(swarm_hub::open(&tagged, &bed.offline()).is_err());
    digests(&swarm_hub::open(&spec(), &bed.offline()).unwrap(), range(0, 12)).unwrap();
    assert!(swarm_hub::remove(&bed.config(), &format!("{NAME}@main").parse().unwrap()).unwrap() > 0);
}

#[test]
fn a_file_that_another_tool_fetched_anew_is_no_longer_ours() {
    let bed = Bed::new(&model());
    pull(&bed, None).unwrap();
    let weights = folder(&bed).join("snapshots").join(commit(NAME, 0)).join("model.safetensors");
    let blob = weights.canonicalize().unwrap();
    let bytes_of_it = fs::read(&blob).unwrap();
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, bytes_of_it).unwrap();
    let other = fs::File::options().append(true).open(&blob).unwrap();
    other.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    bed.hub.add("org/one", bed.directory.path());
    let room = bytes(&bed.local().byte_ranges(ModelPart::Blocks(range(0, 12))));
    let limited = HubConfig { max_disk: Some(room * 3 / 2), ..bed.config() };
    digests(&swarm_hub::open(&"org/one".parse().unwrap(), &limited).unwrap(), range(0, 12)).unwrap();
    assert!(blob.exists());
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn a_listing_says_which_blocks_are_complete() {
    let bed = Bed::new(&model());
    pull(&bed, Some(ModelPart::Blocks(range(3, 5)))).unwrap();
    pull(&bed, Some(ModelPart::Blocks(range(8, 9)))).unwrap();
    let listed = swarm_hub::list(&bed.config());
    let parts = listed[0].parts.as_ref().unwrap();
    assert_eq!((parts.blocks, parts.complete.as_slice()), (12, &[range(3, 5), range(8, 9)][..]));
    assert!(!parts.edges && listed[0].format.as_deref() == Some("bf16") && listed[0].revisions == ["main"]);
    assert!(listed[0].all_bytes.unwrap() > listed[0].bytes);
    pull(&bed, Some(ModelPart::Edges)).unwrap();
    assert!(swarm_hub::list(&bed.config())[0].parts.as_ref().unwrap().edges);
}

#[test]
fn who_is_cut_off_goes_on_where_it_stopped() {
    let bed = Bed::new(&model());
    let checkpoint = bed.open().unwrap();
    let needed = bytes(&checkpoint.byte_ranges(ModelPart::Blocks(range(0, 12))));
    let down = Fault::Refuse { status: 503, code: "", retry_after: None };
    bed.hub.rule(Rule { times: usize::MAX, ..Rule::of_files(".safetensors", down) });
    bed.hub.rule(Rule { times: 2, ..Rule::of_files(".safetensors", Fault::Cut(1_000_000)) });
    let error = digests(&checkpoint, range(0, 12)).unwrap_err();
    assert!(error.to_string().contains("what has come is kept"), "{error}");
    bed.hub.forgive();
    drop(checkpoint);
    let before = bed.hub.sent();
    assert_eq!(digests(&bed.open().unwrap(), range(0, 12)).unwrap(), digests(&bed.local(), range(0, 12)).unwrap());
    let sent = bed.hub.sent() - before;
    assert!(sent < needed - 900_000, "{sent} of {needed} bytes came again");
}
