//! From constraints to matchers.

use std::sync::{Arc, OnceLock};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value, json};
use toktrie::TokEnv;

use super::Constraint;
use super::matcher::TextMatcher;
use super::place::place_of;
use super::vocabulary::Vocabulary;
use crate::error::ModelError;
use crate::text::TextTokenizer;

/// The longest constraint, in bytes of its text: larger than the largest public schemas, and parsed in a second.
const MAX_BYTES: usize = 1 << 20;

/// States of one matcher's lexer, of 1 to 2 kB each: what a text may take in memory.
const MAX_LEXER_STATES: usize = 50_000;

/// Work for one mask, in llguidance's units: some 15 ms for its lexer, and 3 for its parser.
const STEP_LEXER_FUEL: u64 = 200_000;
const STEP_ITEMS: usize = 50_000;

/// What stands between the parts of JSON: a model could go on with spaces for ever.
const JSON_SPACE: &str = r"\x20|\x0A[\x20\x09]{0,40}";

/// Makes matchers for one vocabulary; clones share. What that takes is made when it is first needed: with the largest
/// vocabularies it takes some tenths of a second and some tens of MB.
#[derive(Clone)]
pub struct Grammars(Arc<Inner>);

struct Inner {
    tokenizer: TextTokenizer,
    vocab: usize,
    eos: Vec<u32>,
    factory: OnceLock<Result<ParserFactory, String>>,
}

impl std::fmt::Debug for Grammars {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Grammars({} tokens)", self.0.vocab)
    }
}

impl Grammars {
    /// For a model with `vocab` logits, whose texts end with one of `eos`.
    pub fn new(tokenizer: TextTokenizer, vocab: usize, eos: &[u32]) -> Self {
        Self(Arc::new(Inner { tokenizer, vocab, eos: eos.to_vec(), factory: OnceLock::new() }))
    }

    /// A matcher at the start of a text. Takes milliseconds for usual constraints, up to a second for the largest: nothing for a
    /// thread that serves others.
    ///
    /// # Errors
    /// [`ModelError::BadConstraint`] says what is wrong with it, and where; [`ModelError::NoConstraints`] why the model's texts
    /// cannot be constrained.
    pub fn matcher(&self, constraint: &Constraint) -> Result<TextMatcher, ModelError> {
        let factory = self.0.factory.get_or_init(|| factory(&self.0).map_err(|error| error.to_string()));
        let factory = factory.as_ref().map_err(|reason| ModelError::NoConstraints(reason.clone()))?;
        let bad = |reason: String| ModelError::BadConstraint { what: constraint.name(), reason };
        let bytes = bytes(constraint);
        if bytes > MAX_BYTES {
            return Err(bad(format!("it has {bytes} bytes; at most {MAX_BYTES} are taken")));
        }
        let matcher = compiled(factory, constraint);
        matcher.map_err(|reason| match constraint {
            Constraint::JsonSchema(schema) => {
                let fails = |part: &Value| compiled(factory, &Constraint::JsonSchema(part.clone())).err();
                bad(format!("{reason} (at {})", place_of(schema, &reason, fails)))
            }
            _ => bad(reason),
        })
    }
}

fn factory(inner: &Inner) -> Result<ParserFactory, ModelError> {
    let failed = |error: String| ModelError::NoConstraints(error);
    let vocabulary = Vocabulary::new(inner.tokenizer.clone(), inner.vocab, &inner.eos)?;
    let environment: TokEnv = Arc::new(vocabulary);
    let mut factory = ParserFactory::new_simple(&environment).map_err(|error| failed(format!("{error:#}")))?;
    factory.quiet();
    *factory.limits_mut() = ParserLimits {
        max_lexer_states: MAX_LEXER_STATES,
        step_lexer_fuel: STEP_LEXER_FUEL,
        step_max_items: STEP_ITEMS,
        verbose_errors: false,
        ..ParserLimits::default()
    };
    Ok(factory)
}

fn bytes(constraint: &Constraint) -> usize {
    match constraint {
        Constraint::JsonObject => 0,
        Constraint::JsonSchema(schema) => schema.to_string().len(),
        Constraint::Lark(text) | Constraint::Regex(text) => text.len(),
    }
}

