use proptest::prelude::*;

use super::*;

fn parser(family: ToolFamily) -> ToolParser {
    let tool = |name: &str| ToolDefinition { name: name.to_string(), description: None, parameters: None };
    ToolParser::new(&ToolFormat::plain(family), &[tool("weather"), tool("time")], "answer 1")
}

/// Text, and (name, arguments) of calls, in order.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Text(String),
    Call(String, String),
}

fn text(text: &str) -> Found {
    Found::Text(text.to_string())
}

fn call(name: &str, arguments: &str) -> Found {
    Found::Call(name.to_string(), arguments.to_string())
}

fn found(family: ToolFamily, pieces: &[&str]) -> Vec<Found> {
    let mut parser = parser(family);
    let mut events: Vec<ToolEvent> = pieces.iter().flat_map(|piece| parser.push(piece)).collect();
    events.extend(parser.finish());
    let calls = events.iter().filter(|event| matches!(event, ToolEvent::Call(_))).count();
    assert_eq!(parser.calls(), calls);
    let found = joined(events).into_iter().map(|event| match event {
        ToolEvent::Text(text) => Found::Text(text),
        ToolEvent::Call(ToolCall { name, arguments, .. }) => Found::Call(name, arguments),
    });
    found.collect()
}

#[test]
fn hermes() {
    let whole = "Let me see.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}\n</tool_call>\n\
                 <tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>";
    let expected = [text("Let me see.\n"), call("weather", "{\"city\":\"Ulm\"}"), call("time", "{}")];
    assert_eq!(found(ToolFamily::Hermes, &[whole]), expected);
    let odd = "<tool_call>{\"name\": \"time\", \"arguments\": {\"at\": \"</tool_call>\"}}</tool_call> done";
    assert_eq!(found(ToolFamily::Hermes, &[odd]), [call("time", "{\"at\":\"</tool_call>\"}"), text(" done")]);
    let unknown = "<tool_call>{\"name\": \"f\", \"arguments\": {}}";
    assert_eq!(found(ToolFamily::Hermes, &[unknown]), [call("f", "{}")], "not closed, and of no known tool");
}

#[test]
fn llama() {
    let marked = "<|python_tag|>{\"name\": \"weather\", \"parameters\": {\"city\": \"Ulm\"}}";
    assert_eq!(found(ToolFamily::Llama, &[marked]), [call("weather", "{\"city\":\"Ulm\"}")]);
    let bare = " {\"name\": \"time\", \"parameters\": {}}; {\"name\": \"time\", \"parameters\": {\"a\": 1}}";
    assert_eq!(found(ToolFamily::Llama, &[bare]), [call("time", "{}"), call("time", "{\"a\":1}")]);
    let code = "<|python_tag|>print(1)";
    assert_eq!(found(ToolFamily::Llama, &[code]), [text(code)]);
}

#[test]
fn mistral() {
    let list = "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}, {\"name\": \"time\", \"arguments\": {}}]";
    assert_eq!(found(ToolFamily::Mistral, &[list]), [call("weather", "{\"city\":\"Ulm\"}"), call("time", "{}")]);
    let named = "So.[TOOL_CALLS]weather[CALL_ID]abc[ARGS]{\"city\": \"Ulm\"}[TOOL_CALLS]time[ARGS]{}";
    assert_eq!(
        found(ToolFamily::Mistral, &[named]),
        [text("So."), call("weather", "{\"city\":\"Ulm\"}"), call("time", "{}")]
    );
    let bare = "{\"name\": \"time\", \"arguments\": {}}";
    assert_eq!(found(ToolFamily::Mistral, &[bare]), [text(bare)]);
}

#[test]
fn json_alone() {
    let bare = "{\"name\": \"time\", \"arguments\": {\"zone\": \"UTC\"}}";
    assert_eq!(found(ToolFamily::Json, &[bare]), [call("time", "{\"zone\":\"UTC\"}")]);
    for no_call in
        ["{\"name\": \"Ulm\", \"arguments\": {}}", "{\"a\": 1} and more", "So: {\"name\": \"time\", \"arguments\": {}}"]
    {
        assert_eq!(found(ToolFamily::Json, &[no_call]), [text(no_call)], "no tool of that name, or not alone");
    }
}

#[test]
fn what_is_no_json_or_cut_off_stays_text() {
    for odd in [
        "<tool_call>{\"name\": time}</tool_call>",
        "<tool_call>{\"name\": \"time\", \"argu",
        "<tool_call> no",
        "<tool",
        "<tool_call>{}",
    ] {
        assert_eq!(found(ToolFamily::Hermes, &[odd]), [text(odd)]);
    }
    for odd in ["[TOOL_CALLS][{\"name\": 1}]", "[TOOL_CALLS]time, please", "[TOOL_CALLS]time[ARGS]{\"a\":"] {
        assert_eq!(found(ToolFamily::Mistral, &[odd]), [text(odd)]);
    }
}

#[test]
fn ids_differ_and_follow_from_the_answer() {
    let two = "<tool_call>{\"name\": \"time\", \"arguments\": {}}</tool_call>".repeat(2);
    let ids = |salt: &str| {
        let events = ToolParser::new(&ToolFormat::plain(ToolFamily::Hermes), &[], salt).push(&two);
        events
            .into_iter()
            .filter_map(|event| match event {
                ToolEvent::Call(call) => Some(call.id),
                ToolEvent::Text(_) => None,
            })
            .collect::<Vec<_>>()
    };
    let (one, other) = (ids("1"), ids("2"));
    assert_eq!(one, ids("1"));
    assert!(one[0] != one[1] && one[0] != other[0]);
    assert!(one.iter().all(|id| id.len() == ID_LETTERS && id.chars().all(|letter| letter.is_ascii_alphanumeric())));
}

#[test]
fn text_before_a_call_is_not_held_back() {
    let mut parser = parser(ToolFamily::Hermes);
    assert_eq!(parser.push("a < b <to"), [ToolEvent::Text("a < b ".to_string())]);
    assert_eq!(parser.push("y>"), [ToolEvent::Text("<toy>".to_string())]);
}

const PARTS: [&str; 14] = [
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "<|python_tag|>",
    "{\"name\": \"time\", \"arguments\": {\"a\": \"}é\"}}",
    "{\"name\": \"weather\", \"parameters\": {}}",
    "[{\"name\": \"time\", \"arguments\": {}}]",
    "time[ARGS]{\"a\": [1]}",
    "{\"b\":",
    "\n",
    ";",
    " é ",
    "<",
    "[",
];

fn families() -> impl Strategy<Value = ToolFamily> {
    prop::sample::select(vec![ToolFamily::Hermes, ToolFamily::Llama, ToolFamily::Mistral, ToolFamily::Json])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn it_does_not_matter_in_which_pieces_an_answer_comes(
        family in families(),
        parts in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let whole = parts.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(whole.len() + 1)).filter(|cut| whole.is_char_boundary(*cut)).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|cut| &whole[cut[0]..cut[1]]).collect();
        prop_assert_eq!(found(family, &pieces), found(family, &[&whole]));
    }

    #[test]
    fn a_text_without_calls_comes_out_as_it_went_in(family in families(), text in "[a-z<\\[|{}\" ]{0,30}") {
        let found = found(family, &[&text]);
        let expected = if text.is_empty() { vec![] } else { vec![Found::Text(text)] };
        prop_assert_eq!(found, expected);
    }
}
