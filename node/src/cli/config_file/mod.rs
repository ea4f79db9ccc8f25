//! The third source of settings, after flags and environment: a TOML file.
//!
//! Keys are the flags' long names: at the top for all commands that have them, in a table for one command. What the file
//! says is put on the command line where that and the environment are silent, before anything is parsed.

mod merge;
mod read;
mod values;
mod variables;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::{ArgMatches, Command, Id};

use self::merge::Added;
use self::read::{Problem, Settings, Value};
use super::output::BadUsage;

/// Where the file is looked for below a user's folder of settings.
const IN_FOLDER: &str = "swarm-node/config.toml";

/// The largest file that is read.
const MAX_BYTES: u64 = 1024 * 1024;

/// Where the settings of this user are, if the user has a folder for them.
pub(super) fn default_path() -> Option<PathBuf> {
    folder(|name| std::env::var_os(name)).map(|folder| folder.join(IN_FOLDER))
}

fn folder(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || absolute(if cfg!(windows) { "APPDATA" } else { "HOME" });
    let below_home = || home().map(|home| if cfg!(windows) { home } else { home.join(".config") });
    absolute("XDG_CONFIG_HOME").or_else(below_home)
}

/// A file that was read and checked.
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    settings: Settings,
    /// Flags whose values are not shown.
    secret: Vec<String>,
}

impl ConfigFile {
    /// The file at `named`, which must be there; without a name the user's own, if it is. An empty name means none.
    ///
    /// # Errors
    /// If it cannot be read, or says something that no command of `program` (built) knows.
    pub(super) fn load(named: Option<&Path>, program: &Command) -> Result<Option<Self>> {
        let (path, must) = match named {
            Some(path) if path.as_os_str().is_empty() => return Ok(None),
            Some(path) => (path.to_path_buf(), true),
            None => match default_path() {
                Some(path) => (path, false),
                None => return Ok(None),
            },
        };
        let Some(text) = read_text(&path, must)? else { return Ok(None) };
        let settings = read::read(&text).map_err(|problem| wrong(&path, &problem))?;
        merge::check(&settings, program).map_err(|problem| wrong(&path, &problem))?;
        let flags = program.get_subcommands().flat_map(Command::get_arguments).chain(program.get_arguments());
        let secret = flags.filter(|flag| flag.is_hide_env_values_set()).filter_map(|flag| flag.get_long());
        let secret = secret.map(str::to_string).collect();
        Ok(Some(Self { path, settings, secret }))
    }

    /// Whether each value is one for a command that takes it; whatever it may have to look at for that, such as folders.
    ///
    /// # Errors
    /// Which is none, with its line.
    pub(super) fn check_values(&self, program: &Command) -> Result<()> {
        values::check(&self.settings, program).map_err(|problem| wrong(&self.path, &problem))
    }

    /// What is set, line by line.
    pub(super) fn lines(&self) -> Vec<String> {
        let common = self.settings.common.iter().map(|setting| (None, setting));
        let tables = self.settings.tables.iter();
        let own = tables.flat_map(|table| table.settings.iter().map(|setting| (Some(&table.name), setting)));
        let shown = common.chain(own).map(|(table, setting)| {
            let table = table.map_or_else(|| "all commands".to_string(), |table| format!("`{table}`"));
            let value = match &setting.value {
                _ if self.secret.contains(&setting.key) => "(not shown)".to_string(),
                Value::Switch(on) => on.to_string(),
                Value::One(value) => value.clone(),
                Value::Many(values) => values.join(", "),
            };
            format!("line {:<4} {table}: {} = {value}", setting.line, setting.key)
        });
        shown.collect()
    }
}

fn read_text(path: &Path, must: bool) -> Result<Option<String>> {
    let unreadable = || format!("cannot read the configuration file {}", path.display());
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must => return Ok(None),
        Ok(about) if about.len() > MAX_BYTES => {
            return Err(anyhow!("{} is larger than a configuration file can be", path.display()));
        }
        _ => {}
    }
    let text = std::fs::read_to_string(path).with_context(unreadable);
    text.map(Some).map_err(|error| BadUsage(error).into())
}

