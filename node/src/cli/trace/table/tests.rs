use swarm_client::trace::TraceLog;

use super::*;

/// A trace of so many tokens over three hops, the second one lost on the way.
fn summary() -> TraceSummary {
    TraceSummary::of(&TraceLog::read(super::super::testing::trace(120).as_bytes()).unwrap())
}

#[test]
fn everything_fits_eighty_columns() {
    console::set_colors_enabled(false);
    let text = text(&summary(), 8);
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
    }
    for says in [
        "120 tokens",
        "compute on hop 2 (16..32 on ",
        "at token 61",
        "its stream closed",
        "95th percentile",
        "4352 to hop 1",
    ] {
        assert!(text.contains(says), "{says:?} is not in\n{text}");
    }
}

#[test]
fn a_file_steers_no_terminal() {
    console::set_colors_enabled(false);
    let mut summary = summary();
    summary.hops[0].peer = "\u{1b}[2J\u{1b}[31m".to_string();
    summary.reroutes[0].reason = "\u{1b}]0;x\u{7}".to_string();
    let text = text(&summary, 8);
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}
