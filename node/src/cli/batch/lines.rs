//! What stands in a batch's lines.

use std::collections::HashSet;
use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde_json::{Value, json};
use swarm_client::{GenerationConfig, Model, Prompt, Summary};
use swarm_model::{Constraint, ModelError, SamplingConfig, StopFilter};

/// The longest line that is read: far beyond any context.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// One prompt of a batch.
pub(super) struct Line {
    /// What its text is called by: its `id`, or else the number of its line, from 1.
    pub(super) key: Value,
    pub(super) wanted: Result<Wanted, Problem>,
}

/// Why a line has no text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem(pub(super) String);

/// A prompt and how it is continued.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    prompt: String,
    config: GenerationConfig,
}

/// A line as it is written. What it does not say is as on the command line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: Option<Value>,
    prompt: String,
    max_tokens: Option<usize>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<usize>,
    min_p: Option<f64>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Option<Stop>,
    json_object: Option<bool>,
    json_schema: Option<Value>,
    grammar: Option<String>,
    regex: Option<String>,
}

/// One stop string or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

impl Stop {
    fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(stop) => vec![stop],
            Self::Many(stops) => stops,
        }
    }
}

/// All lines; empty ones are left out.
///
/// # Errors
/// If the input cannot be read, a line is too long, or two prompts have one id.
pub(super) fn read(mut input: impl BufRead, config: &GenerationConfig) -> io::Result<Vec<Line>> {
    let (mut lines, mut keys) = (Vec::new(), HashSet::new());
    for number in 1_u64.. {
        let mut text = String::new();
        let bytes = input.by_ref().take(MAX_LINE_BYTES).read_line(&mut text)? as u64;
        if bytes == 0 {
            break;
        }
        if bytes == MAX_LINE_BYTES && !text.ends_with('\n') {
            return Err(io::Error::other(format!("line {number} is longer than {MAX_LINE_BYTES} bytes")));
        }
        if text.trim().is_empty() {
            continue;
        }
        let line = Line::of(&text, number, config);
        if !keys.insert(line.key.to_string()) {
            return Err(io::Error::other(format!("line {number} has an id that another line has: {}", line.key)));
        }
        lines.push(line);
    }
    Ok(lines)
}

impl Line {
    fn of(text: &str, number: u64, config: &GenerationConfig) -> Self {
        match serde_json::from_str::<Written>(text) {
            Ok(mut written) => {
                let key = written.id.take().unwrap_or_else(|| json!(number));
                Self { key, wanted: written.wanted(config) }
            }
            Err(error) => Self { key: json!(number), wanted: Err(Problem(format!("line {number}: {}", said(&error)))) },
        }
    }
}

/// What is wrong with a line, and in which column: that it is its own first line tells nobody anything.
fn said(error: &serde_json::Error) -> String {
    let (text, place) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
    match text.strip_suffix(&place) {
        Some(text) => format!("{text}, column {}", error.column()),
        None => text,
    }
}

impl Written {
    fn wanted(mut self, config: &GenerationConfig) -> Result<Wanted, Problem> {
        let problem = |error: ModelError| Problem(error.to_string());
        let constraint = self.constraint()?.or_else(|| config.constraint.clone());
        let GenerationConfig { max_tokens, sampling, .. } = config;
        let sampling = SamplingConfig {
            temperature: self.temperature.or(sampling.temperature),
            top_p: self.top_p.or(sampling.top_p),
            top_k: self.top_k.or(sampling.top_k),
            min_p: self.min_p.or(sampling.min_p),
            repetition_penalty: self.repetition_penalty.or(sampling.repetition_penalty),
            presence_penalty: self.presence_penalty.or(sampling.presence_penalty),
            frequency_penalty: self.frequency_penalty.or(sampling.frequency_penalty),
            seed: self.seed.unwrap_or(sampling.seed),
        };
        sampling.validate().map_err(problem)?;
        let stop = self.stop.map_or_else(|| config.stop.clone(), Stop::into_vec);
        StopFilter::new(&stop).map_err(problem)?;
        let max_tokens = self.max_tokens.unwrap_or(*max_tokens);
        if max_tokens == 0 || self.prompt.trim().is_empty() {
            return Err(Problem("a prompt needs some text, and max_tokens of at least 1".to_string()));
        }
        let config = GenerationConfig { max_tokens, sampling, stop, constraint, ..config.clone() };
        Ok(Wanted { prompt: self.prompt, config })
    }

    /// The form that the line asks for.
    fn constraint(&mut self) -> Result<Option<Constraint>, Problem> {
        let all = [
            self.json_object.filter(|wanted| *wanted).map(|_| Constraint::JsonObject),
            self.json_schema.take().map(Constraint::JsonSchema),
            self.grammar.take().map(Constraint::Lark),
            self.regex.take().map(Constraint::Regex),
        ];
        let mut given = all.into_iter().flatten();
        match (given.next(), given.next()) {
            (_, Some(_)) => Err(Problem("give one of json_object, json_schema, grammar and regex".to_string())),
            (constraint, None) => Ok(constraint),
        }
    }
}

