//! What holds an answer to a form: tools that must be called, or JSON.

use serde::Deserialize;
use serde_json::Value;
use swarm_client::Model;
use swarm_model::{Constraint, ToolChoice, ToolDefinition};

use super::error::ApiError;

/// The most tools of one request: OpenAI's number.
const MOST_TOOLS: usize = 128;

/// Letters of a tool's name.
const LONGEST_NAME: usize = 64;

/// The fields of a chat that guide its answer.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Guidance {
    tools: Option<Vec<ToolDefinition>>,
    tool_choice: Option<Choice>,
    parallel_tool_calls: Option<bool>,
    response_format: Option<ResponseFormat>,
    functions: Option<Value>,
    function_call: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected \"none\", \"auto\", \"required\", or an object that names a function")]
enum Choice {
    Word(String),
    Named { function: Named },
}

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize)]
struct ResponseFormat {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<JsonSchema>,
}

#[derive(Debug, Deserialize)]
struct JsonSchema {
    schema: Option<Value>,
}

/// What becomes of it.
#[derive(Debug, Default)]
pub(super) struct Guided {
    /// The tools that the model is shown.
    pub(super) tools: Vec<ToolDefinition>,
    /// The form that the answer has.
    pub(super) constraint: Option<Constraint>,
    /// The field that the form comes from.
    pub(super) field: &'static str,
}

/// Whether it is what OpenAI takes for a name of a tool, dots too: in every form of calls it can be told from what surrounds it.
fn is_name(name: &str) -> bool {
    let letter = |letter: u8| letter.is_ascii_alphanumeric() || b"_-.".contains(&letter);
    (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(letter)
}

impl Guidance {
    /// What the model is shown and held to.
    ///
    /// # Errors
    /// [`ApiError`] names the field that cannot be obeyed.
    pub(super) fn understood(&self, model: &Model) -> Result<Guided, ApiError> {
        if self.functions.is_some() || self.function_call.is_some() {
            return Err(ApiError::unsupported("functions", "functions are not supported here; use tools."));
        }
        let choice = self.choice()?;
        let tools = match choice {
            ToolChoice::None => Vec::new(),
            _ => self.tools.clone().unwrap_or_default(),
        };
        if tools.len() > MOST_TOOLS {
            return Err(ApiError::bad(
                "tools",
                format!("There are {} tools; at most {MOST_TOOLS} are taken.", tools.len()),
            ));
        }
        if let Some(tool) = tools.iter().find(|tool| !is_name(&tool.name)) {
            let message = format!(
                "{:?} is no name of a tool: up to {LONGEST_NAME} letters, digits, underscores, dots and dashes are.",
                tool.name.chars().take(LONGEST_NAME).collect::<String>()
            );
            return Err(ApiError::bad("tools", message));
        }
        let json = self.json()?;
        if json.is_some() && !tools.is_empty() {
            let message = "response_format together with tools is not supported here, unless tool_choice is \"none\".";
            return Err(ApiError::unsupported("response_format", message));
        }
        let parallel = self.parallel_tool_calls.unwrap_or(true);
        let calls = model.tool_format().constraint(&tools, &choice, parallel);
        let calls = calls.map_err(|error| ApiError::bad("tool_choice", format!("{error}.")))?;
        let field = if calls.is_some() { "tools" } else { "response_format" };
        Ok(Guided { tools, constraint: calls.or(json), field })
    }

    fn choice(&self) -> Result<ToolChoice, ApiError> {
        match &self.tool_choice {
            None => Ok(ToolChoice::Auto),
            Some(Choice::Named { function }) => Ok(ToolChoice::Named(function.name.clone())),
            Some(Choice::Word(word)) => match word.as_str() {
                "none" => Ok(ToolChoice::None),
                "auto" => Ok(ToolChoice::Auto),
                "required" => Ok(ToolChoice::Required),
                other => {
                    let message =
                        format!("tool_choice is {other:?}; it must be none, auto, required or name a function.");
                    Err(ApiError::bad("tool_choice", message))
                }
            },
        }
    }

    fn json(&self) -> Result<Option<Constraint>, ApiError> {
        let Some(format) = &self.response_format else { return Ok(None) };
        match (format.kind.as_str(), &format.json_schema) {
            ("text", _) => Ok(None),
            ("json_object", _) => Ok(Some(Constraint::JsonObject)),
            ("json_schema", Some(JsonSchema { schema: Some(schema) })) => {
                Ok(Some(Constraint::JsonSchema(schema.clone())))
            }
            ("json_schema", _) => {
                Err(ApiError::bad("response_format.json_schema.schema", "response_format has no json_schema.schema."))
            }
            (other, _) => {
                let message = format!("response_format is {other:?}; it must be text, json_object or json_schema.");
                Err(ApiError::bad("response_format.type", message))
            }
        }
    }
}
