//! Tools in chat templates as the families write them, and calls made by force. The templates are our own, in the families' forms.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::{Value, json};
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{
    ChatMessage, ChatOptions, ChatTemplate, Checkpoint, Device, Grammars, History, ModelSpec, Sampler, SamplingConfig,
    Tensor, TextTokenizer, ToolCall, ToolChoice, ToolDefinition, ToolEvent, ToolFamily, ToolFormat, ToolParser,
};

const HERMES: &str = r#"{%- if tools %}
    {{- '<|im_start|>system\n<tools>' }}
    {%- for tool in tools %}
        {{- '\n' }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\n</tools><|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and message.tool_calls %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\n' + message.content }}
        {%- endif %}
        {%- for call in message.tool_calls %}
            {%- if call.function is defined %}
                {%- set call = call.function %}
            {%- endif %}
            {{- '\n<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == 'tool' %}
        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}"#;

const MISTRAL: &str = "\
{{ bos_token }}{% if tools is not none %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{%- for message in messages %}{% if message.role == 'user' %}[INST]{{ message.content }}[/INST]
{%- elif message.tool_calls is defined and message.tool_calls is not none %}[TOOL_CALLS][
{%- for call in message.tool_calls %}{% if call.id | length != 9 %}{{ raise_exception('ids have 9 letters') }}{% endif %}
{{- {'name': call.function.name, 'arguments': call.function.arguments, 'id': call.id} | tojson }}{{ ', ' if not loop.last }}{% endfor %}]{{ eos_token }}
{%- elif message.role == 'tool' %}[TOOL_RESULTS]{{ {'content': message.content, 'call_id': message.tool_call_id} | tojson }}[/TOOL_RESULTS]
{%- else %}{{ message.content.strip() }}{% endif %}{% endfor %}";

const LLAMA: &str = "\
{%- for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n
{%- if message.tool_calls %}<|python_tag|>{\"name\": \"{{ message.tool_calls[0].function.name }}\", \"parameters\": {{ message.tool_calls[0].function.arguments | tojson }}}
{%- else %}{{ message.content }}{% endif %}<|eot_id|>{% endfor %}";

/// A checkpoint with that template, and with `special` and `plain` tokens in the place of the demo vocabulary's last ones.
fn checkpoint(template: Value, special: &[&str], plain: &[&str]) -> (tempfile::TempDir, Checkpoint) {
    let directory = tempfile::tempdir().unwrap();
    SyntheticSpec::default().write(directory.path()).unwrap();
    let config = json!({"chat_template": template, "bos_token": "<s>", "eos_token": "</s>"});
    std::fs::write(directory.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let _ = std::fs::remove_file(directory.path().join("chat_template.jinja"));
    let path = directory.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (index, (token, special)) in
        special.iter().map(|token| (token, true)).chain(plain.iter().map(|token| (token, false))).enumerate()
    {
        let added = json!({"id": 1024 + index, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": special});
        tokenizer["added_tokens"].as_array_mut().unwrap().push(added);
    }
    std::fs::write(&path, tokenizer.to_string()).unwrap();
    let checkpoint = Checkpoint::open(&ModelSpec::Directory(directory.path().into())).unwrap();
    (directory, checkpoint)
}

fn template(source: &str) -> ChatTemplate {
    checkpoint(json!(source), &[], &[]).1.chat_template().unwrap().unwrap()
}

fn tools() -> Vec<ToolDefinition> {
    let weather = json!({"type": "function", "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/city"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"],
            "additionalProperties": false,
            "$defs": {"city": {"enum": ["Ulm", "Rom"]}},
        },
    }});
    let now = json!({"type": "function", "function": {"name": "now"}});
    [weather, now].map(|tool| serde_json::from_value(tool).unwrap()).into()
}

fn options() -> ChatOptions {
    ChatOptions { tools: tools().split_off(1), ..ChatOptions::default() }
}

fn conversation(id: &str) -> Vec<ChatMessage> {
    let call = ToolCall { id: id.to_string(), name: "now".to_string(), arguments: "{\"zone\": \"UTC\"}".to_string() };
    vec![
        ChatMessage::new("user", "What time is it?"),
        ChatMessage::calling("", vec![call]),
        ChatMessage::tool_result(id, "now", "12:00"),
    ]
}

#[test]
fn hermes_and_qwen() {
    let text = template(HERMES).render_with(&conversation("call_1"), &options()).unwrap();
    let expected = "<|im_start|>system\n<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"now\"}}\n</tools><|im_end|>\n\
        <|im_start|>user\nWhat time is it?<|im_end|>\n\
        <|im_start|>assistant\n<tool_call>\n{\"name\": \"now\", \"arguments\": {\"zone\": \"UTC\"}}\n</tool_call><|im_end|>\n\
        <|im_start|>user\n<tool_response>\n12:00\n</tool_response><|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(text, expected);
    let without = template(HERMES).render(&[ChatMessage::new("user", "Hi")], true).unwrap();
    assert_eq!(without, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    // Keys stay in the order in which they were written, as Python's do: models have seen them so.
    let options = ChatOptions { tools: tools(), ..ChatOptions::default() };
    let text = template(HERMES).render_with(&[ChatMessage::new("user", "Hi")], &options).unwrap();
    let shown = r##""parameters": {"type": "object", "properties": {"city": {"$ref": "#/$defs/city"}, "days""##;
    assert!(text.contains(shown), "{text}");
}

#[test]
fn mistral() {
    let template = template(MISTRAL);
    let text = template.render_with(&conversation("abcdefgh1"), &options()).unwrap();
    let expected = "<s>[AVAILABLE_TOOLS][{\"type\": \"function\", \"function\": {\"name\": \"now\"}}][/AVAILABLE_TOOLS]\
        [INST]What time is it?[/INST]\
        [TOOL_CALLS][{\"name\": \"now\", \"arguments\": {\"zone\": \"UTC\"}, \"id\": \"abcdefgh1\"}]</s>\
        [TOOL_RESULTS]{\"content\": \"12:00\", \"call_id\": \"abcdefgh1\"}[/TOOL_RESULTS]";
    assert_eq!(text, expected);
    let error = template.render_with(&conversation("short"), &options()).unwrap_err().to_string();
    assert!(error.contains("ids have 9 letters"), "{error}");
}

#[test]
fn llama() {
    let text = template(LLAMA).render_with(&conversation("1")[..2], &options()).unwrap();
    assert!(
        text.ends_with("<|python_tag|>{\"name\": \"now\", \"parameters\": {\"zone\": \"UTC\"}}<|eot_id|>"),
        "{text}"
    );
}

#[test]
fn a_template_of_its_own_for_tools_and_what_else_one_asks_for() {
    let two = json!([{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "{{ tools | length }} tools"}]);
    let template = checkpoint(two, &[], &[]).1.chat_template().unwrap().unwrap();
    assert_eq!(template.render(&conversation("1"), true).unwrap(), "plain");
    assert_eq!(template.render_with(&conversation("1"), &options()).unwrap(), "1 tools");
    let source = "{{ enable_thinking }} {{ messages | length }}";
    let variables = json!({"enable_thinking": false, "messages": []}).as_object().unwrap().clone();
    let options = ChatOptions { variables, ..ChatOptions::default() };
    assert_eq!(self::template(source).render_with(&conversation("1"), &options).unwrap(), "False 3");
}

#[test]
fn a_template_that_stumbles_over_no_content_is_given_an_empty_one() {
    let source = "{% for m in messages %}{{ m.content.strip() }}|{% endfor %}";
    assert_eq!(template(source).render(&conversation("1"), true).unwrap(), "What time is it?||12:00|");
    let none = "{% for m in messages %}{{ m.content is none }} {% endfor %}";
    assert_eq!(template(none).render(&conversation("1"), true).unwrap(), "False True False ");
}

/// The format of a model with that template and those tokens, and its tokenizer.
fn format(source: &str, special: &[&str], plain: &[&str]) -> (ToolFormat, TextTokenizer) {
    let (_directory, checkpoint) = checkpoint(json!(source), special, plain);
    let (template, tokenizer) = (checkpoint.chat_template().unwrap(), checkpoint.tokenizer().unwrap());
    (ToolFormat::of(template.as_ref(), &tokenizer), tokenizer)
}

#[test]
fn the_form_is_that_of_the_template_or_else_of_the_vocabulary() {
    let family = |source, special: &[&str]| format(source, special, &[]).0.family();
    assert_eq!(family(HERMES, &["[TOOL_CALLS]"]), ToolFamily::Hermes);
    assert_eq!(family(MISTRAL, &[]), ToolFamily::Mistral);
    assert_eq!(family(LLAMA, &[]), ToolFamily::Llama);
    assert_eq!(family("{{ messages[0].content }}", &["<|python_tag|>"]), ToolFamily::Llama);
    assert_eq!(family("{{ messages[0].content }}", &[]), ToolFamily::Json);
}

/// The events of an answer of those ids, decoded and parsed as a server does it.
fn parsed(format: &ToolFormat, tokenizer: &TextTokenizer, ids: &[u32]) -> Vec<ToolEvent> {
    let mut decoder = tokenizer.decoder_showing(format.shown_tokens());
    let mut parser = ToolParser::new(format, &tools(), "answer");
    let mut events = Vec::new();
    for id in ids {
        events.extend(parser.push(&decoder.push(*id).unwrap().unwrap_or_default()));
    }
    events.extend(parser.push(&decoder.flush().unwrap().unwrap_or_default()));
    events.extend(parser.finish());
    events
}

#[test]
fn words_that_are_special_tokens_are_seen() {
    let (format, tokenizer) = format(MISTRAL, &["[TOOL_CALLS]", "[ARGS]"], &[]);
    let answer = "Well.[TOOL_CALLS]now[ARGS]{\"zone\": \"é\"}";
    let ids = tokenizer.encode(answer, false).unwrap();
    assert!(ids.contains(&1024) && ids.contains(&1025));
    assert_eq!(tokenizer.decode(&ids).unwrap(), "Well.now{\"zone\": \"é\"}", "a plain decoder leaves them out");
    let events = parsed(&format, &tokenizer, &ids);
    let (call, text) = events.split_last().unwrap();
    assert_eq!(
        text.iter()
            .map(|event| match event {
                ToolEvent::Text(text) => text.as_str(),
                ToolEvent::Call(_) => "?",
            })
            .collect::<String>(),
        "Well."
    );
    assert!(
        matches!(call, ToolEvent::Call(call) if call.name == "now" && call.arguments == "{\"zone\":\"é\"}"),
        "{call:?}"
    );
}

/// An answer drawn at random among what `choice` allows.
fn forced(
    format: &ToolFormat,
    tokenizer: &TextTokenizer,
    choice: &ToolChoice,
    parallel: bool,
    seed: u64,
) -> Vec<ToolCall> {
    let constraint = format.constraint(&tools(), choice, parallel).unwrap().unwrap();
    let (vocab, end) = (1028, 4);
    let mut matcher = Grammars::new(tokenizer.clone(), vocab, &[end]).matcher(&constraint).unwrap();
    let mut sampler = Sampler::new(&SamplingConfig { temperature: Some(1.0), seed, ..Default::default() }).unwrap();
    let logits = Tensor::zeros(vocab, swarm_model::DType::F32, &Device::Cpu).unwrap();
    let mut ids = Vec::new();
    while !matcher.is_complete() {
        assert!(ids.len() < 2000, "no end: {:?}", tokenizer.decode(&ids));
        let id = sampler.sample_among(&logits, &History::default(), Some(&matcher.mask().unwrap())).unwrap();
        if id == end {
            break;
        }
        matcher.accept(id).unwrap();
        ids.push(id);
    }
    let events = parsed(format, tokenizer, &ids);
    let calls = events.into_iter().map(|event| match event {
        ToolEvent::Call(call) => call,
        ToolEvent::Text(text) => panic!("text beside the calls: {text:?} in {:?}", tokenizer.decode(&ids)),
    });
    calls.collect()
}

#[test]
fn whoever_must_call_calls_in_the_familys_form() {
    let plain = "{{ messages[0].content }}";
    let forms: [(&str, &[&str], &[&str]); 7] = [
        (HERMES, &[], &[]),
        (HERMES, &[], &["<tool_call>", "</tool_call>"]),
        (HERMES, &["<tool_call>", "</tool_call>"], &[]),
        (MISTRAL, &["[TOOL_CALLS]"], &[]),
        (MISTRAL, &["[TOOL_CALLS]", "[ARGS]"], &[]),
        (LLAMA, &["<|python_tag|>"], &[]),
        (plain, &[], &[]),
    ];
    for (template, special, other) in forms {
        let (format, tokenizer) = format(template, special, other);
        for seed in 0..8 {
            let named = ToolChoice::Named("weather".to_string());
            let calls = forced(&format, &tokenizer, &named, false, seed);
            assert_eq!(calls.len(), 1, "{format:?}");
            assert_eq!(calls[0].name, "weather", "{format:?}");
            let arguments: Value = serde_json::from_str(&calls[0].arguments).unwrap();
            assert!(["Ulm", "Rom"].contains(&arguments["city"].as_str().unwrap()), "{arguments}");
            assert!((1..=9).contains(&arguments["days"].as_i64().unwrap()), "{arguments}");
            let calls = forced(&format, &tokenizer, &named, true, seed);
            assert!(!calls.is_empty(), "{format:?}");
        }
    }
}

#[test]
fn who_need_not_call_is_not_held_and_what_cannot_be_called_is_named() {
    let (format, _) = format(HERMES, &[], &[]);
    for choice in [ToolChoice::Auto, ToolChoice::None] {
        assert_eq!(format.constraint(&tools(), &choice, true).unwrap(), None);
    }
    let error = format.constraint(&tools(), &ToolChoice::Named("fly".to_string()), true).unwrap_err().to_string();
    assert!(error.contains("no tool fly"), "{error}");
    let error = format.constraint(&[], &ToolChoice::Required, true).unwrap_err().to_string();
    assert!(error.contains("no tools"), "{error}");
}
