//! What stands in a configuration file. Pure.

use toml::de::{DeTable, DeValue};

/// What is wrong with a file, and in which line (from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) what: String,
}

/// What a key is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// `true` or `false`.
    Switch(bool),
    /// A text or a number, as the command line would have it.
    One(String),
    /// An array of them.
    Many(Vec<String>),
}

/// A key that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) value: Value,
}

/// The settings of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) settings: Vec<Setting>,
}

/// A whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// For all commands that know them.
    pub(super) common: Vec<Setting>,
    /// For one command each.
    pub(super) tables: Vec<Table>,
}

/// Reads a file's text.
///
/// # Errors
/// [`Problem`] if it is no TOML, or holds something that no flag could be.
pub(super) fn read(text: &str) -> Result<Settings, Problem> {
    let line = |at: usize| text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1;
    let document = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| line(span.start));
        Problem { line, what: error.message().replace('\n', "; ") }
    })?;
    let mut settings = Settings::default();
    for (key, value) in document.get_ref() {
        let (name, at) = (key.get_ref().to_string(), line(key.span().start));
        match value.get_ref() {
            DeValue::Table(table) => {
                let inner =
                    table.iter().map(|(key, value)| setting(key.get_ref(), line(key.span().start), value.get_ref()));
                let settings_of = inner.collect::<Result<Vec<_>, _>>()?;
                settings.tables.push(Table { name, line: at, settings: in_order(settings_of) });
            }
            value => settings.common.push(setting(&name, at, value)?),
        }
    }
    settings.common = in_order(settings.common);
    settings.tables.sort_by_key(|table| table.line);
    Ok(settings)
}

/// As they stand in the file.
fn in_order(mut settings: Vec<Setting>) -> Vec<Setting> {
    settings.sort_by_key(|setting| setting.line);
    settings
}

fn setting(key: &str, line: usize, value: &DeValue<'_>) -> Result<Setting, Problem> {
    let value = match value {
        DeValue::Boolean(switch) => Value::Switch(*switch),
        DeValue::Array(elements) => {
            let texts = elements.iter().map(|element| text_of(element.get_ref()));
            Value::Many(texts.collect::<Option<_>>().ok_or_else(|| unusable(key, line, "an array of other things"))?)
        }
        value => Value::One(text_of(value).ok_or_else(|| unusable(key, line, value.type_str()))?),
    };
    Ok(Setting { key: key.to_string(), line, value })
}

fn unusable(key: &str, line: usize, found: &str) -> Problem {
    let what = format!("\"{key}\" is {found}; a flag takes a text, a number, true or false, or an array of texts");
    Problem { line, what }
}

/// A text or a number as the command line would have it.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        // Underscores of TOML's numbers are not among what is kept of them.
        DeValue::Integer(number) => match number.radix() {
            10 => Some(number.as_str().to_string()),
            radix => Some(i128::from_str_radix(number.as_str(), radix).ok()?.to_string()),
        },
        DeValue::Float(number) => Some(number.as_str().to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, line: usize, value: &str) -> Setting {
        Setting { key: key.to_string(), line, value: Value::One(value.to_string()) }
    }

    #[test]
    fn values_come_as_the_command_line_would_have_them() {
        let text = "swarm = \"lab\"\n\n[serve]\nblocks = 8\ncache-tokens = 16_384\nmax = 0x10\nmdns = true\n\
                    listen = [\"/ip4/1\", \"/ip4/2\"]\n[generate]\ntemperature = 0.7\n";
        let settings = read(text).unwrap();
        assert_eq!(settings.common, [one("swarm", 1, "lab")]);
        let serve = &settings.tables[0];
        assert_eq!((serve.name.as_str(), serve.line), ("serve", 3));
        assert_eq!(serve.settings[..3], [one("blocks", 4, "8"), one("cache-tokens", 5, "16384"), one("max", 6, "16")]);
        assert_eq!(serve.settings[3].value, Value::Switch(true));
        assert_eq!(serve.settings[4].value, Value::Many(vec!["/ip4/1".to_string(), "/ip4/2".to_string()]));
        assert_eq!(settings.tables[1].settings, [one("temperature", 10, "0.7")]);
        assert_eq!(read(""), Ok(Settings::default()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, says) in [
            ("a = 1\nb = \n", 2, ""),
            ("a = 1\n\n[serve\n", 3, ""),
            ("\n[serve]\nname = 1979-05-27\n", 3, "\"name\" is"),
            ("[serve]\nname = { a = 1 }\n", 2, "\"name\" is"),
            ("[serve]\nlisten = [[\"a\"]]\n", 2, "array of other things"),
            ("a = 1\na = 2\n", 2, ""),
        ] {
            let problem = read(text).unwrap_err();
            assert_eq!(problem.line, line, "{text:?}: {problem:?}");
            assert!(problem.what.contains(says) && !problem.what.contains('\n'), "{text:?}: {problem:?}");
        }
    }
}
