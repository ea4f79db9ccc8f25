//! The messages of a chat, as requests have them and as the model's template takes them.

use serde::Deserialize;
use swarm_model::{ChatMessage, ToolCall};

use super::error::ApiError;

/// A message of a request.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Message {
    role: String,
    content: Option<Content>,
    tool_calls: Option<Vec<ToolCall>>,
    tool_call_id: Option<String>,
    name: Option<String>,
}

/// A message's text, in one piece or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of objects with a type")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Clone, Deserialize)]
struct Part {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
}

/// Roles that a template knows.
const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

/// The messages for the template.
///
/// # Errors
/// [`ApiError`] names the message that is none, or holds what a language model cannot read.
pub(crate) fn for_template(messages: &[Message]) -> Result<Vec<ChatMessage>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::bad("messages", "messages is empty; give at least one message."));
    }
    messages.iter().enumerate().map(|(place, message)| message.for_template(place)).collect()
}

impl Message {
    fn for_template(&self, place: usize) -> Result<ChatMessage, ApiError> {
        // What OpenAI's newer models call it.
        let role = if self.role == "developer" { "system" } else { self.role.as_str() };
        if !ROLES.contains(&role) {
            let message = format!("The role {:?} is unknown; it must be one of {}.", self.role, ROLES.join(", "));
            return Err(ApiError::bad(format!("messages[{place}].role"), message));
        }
        let content = match &self.content {
            Some(content) => content.text(place)?,
            None if role == "assistant" => String::new(),
            None => return Err(ApiError::bad(format!("messages[{place}].content"), "This message has no content.")),
        };
        Ok(ChatMessage {
            tool_calls: self.tool_calls.clone().unwrap_or_default(),
            tool_call_id: self.tool_call_id.clone(),
            name: self.name.clone(),
            ..ChatMessage::new(role, content)
        })
    }
}

impl Content {
    fn text(&self, place: usize) -> Result<String, ApiError> {
        let parts = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::Parts(parts) => parts,
        };
        let text = |(number, part): (usize, &Part)| {
            let param = format!("messages[{place}].content[{number}]");
            match (part.kind.as_str(), &part.text) {
                ("text", Some(text)) => Ok(text.clone()),
                ("text", None) => Err(ApiError::bad(param, "This part has no text.")),
                (kind, _) => Err(ApiError::unsupported(
                    param,
                    format!("Parts of type {kind:?} are not supported here; send text."),
                )),
            }
        };
        parts.iter().enumerate().map(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<ChatMessage>, ApiError> {
        for_template(&serde_json::from_str::<Vec<Message>>(json).unwrap())
    }

    #[test]
    fn parts_are_joined_and_developers_are_systems() {
        let json = r#"[{"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}], "store": 1},
            {"role": "assistant", "content": null}]"#;
        let expected = [("system", "Be brief."), ("user", "Hello"), ("assistant", "")];
        assert_eq!(read(json).unwrap(), expected.map(|(role, text)| ChatMessage::new(role, text)));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let param = |json: &str| read(json).unwrap_err().body()["error"]["param"].as_str().map(str::to_string);
        assert_eq!(param("[]").as_deref(), Some("messages"));
        assert_eq!(param(r#"[{"role": "wizard", "content": "x"}]"#).as_deref(), Some("messages[0].role"));
        assert_eq!(param(r#"[{"role": "user"}]"#).as_deref(), Some("messages[0].content"));
        let image = r#"[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]"#;
        assert_eq!(param(image).as_deref(), Some("messages[0].content[0]"));
    }
}