fn wrong(path: &Path, Problem { line, what }: &Problem) -> anyhow::Error {
    BadUsage(anyhow!("{}, line {line}: {what}", path.display())).into()
}

/// A command line with what a file adds to it.
pub(super) struct Line {
    /// What is to be parsed.
    pub(super) arguments: Vec<OsString>,
    given: Vec<OsString>,
    added: Vec<Added>,
    path: Option<PathBuf>,
    /// The command that is asked for (built), if there is such a one.
    command: Option<Command>,
    /// Its flags whose variables say nothing here.
    silent: Vec<Id>,
}

impl Line {
    /// The arguments that were `given`, with what the file says where they and the environment are silent.
    ///
    /// # Errors
    /// If the file cannot be read, or says something that no command of `program` knows.
    pub(super) fn of(given: Vec<OsString>, program: Command) -> Result<Self> {
        let mut built = program.clone();
        built.build();
        let arguments = given.clone();
        let mut line = Self { arguments, given, added: Vec::new(), path: None, command: None, silent: Vec::new() };
        // What is wrong on the command line is told when it is parsed for good.
        let Ok(first) = program.ignore_errors(true).try_get_matches_from(&line.given) else { return Ok(line) };
        let of_command = first.subcommand().and_then(|(name, found)| Some((built.find_subcommand(name)?, found)));
        let file = ConfigFile::load(named(&first, of_command.map(|(_, found)| found)).as_deref(), &built)?;
        let Some((command, found)) = of_command else { return Ok(line) };
        line.command = Some(command.clone());
        line.silent = variables::silent(&built, command, found, variable);
        if let Some(file) = file {
            let added = merge::added(&file.settings, command, found, variable);
            line.added = added.map_err(|problem| wrong(&file.path, &problem))?;
            line.arguments = merge::merged(&line.given, &line.added);
            line.path = Some(file.path);
        }
        Ok(line)
    }

    /// `program`, whose command hears only the variables that count for this line.
    pub(super) fn heard_by(&self, program: Command) -> Command {
        match &self.command {
            Some(command) => variables::without(program, command.get_name(), &self.silent),
            None => program,
        }
    }

    /// Where a flag that clap complains about was set, if that was not the command line.
    pub(super) fn origin(&self, complaint: &clap::Error) -> Option<String> {
        let words = |kind| complaint.get(kind).map(ToString::to_string).unwrap_or_default();
        let words = [clap::error::ContextKind::InvalidArg, clap::error::ContextKind::PriorArg].map(words);
        self.in_file(&words).or_else(|| self.in_environment(&words))
    }

    fn in_file(&self, words: &[String]) -> Option<String> {
        let named = |added: &&Added| {
            let flag = format!("--{}", added.key);
            words.iter().any(|words| words.split([' ', '=', ',']).any(|word| word == flag))
        };
        let added = self.added.iter().find(named)?;
        let path = self.path.as_ref()?.display();
        Some(format!("--{} is set in {path}, line {}", added.key, added.line))
    }

    fn in_environment(&self, words: &[String]) -> Option<String> {
        let blamed = variables::to_blame(self.command.as_ref()?, words, &self.given, variable);
        let told = blamed.iter().map(|(flag, name)| format!("{flag} is set by the variable {name}"));
        Some(told.collect::<Vec<_>>().join(", ")).filter(|told| !told.is_empty())
    }
}

fn variable(name: &OsStr) -> Option<OsString> {
    std::env::var_os(name)
}

/// The file that the command line or the environment names.
fn named(first: &ArgMatches, of_command: Option<&ArgMatches>) -> Option<PathBuf> {
    let of = |matches: &ArgMatches| matches.try_get_one::<PathBuf>("config").ok().flatten().cloned();
    of_command.and_then(of).or_else(|| of(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_file_is_where_settings_are() {
        let env = |known: &'static [(&'static str, &'static str)]| {
            move |name: &str| known.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        };
        assert_eq!(folder(env(&[("XDG_CONFIG_HOME", "/c"), ("HOME", "/h")])), Some("/c".into()));
        if cfg!(unix) {
            assert_eq!(folder(env(&[("XDG_CONFIG_HOME", "c"), ("HOME", "/h")])), Some("/h/.config".into()));
        }
        assert_eq!(folder(env(&[])), None);
    }
}
