//! Making a model call: its form as a grammar.

use std::fmt::Write;

use serde_json::{Value, json};

use super::family::{HERMES_CLOSE, HERMES_OPEN, MISTRAL_ARGUMENTS, MISTRAL_OPEN};
use super::{ToolChoice, ToolDefinition, ToolFamily, ToolFormat};
use crate::constraint::{Constraint, tight};
use crate::error::ModelError;

impl ToolFormat {
    /// What holds a model to `choice`; `None` if it may answer as it likes. `parallel`: whether there may be several calls.
    ///
    /// # Errors
    /// [`ModelError::BadConstraint`] if there is no tool to call, or none of that name, or its parameters are no schema.
    pub fn constraint(
        &self,
        tools: &[ToolDefinition],
        choice: &ToolChoice,
        parallel: bool,
    ) -> Result<Option<Constraint>, ModelError> {
        let tools: Vec<&ToolDefinition> = match choice {
            ToolChoice::None | ToolChoice::Auto => return Ok(None),
            ToolChoice::Required => tools.iter().collect(),
            ToolChoice::Named(name) => tools.iter().filter(|tool| tool.name == *name).collect(),
        };
        let bad = |reason: String| ModelError::BadConstraint { what: "the choice of a tool", reason };
        if tools.is_empty() {
            return Err(bad(match choice {
                ToolChoice::Named(name) => format!("there is no tool {name}"),
                _ => "there are no tools".to_string(),
            }));
        }
        let mut grammar = self.frame(parallel);
        let calls: Vec<String> = (0..tools.len()).map(|index| format!("call_{index}")).collect();
        let failed = |tool: &ToolDefinition, reason: String| bad(format!("the parameters of {}: {reason}", tool.name));
        // Writing to a text cannot fail.
        let _ = writeln!(grammar, "call: {}", calls.join(" | "));
        for (tool, call) in tools.into_iter().zip(calls) {
            let body = self.call(tool).map_err(|reason| failed(tool, reason))?;
            let _ = writeln!(grammar, "{call}: {body}");
        }
        Ok(Some(Constraint::Lark(grammar)))
    }

    /// What stands around calls, up to the rule `call`.
    fn frame(&self, parallel: bool) -> String {
        let more = |separator: &str| if parallel { format!(" ({separator} one)*") } else { String::new() };
        match self.family() {
            ToolFamily::Hermes => {
                let (open, close) = (self.word(HERMES_OPEN), self.word(HERMES_CLOSE));
                let more = more("\"\\n\"");
                format!("start: one{more}\none: {open} \"\\n\" call \"\\n\" {close}\n")
            }
            ToolFamily::Mistral if self.is_named() => {
                let more = more("");
                format!("start: one{more}\none: {} call\n", self.word(MISTRAL_OPEN))
            }
            ToolFamily::Mistral => {
                let more = more("\", \"");
                format!("start: {} \"[\" one{more} \"]\"\none: call\n", self.word(MISTRAL_OPEN))
            }
            // Such models call one tool at a time.
            ToolFamily::Llama | ToolFamily::Json => "start: call\n".to_string(),
        }
    }

    /// Whether the tool's name stands before its arguments.
    fn is_named(&self) -> bool {
        self.family() == ToolFamily::Mistral && self.special(MISTRAL_ARGUMENTS).is_some()
    }

    fn call(&self, tool: &ToolDefinition) -> Result<String, String> {
        let parameters = parameters(tool)?;
        if self.is_named() {
            let (name, arguments) = (quoted(&tool.name), self.word(MISTRAL_ARGUMENTS));
            return Ok(format!("{name} {arguments} %json {}", tight(&parameters)?));
        }
        let arguments = if self.family() == ToolFamily::Llama { "parameters" } else { "arguments" };
        let mut parameters = parameters;
        // References lead to the root of the whole schema.
        let definitions: Vec<(&str, Value)> = ["$defs", "definitions"]
            .into_iter()
            .filter_map(|key| Some((key, parameters.as_object_mut()?.remove(key)?)))
            .collect();
        let mut schema = json!({
            "type": "object",
            "properties": {"name": {"const": tool.name}, arguments: parameters},
            "required": ["name", arguments],
            "additionalProperties": false,
        });
        for (key, definitions) in definitions {
            schema[key] = definitions;
        }
        Ok(format!("%json {}", tight(&schema)?))
    }

    /// A word as a grammar names it.
    fn word(&self, word: &str) -> String {
        self.special(word).map_or_else(|| quoted(word), |id| format!("<[{id}]>"))
    }
}

/// A tool's schema, which is an object's.
fn parameters(tool: &ToolDefinition) -> Result<Value, String> {
    match tool.parameters.clone() {
        None | Some(Value::Null) => Ok(json!({"type": "object", "properties": {}})),
        Some(Value::Object(mut schema)) => {
            schema.entry("type").or_insert_with(|| json!("object"));
            Ok(Value::Object(schema))
        }
        Some(_) => Err("a schema is an object".to_string()),
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
