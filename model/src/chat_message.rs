//! One message of a conversation: as OpenAI's API writes it, and as chat templates want it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::tools::ToolCall;

/// One message of a conversation. It is read as OpenAI's API writes it (its content may be a text, a list of parts of type `text`,
/// or missing), and written as chat templates want it: the arguments of calls as objects, and nothing that is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Its text.
    #[serde(default, deserialize_with = "text")]
    pub content: String,
    /// The tools that an assistant has called.
    #[serde(default, deserialize_with = "or_default")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a message of role `tool` answers.
    #[serde(default)]
    pub tool_call_id: Option<String>,
    /// Who speaks, or the tool that answers.
    #[serde(default)]
    pub name: Option<String>,
}

impl ChatMessage {
    /// A message of `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into(), ..Self::default() }
    }

    /// An assistant's message that calls tools, and perhaps says something before.
    pub fn calling(content: impl Into<String>, tool_calls: Vec<ToolCall>) -> Self {
        Self { tool_calls, ..Self::new("assistant", content) }
    }

    /// What the call `id` of the tool `name` gave.
    pub fn tool_result(id: impl Into<String>, name: impl Into<String>, content: impl Into<String>) -> Self {
        Self { tool_call_id: Some(id.into()), name: Some(name.into()), ..Self::new("tool", content) }
    }

    /// As a template sees it; whoever only calls says none, or with `always_text` an empty text.
    pub(crate) fn for_template(&self, always_text: bool) -> Value {
        let mut message = Map::new();
        message.insert("role".to_string(), json!(self.role));
        let silent = self.content.is_empty() && !self.tool_calls.is_empty() && !always_text;
        message.insert("content".to_string(), if silent { Value::Null } else { json!(self.content) });
        if !self.tool_calls.is_empty() {
            let calls = self.tool_calls.iter().map(ToolCall::for_template).collect();
            message.insert("tool_calls".to_string(), Value::Array(calls));
        }
        let more = [("tool_call_id", &self.tool_call_id), ("name", &self.name)];
        for (key, value) in more {
            if let Some(value) = value {
                message.insert(key.to_string(), json!(value));
            }
        }
        Value::Object(message)
    }
}

impl Serialize for ChatMessage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.for_template(false).serialize(serializer)
    }
}

/// A text, or the parts of one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Option::<Content>::deserialize(deserializer)? {
        None => Ok(String::new()),
        Some(Content::Text(text)) => Ok(text),
        Some(Content::Parts(parts)) => {
            let text = |part: Part| match (part.kind.as_str(), part.text) {
                ("text", Some(text)) => Ok(text),
                ("text", None) => Err(serde::de::Error::custom("a part of type \"text\" has no text")),
                (kind, _) => Err(serde::de::Error::custom(format!("a part of type {kind:?}: only text can be read"))),
            };
            let parts: Result<Vec<String>, D::Error> = parts.into_iter().map(text).collect();
            Ok(parts?.join("\n"))
        }
    }
}

/// Some clients write null for nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: Value) -> ChatMessage {
        serde_json::from_value(message).unwrap()
    }

    #[test]
    fn it_is_read_as_the_api_writes_it() {
        assert_eq!(read(json!({"role": "user", "content": "Hi"})), ChatMessage::new("user", "Hi"));
        let parts = json!({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]});
        assert_eq!(read(parts), ChatMessage::new("user", "a\nb"));
        let call = ToolCall { id: "1".to_string(), name: "f".to_string(), arguments: "{\"b\": 1}".to_string() };
        let calls = json!({"role": "assistant", "content": null, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"b\": 1}"}},
        ]});
        assert_eq!(read(calls), ChatMessage::calling("", vec![call]));
        let result = json!({"role": "tool", "tool_call_id": "1", "name": "f", "content": "4", "tool_calls": null});
        assert_eq!(read(result), ChatMessage::tool_result("1", "f", "4"));
        let picture = json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]});
        assert!(serde_json::from_value::<ChatMessage>(picture).unwrap_err().to_string().contains("image_url"));
    }

    #[test]
    fn templates_see_arguments_as_objects_and_nothing_that_is_not_there() {
        let call = ToolCall { id: "1".to_string(), name: "f".to_string(), arguments: "{\"b\": 1}".to_string() };
        assert_eq!(
            ChatMessage::calling("", vec![call]).for_template(false).to_string(),
            r#"{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":{"b":1}}}]}"#
        );
        assert_eq!(json!(ChatMessage::new("user", "")).to_string(), r#"{"role":"user","content":""}"#);
    }
}
