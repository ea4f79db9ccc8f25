//! How a chat's answers are written: text, and the tools that are called in it.

use std::collections::HashMap;

use serde_json::{Value, json};
use swarm_client::Finish;
use swarm_model::{ToolCall, ToolDefinition, ToolEvent, ToolFormat, ToolParser};

use super::answer::Form;
use super::probabilities::TokenOdds;
use super::run::End;

/// The chat's form.
#[derive(Debug, Default)]
pub(crate) struct ChatForm {
    /// Whether odds are given.
    pub(crate) odds: bool,
    /// The tools that may be called.
    pub(crate) tools: Option<Tools>,
}

/// How calls are told apart from text.
#[derive(Debug)]
pub(crate) struct Tools {
    format: ToolFormat,
    definitions: Vec<ToolDefinition>,
    /// Tells this request's calls from all others.
    salt: String,
    /// Of answers that are streamed.
    parsers: HashMap<usize, ToolParser>,
}

impl Tools {
    /// These tools, called as in `format`.
    pub(crate) fn new(format: ToolFormat, definitions: Vec<ToolDefinition>, salt: String) -> Self {
        Self { format, definitions, salt, parsers: HashMap::new() }
    }

    fn parser(&self, choice: usize) -> ToolParser {
        ToolParser::new(&self.format, &self.definitions, format!("{} {choice}", self.salt))
    }

    /// What a piece of a streamed answer holds.
    fn push(&mut self, choice: usize, piece: &str) -> Vec<ToolEvent> {
        let new = self.parser(choice);
        self.parsers.entry(choice).or_insert(new).push(piece)
    }

    /// What was held back of it, and how many calls there were.
    fn finish(&mut self, choice: usize) -> (Vec<ToolEvent>, usize) {
        self.parsers.remove(&choice).map_or((Vec::new(), 0), |mut parser| (parser.finish(), parser.calls()))
    }

    /// The text of a whole answer, and the calls in it.
    fn split(&self, choice: usize, answer: &str) -> (String, Vec<ToolCall>) {
        let mut parser = self.parser(choice);
        let mut events = parser.push(answer);
        events.extend(parser.finish());
        let (mut text, mut calls) = (String::new(), Vec::new());
        for event in events {
            match event {
                ToolEvent::Text(piece) => text.push_str(&piece),
                ToolEvent::Call(call) => calls.push(call),
            }
        }
        (text, calls)
    }
}

impl ChatForm {
    fn chunk(&self, choice: usize, delta: Value, odds: Option<&TokenOdds>, finish: Option<&str>) -> Value {
        let odds = odds.filter(|_| self.odds).map(|odds| json!({"content": [odds.in_chat()], "refusal": null}));
        json!({"index": choice, "delta": delta, "logprobs": odds, "finish_reason": finish})
    }

    /// Chunks of what a piece of text has turned out to be; odds go with the first.
    fn chunks(
        &self,
        choice: usize,
        events: Vec<ToolEvent>,
        calls_before: usize,
        odds: Option<&TokenOdds>,
    ) -> Vec<Value> {
        let mut odds = odds.filter(|_| self.odds);
        let mut calls = calls_before;
        let mut chunks = Vec::new();
        for event in events {
            let delta = match event {
                ToolEvent::Text(text) => json!({"content": text}),
                ToolEvent::Call(call) => {
                    let mut call = written(&call);
                    call["index"] = json!(calls);
                    calls += 1;
                    json!({"tool_calls": [call]})
                }
            };
            chunks.push(self.chunk(choice, delta, odds.take(), None));
        }
        if odds.is_some() {
            chunks.push(self.chunk(choice, json!({"content": ""}), odds, None));
        }
        chunks
    }

    fn events(&mut self, choice: usize, text: &str) -> (Vec<ToolEvent>, usize) {
        match &mut self.tools {
            Some(tools) => {
                let before = tools.parsers.get(&choice).map_or(0, ToolParser::calls);
                (tools.push(choice, text), before)
            }
            None if text.is_empty() => (Vec::new(), 0),
            None => (vec![ToolEvent::Text(text.to_string())], 0),
        }
    }
}

/// A call as OpenAI's API writes it.
fn written(call: &ToolCall) -> Value {
    json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}})
}

/// Why an answer has ended, for its reader: what was cut off is no complete answer, whatever it has called before.
fn finish(finish: &Finish, calls: usize) -> &'static str {
    match finish.name() {
        "stop" if calls > 0 => "tool_calls",
        name => name,
    }
}

impl Form for ChatForm {
    fn kinds(&self) -> (&'static str, &'static str) {
        ("chat.completion.chunk", "chat.completion")
    }

    fn opening(&mut self, choice: usize) -> Option<Value> {
        Some(self.chunk(choice, json!({"role": "assistant", "content": "", "refusal": null}), None, None))
    }

    fn piece(&mut self, choice: usize, text: &str, odds: Option<&TokenOdds>) -> Vec<Value> {
        let (events, before) = self.events(choice, text);
        self.chunks(choice, events, before, odds)
    }

