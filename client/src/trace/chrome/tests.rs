use proptest::prelude::*;

use super::super::log::TraceLog;
use super::super::testing::{hop, ms, two_tokens};
use super::*;

fn with_a_loss() -> Vec<TraceRecord> {
    let mut records = two_tokens();
    let reason = "its \"stream\"\nclosed <b>".to_string();
    records.push(TraceRecord::Reroute {
        lost: hop(2, 6, 12).peer,
        reason,
        at: ms(150),
        took: Duration::from_nanos(1001),
    });
    records
}

fn file(records: Vec<TraceRecord>) -> Vec<u8> {
    let mut writer = ChromeWriter::new(Vec::new()).unwrap();
    records.into_iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

#[test]
fn what_is_written_is_read_back() {
    let records = with_a_loss();
    let file = file(records.clone());
    assert_eq!(TraceLog::read(file.as_slice()).unwrap(), TraceLog::from_records(records));
}

#[test]
fn a_viewer_finds_names_places_and_times() {
    let events: Vec<Value> = serde_json::from_slice(&file(with_a_loss())).unwrap();
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).collect::<Vec<_>>();
    let processes: Vec<_> = named("process_name").iter().map(|event| event["args"]["name"].clone()).collect();
    assert_eq!(processes.len(), 3);
    assert_eq!(processes[0], "client");
    assert!(processes[1].as_str().unwrap().starts_with("blocks 0..6 on "), "{processes:?}");
    let compute = named("compute");
    assert_eq!(compute.len(), 6);
    assert_eq!((&compute[0]["ts"], &compute[0]["dur"]), (&json!(12_000.0), &json!(20_000.0)));
    let threads: Vec<_> =
        named("thread_name").iter().map(|event| (event["pid"].clone(), event["tid"].clone())).collect();
    for event in events.iter().filter(|event| event["ph"] == "X") {
        assert!(threads.contains(&(event["pid"].clone(), event["tid"].clone())), "{event} is on no row");
    }
    assert_eq!(named(REROUTE)[0]["ph"], "i");
}

#[test]
fn a_file_without_its_end_is_read_as_far_as_it_goes() {
    let file = file(with_a_loss());
    let text = String::from_utf8(file).unwrap();
    let token = text.find("\"token 2\"").unwrap();
    let whole = TraceLog::read(text.as_bytes()).unwrap();
    for cut in 0..text.trim_end().len() {
        match TraceLog::read(&text.as_bytes()[..cut]) {
            Ok(log) => {
                assert!(!log.complete, "{cut}");
                assert!(cut < token || !log.tokens.is_empty());
                assert!(whole.spans.starts_with(&log.spans), "{cut}");
            }
            Err(error) => assert!(cut < token && !error.to_string().is_empty(), "{cut}: {error}"),
        }
    }
}

#[test]
fn what_is_no_trace_is_said_with_its_place() {
    let event = |rest: &str| format!("[{{\"cat\":\"swarm\",\"ph\":\"X\",\"pid\":1,{rest}}}]");
    let cases = [
        (String::new(), "EOF"),
        ("[]".to_string(), "no tokens"),
        ("{\"traceEvents\":[]}".to_string(), "an array of trace events"),
        ("[{\"cat\":\"other\",\"ph\":\"X\"}]".to_string(), "no tokens"),
        ("\u{7f}ELF".to_string(), "line 1"),
        ("[1]".to_string(), "line 1"),
        (event("\"name\":\"juggling\",\"ts\":1,\"dur\":1"), "juggling"),
        (event("\"name\":\"compute\",\"ts\":1,\"dur\":1"), "no such stage"),
        (event("\"name\":\"sampling\",\"ts\":-1,\"dur\":1"), "-1 is no time"),
        (event("\"name\":\"sampling\",\"ts\":1e300,\"dur\":1"), "is no time"),
        (event("\"name\":\"sampling\",\"ts\":1e999,\"dur\":1"), "range"),
        ("[[[[".repeat(10_000), "line 1"),
        ("[{\"cat\":\"swarm\",\"ph\":\"M\",\"name\":\"process_name\",\"pid\":9}]".to_string(), "without blocks"),
        (
            "[{\"cat\":\"swarm\",\"ph\":\"M\",\"name\":\"process_name\",\"pid\":9,\"args\":{\"blocks\":\"6..2\"}}]"
                .to_string(),
            "empty",
        ),
    ];
    for (file, says) in cases {
        let error = TraceLog::read(file.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "{says:?} is not in {error:?}");
    }
}

#[test]
fn a_short_name_is_no_longer_than_it_can_be() {
    assert_eq!((short("abcdefghijk"), short("äöü"), short("")), ("defghijk", "äöü", ""));
}

proptest! {
    #[test]
    fn mutated_files_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut file = file(with_a_loss());
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if let Ok(log) = TraceLog::read(file.as_slice()) {
            super::super::TraceSummary::of(&log);
        }
    }
}