/// A fresh matcher, or what llguidance has against it, in one line.
fn compiled(factory: &ParserFactory, constraint: &Constraint) -> Result<TextMatcher, String> {
    let grammar = match constraint {
        Constraint::JsonObject => TopLevelGrammar::from_json_schema(tight(&json!({"type": "object"}))?),
        Constraint::JsonSchema(schema) => TopLevelGrammar::from_json_schema(tight(schema)?),
        Constraint::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
        Constraint::Regex(text) => TopLevelGrammar::from_regex(text),
    };
    let said = |error: String| match constraint {
        Constraint::Regex(_) => of_regex(&error),
        _ => one_line(&error),
    };
    let parser = factory.create_parser(grammar).map_err(|error| said(format!("{error:#}")))?;
    let matcher = Matcher::new(Ok(parser));
    match matcher.get_error() {
        Some(error) => Err(said(error)),
        None => Ok(TextMatcher::new(matcher)),
    }
}

/// The schema, with bounded space between its parts unless it says otherwise.
pub(crate) fn tight(schema: &Value) -> Result<Value, String> {
    let mut schema = match schema {
        Value::Bool(true) => Map::new(),
        Value::Object(schema) => schema.clone(),
        _ => return Err("a schema is an object".to_string()),
    };
    let options = schema.entry("x-guidance").or_insert_with(|| json!({}));
    if let Value::Object(options) = options
        && !options.contains_key("whitespace_flexible")
    {
        options.entry("whitespace_pattern").or_insert_with(|| json!(JSON_SPACE));
    }
    Ok(Value::Object(schema))
}

/// Before what the parser of regular expressions says: it shows the expression, and then the cause.
const SHOWN: &str = "regex parse error:";
const CAUSE: &str = "error: ";

/// What llguidance says, in one line.
fn one_line(text: &str) -> String {
    if let Some((before, cause)) = of_parser(text) {
        let before = one_line(before);
        let before = before.trim_end_matches(':');
        return match before {
            "" => format!("invalid regex: {cause}"),
            _ if before.contains("regex") => format!("{before}: {cause}"),
            _ => format!("{before}: invalid regex: {cause}"),
        };
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && *line != "<non-verbose/>");
    lines.collect::<Vec<_>>().join("; ")
}

/// What the parser of regular expressions says, if it does, and what stands before.
fn of_parser(text: &str) -> Option<(&str, &str)> {
    let (before, shown) = text.split_once(SHOWN)?;
    Some((before, shown.lines().find_map(|line| line.trim().strip_prefix(CAUSE))?))
}

/// The same of a regular expression: llguidance makes a grammar of it, which nobody has written and nobody needs to see.
fn of_regex(text: &str) -> String {
    if let Some((_, cause)) = of_parser(text) {
        return cause.to_string();
    }
    let (_, said) = text.split_once(" (in regex): ").unwrap_or(("", text));
    let of_grammar = |line: &&str| {
        let line = line.trim();
        line == "^" || line.split_once(" | ").is_some_and(|(number, _)| number.parse::<u32>().is_ok())
    };
    one_line(&said.lines().filter(|line| !of_grammar(line)).collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As llguidance 1.9 says it.
    const SAID: &str = "at 1(8): invalid regex \"\\\"[a-z\" (in regex): regex parse error:\n    \"[a-z\n     ^\n\
                        error: unclosed character class\n1 | start: /\"[a-z/\n           ^";

    #[test]
    fn of_a_regular_expression_only_the_cause_is_told() {
        assert_eq!(of_regex(SAID), "unclosed character class");
        assert_eq!(of_regex("too many states"), "too many states");
        assert_eq!(of_regex("at 1(8): invalid regex \"(?=a)\" (in regex): no\n1 | start: /(?=a)/\n  ^"), "no");
    }

    #[test]
    fn a_grammars_error_keeps_its_place() {
        assert_eq!(one_line(SAID), "at 1(8): invalid regex \"\\\"[a-z\" (in regex): unclosed character class");
        assert_eq!(one_line("a\n\n  b\n<non-verbose/>"), "a; b");
    }
}