    fn closing(&mut self, choice: usize, end: &End) -> Vec<Value> {
        let mut chunks = self.piece(choice, &end.summary.tail, None);
        let (rest, calls) = self.tools.as_mut().map_or((Vec::new(), 0), |tools| tools.finish(choice));
        chunks.extend(self.chunks(choice, rest, calls, None));
        chunks.push(self.chunk(choice, json!({}), None, Some(finish(&end.summary.finish, calls))));
        chunks
    }

    fn whole(&mut self, choice: usize, end: &End, odds: &[TokenOdds]) -> Value {
        let content = odds.iter().map(TokenOdds::in_chat).collect::<Vec<_>>();
        let odds = self.odds.then(|| json!({"content": content, "refusal": null}));
        let (text, calls) = match &self.tools {
            Some(tools) => tools.split(choice, &end.summary.text),
            None => (end.summary.text.clone(), Vec::new()),
        };
        let mut message = json!({"role": "assistant", "content": text, "refusal": null});
        if !calls.is_empty() {
            if text.is_empty() {
                message["content"] = Value::Null;
            }
            message["tool_calls"] = calls.iter().map(written).collect();
        }
        let finish = finish(&end.summary.finish, calls.len());
        json!({"index": choice, "message": message, "logprobs": odds, "finish_reason": finish})
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::{Chunks, Envelope, Said, Whole};
    use super::super::probabilities::Likely;
    use super::super::usage::tests::end;
    use super::*;

    fn envelope() -> Envelope {
        let text = |text: &str| text.to_string();
        Envelope {
            id: text("chatcmpl-1"),
            created: 7,
            model: text("demo"),
            fingerprint: text("fp_1"),
            request_id: text("r"),
            fallback: false,
        }
    }

    fn token(choice: usize, text: &str) -> Said {
        let odds = TokenOdds { chosen: Likely { token: text.to_string(), log: -1.0 }, top: vec![] };
        Said::Token { choice, text: text.to_string(), odds: Some(odds) }
    }

    fn done(choice: usize, tail: &str) -> Said {
        let mut end = end(2, true);
        end.summary.tail = tail.to_string();
        end.summary.text = format!("ab{tail}");
        Said::End { choice, end: Box::new(end) }
    }

    #[test]
    fn a_stream_tells_role_text_end_and_usage() {
        let mut chunks = Chunks::new(envelope(), Box::new(ChatForm::default()), 1, true);
        let mut all = Vec::new();
        for said in [token(0, "a"), token(0, ""), token(0, "b"), done(0, "\u{FFFD}")] {
            assert!(!chunks.is_complete());
            all.extend(chunks.on(&said));
        }
        assert!(chunks.is_complete());
        assert_eq!(all.len(), 6, "role, a, b, the tail, the end, usage: {all:?}");
        assert!(all.iter().all(|chunk| chunk["object"] == "chat.completion.chunk" && chunk["id"] == "chatcmpl-1"));
        assert_eq!(all[0]["choices"][0]["delta"], json!({"role": "assistant", "content": "", "refusal": null}));
        let text: String =
            all[1..4].iter().map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap()).collect();
        assert_eq!(text, "ab\u{FFFD}");
        assert!(all[..5].iter().all(|chunk| chunk["usage"].is_null() && chunk.get("swarm").is_none()));
        assert_eq!(all[4]["choices"][0]["finish_reason"], "length");
        assert_eq!((&all[5]["choices"], &all[5]["usage"]["completion_tokens"]), (&json!([]), &json!(2)));
        assert_eq!(all[5]["swarm"]["request_id"], "r");
    }

    #[test]
    fn without_usage_the_last_chunk_is_the_end() {
        let mut chunks = Chunks::new(envelope(), Box::new(ChatForm { odds: true, tools: None }), 2, false);
        let mut all = Vec::new();
        for said in [token(0, "a"), done(0, ""), token(1, ""), done(1, "")] {
            all.extend(chunks.on(&said));
        }
        let finishes: Vec<bool> = all.iter().map(|chunk| chunk["choices"][0]["finish_reason"].is_string()).collect();
        assert_eq!(finishes, [false, false, true, false, false, true]);
        assert_eq!(all[1]["choices"][0]["logprobs"]["content"][0]["token"], "a");
        assert_eq!(all[4]["choices"][0]["index"], 1);
        assert!(all.iter().all(|chunk| chunk.get("usage").is_none()));
        assert!(all[..5].iter().all(|chunk| chunk.get("swarm").is_none()) && all[5]["swarm"].is_object());
    }

    #[test]
    fn a_whole_answer_has_all_choices_in_their_order() {
        let mut whole = Whole::new(envelope(), Box::new(ChatForm { odds: true, tools: None }), 2);
        for said in [token(1, "x"), token(0, "a"), token(0, "b"), done(1, ""), done(0, "")] {
            whole.on(said);
        }
        let object = whole.object();
        assert_eq!(object["object"], "chat.completion");
        assert_eq!(object["choices"][0]["message"]["content"], "ab");
        let tokens = |choice: usize| object["choices"][choice]["logprobs"]["content"].as_array().unwrap().len();
        assert_eq!((tokens(0), tokens(1), object["choices"][1]["index"].as_u64()), (2, 1, Some(1)));
        assert_eq!(object["usage"]["completion_tokens"], 4);
    }
}
