//! Tools: what a model is told it may call, and the calls in what it answers.
//!
//! Each family of models writes calls in its own form; [`ToolFormat`] knows it from the chat template and the vocabulary. A
//! [`ToolParser`] takes the calls out of an answer while it is generated; [`ToolFormat::constraint`] makes a model call.

mod family;
mod format;
mod grammar;
mod json;
mod parser;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use family::ToolFamily;
pub use format::ToolFormat;
pub use parser::{ToolEvent, ToolParser};

/// A tool that a model may call; written as in OpenAI's API, and so it is shown to chat templates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "WrittenTool", into = "WrittenTool")]
pub struct ToolDefinition {
    /// What it is called by.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// The JSON schema of its arguments: an object's.
    pub parameters: Option<Value>,
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WrittenCall", into = "WrittenCall")]
pub struct ToolCall {
    /// What its result names it by.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, as JSON text.
    pub arguments: String,
}

/// Whether a model calls tools.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// It does not.
    None,
    /// As it likes.
    #[default]
    Auto,
    /// It must call one.
    Required,
    /// It must call this one.
    Named(String),
}

#[derive(Serialize, Deserialize)]
struct WrittenTool {
    #[serde(rename = "type", default)]
    kind: FunctionKind,
    function: WrittenFunction,
}

/// The only kind of tool there is.
#[derive(Default, Serialize, Deserialize)]
enum FunctionKind {
    #[default]
    #[serde(rename = "function")]
    Function,
}

#[derive(Serialize, Deserialize)]
struct WrittenFunction {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
}

impl From<WrittenTool> for ToolDefinition {
    fn from(WrittenTool { function: WrittenFunction { name, description, parameters }, .. }: WrittenTool) -> Self {
        Self { name, description, parameters }
    }
}

impl From<ToolDefinition> for WrittenTool {
    fn from(ToolDefinition { name, description, parameters }: ToolDefinition) -> Self {
        Self { kind: FunctionKind::Function, function: WrittenFunction { name, description, parameters } }
    }
}

#[derive(Serialize, Deserialize)]
struct WrittenCall {
    #[serde(default)]
    id: String,
    #[serde(rename = "type", default)]
    kind: FunctionKind,
    function: CalledFunction,
}

#[derive(Serialize, Deserialize)]
struct CalledFunction {
    name: String,
    /// As JSON text, or as the object itself.
    #[serde(default)]
    arguments: Value,
}

impl From<WrittenCall> for ToolCall {
    fn from(WrittenCall { id, function: CalledFunction { name, arguments }, .. }: WrittenCall) -> Self {
        Self { id, name, arguments: json::arguments_text(&arguments) }
    }
}

impl From<ToolCall> for WrittenCall {
    fn from(ToolCall { id, name, arguments }: ToolCall) -> Self {
        let function = CalledFunction { name, arguments: Value::String(arguments) };
        Self { id, kind: FunctionKind::Function, function }
    }
}

impl ToolCall {
    /// As chat templates want it: the arguments as an object.
    pub(crate) fn for_template(&self) -> Value {
        let arguments = serde_json::from_str(&self.arguments).ok().filter(Value::is_object);
        let arguments = arguments.unwrap_or_else(|| json!(self.arguments));
        json!({"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}})
    }
}