impl Wanted {
    /// The same in tokens.
    ///
    /// # Errors
    /// [`Problem`] if the prompt does not fit the model's context.
    pub(super) fn prompt(self, model: &Model) -> Result<Prompt, Problem> {
        let ids = model.encode(&self.prompt).map_err(|error| Problem(error.to_string()))?;
        let context = model.max_positions();
        if ids.len() >= context {
            let problem = format!("the prompt has {} tokens, the model's context {context}; shorten it", ids.len());
            return Err(Problem(problem));
        }
        Ok(Prompt { ids, config: self.config })
    }
}

/// The line of a text.
pub(super) fn told(key: &Value, summary: &Summary) -> Value {
    json!({
        "id": key,
        "text": summary.text,
        "finish": summary.finish.name(),
        "stop": summary.finish.stop(),
        "prompt_tokens": summary.prompt_tokens,
        "tokens": summary.tokens.len(),
        "time_to_first_token_ms": summary.time_to_first_token.as_millis() as u64,
        "tokens_per_second": summary.tokens_per_second,
        "reroutes": summary.reroutes,
        "route": summary.route.iter().map(|hop| hop.peer.to_string()).collect::<Vec<_>>(),
    })
}

/// The line of a prompt without a text.
pub(super) fn failed(key: &Value, why: &str) -> Value {
    json!({ "id": key, "error": why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> io::Result<Vec<Line>> {
        read(text.as_bytes(), &GenerationConfig { max_tokens: 7, ..GenerationConfig::default() })
    }

    #[test]
    fn what_a_line_does_not_say_is_as_on_the_command_line() {
        let text = "{\"prompt\": \"a\"}\n\n{\"prompt\": \"b\", \"id\": \"x\", \"max_tokens\": 3, \"seed\": 5}";
        let lines = lines(text).unwrap();
        assert_eq!(lines.iter().map(|line| line.key.clone()).collect::<Vec<_>>(), [json!(1), json!("x")]);
        let config = GenerationConfig { max_tokens: 7, ..GenerationConfig::default() };
        assert_eq!(lines[0].wanted, Ok(Wanted { prompt: "a".to_string(), config: config.clone() }));
        let sampling = SamplingConfig { seed: 5, ..SamplingConfig::default() };
        let config = GenerationConfig { max_tokens: 3, sampling, ..config };
        assert_eq!(lines[1].wanted, Ok(Wanted { prompt: "b".to_string(), config }));
    }

    #[test]
    fn a_line_has_its_own_stop_strings_and_form() {
        let text = "{\"prompt\": \"a\", \"stop\": \".\"}\n\
                    {\"prompt\": \"a\", \"stop\": [\".\", \"!\"], \"json_schema\": {\"type\": \"null\"}}\n\
                    {\"prompt\": \"a\", \"regex\": \"a*\", \"json_object\": true}\n\
                    {\"prompt\": \"a\", \"stop\": [\"\"]}";
        let lines = lines(text).unwrap();
        let config = |line: usize| lines[line].wanted.as_ref().unwrap().config.clone();
        assert_eq!((config(0).stop, config(0).constraint), (vec![".".to_string()], None));
        assert_eq!(config(1).stop, [".", "!"]);
        assert_eq!(config(1).constraint, Some(Constraint::JsonSchema(json!({"type": "null"}))));
        assert!(lines[2].wanted.as_ref().unwrap_err().0.contains("one of"));
        assert!(lines[3].wanted.as_ref().unwrap_err().0.starts_with("stop"));
    }

    #[test]
    fn a_bad_line_is_no_other_lines_problem() {
        let text = "{\"prompt\": 3}\nnot json\n{\"prompt\": \"a\", \"temprature\": 1}\n{\"prompt\": \" \"}\n\
                    {\"prompt\": \"a\", \"temperature\": -1}\n{\"prompt\": \"a\"}";
        let lines = lines(text).unwrap();
        let fine: Vec<bool> = lines.iter().map(|line| line.wanted.is_ok()).collect();
        assert_eq!(fine, [false, false, false, false, false, true]);
        let unknown = &lines[2].wanted.as_ref().unwrap_err().0;
        assert!(unknown.starts_with("line 3: ") && unknown.contains("temprature"), "{unknown}");
        for line in &lines[..3] {
            let why = &line.wanted.as_ref().unwrap_err().0;
            assert!(why.contains(", column ") && !why.contains("at line"), "{why}");
        }
    }

    #[test]
    fn two_prompts_cannot_have_one_id() {
        assert!(lines("{\"prompt\": \"a\", \"id\": 2}\n{\"prompt\": \"b\"}").is_err());
        assert!(lines("").unwrap().is_empty());
    }
}
