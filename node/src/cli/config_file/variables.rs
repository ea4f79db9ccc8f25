//! Variables of the environment that do not count for a command line, and those that are to blame for an error. Pure.

use std::ffi::{OsStr, OsString};

use clap::builder::OsStr as Name;
use clap::builder::Resettable;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Id};

use super::merge::rivals;

/// What turns a switch on or off.
const SWITCHED: [&str; 11] = ["", "0", "1", "n", "no", "y", "yes", "true", "false", "on", "off"];

/// The flags of `command` whose variables say nothing here: the command line gives what excludes them, or the variable is meant
/// for another command of `program`, where it is a switch.
pub(super) fn silent(
    program: &Command,
    command: &Command,
    given: &ArgMatches,
    env: impl Fn(&OsStr) -> Option<OsString>,
) -> Vec<Id> {
    let value = |flag: &Arg| flag.get_env().and_then(&env);
    let set = command.get_arguments().filter_map(|flag| Some((flag, value(flag)?)));
    let outdone = |flag: &Arg| rivals(command, flag).into_iter().any(|rival| is_on(given, rival.get_id()));
    let silent = set.filter(|(flag, value)| outdone(flag) || is_of_a_switch(program, flag, value));
    silent.map(|(flag, _)| flag.get_id().clone()).collect()
}

/// Whether an argument stands on the command line.
pub(super) fn is_on(given: &ArgMatches, id: &Id) -> bool {
    given.try_contains_id(id.as_str()).is_ok() && given.value_source(id.as_str()) == Some(ValueSource::CommandLine)
}

fn is_of_a_switch(program: &Command, flag: &Arg, value: &OsStr) -> bool {
    let words = value.to_str().is_some_and(|value| SWITCHED.contains(&value.to_lowercase().as_str()));
    // A number or a text might be what a switch is set to.
    let chosen = flag.get_action().takes_values() && !flag.get_possible_values().is_empty();
    let elsewhere = || {
        let mut all = program.get_subcommands().flat_map(Command::get_arguments);
        all.any(|other| other.get_env() == flag.get_env() && !other.get_action().takes_values())
    };
    words && chosen && elsewhere()
}

/// `program`, in which these flags of the command `name` hear no variable.
pub(super) fn without(program: Command, name: &str, silent: &[Id]) -> Command {
    silent.iter().fold(program, |program, id| {
        program.mut_subcommand(name, |command| command.mut_arg(id, |flag| flag.env(Resettable::<Name>::Reset)))
    })
}

/// Flags that an error names in `words` (`--flag <VALUE>`) and their variables, where these are set and the flag is not among
/// the arguments that were `given`.
pub(super) fn to_blame(
    command: &Command,
    words: &[String],
    given: &[OsString],
    env: impl Fn(&OsStr) -> Option<OsString>,
) -> Vec<(String, String)> {
    let named =
        |long: &str| words.iter().any(|words| words.split([' ', '=', ',']).any(|word| word == format!("--{long}")));
    let flags = command.get_arguments().filter_map(|flag| Some((flag, flag.get_long()?)));
    let blamed = flags.filter(|(flag, long)| named(long) && !stands_in(given, flag));
    let variables = blamed.filter_map(|(flag, long)| Some((long, flag.get_env().filter(|name| env(name).is_some())?)));
    variables.map(|(long, name)| (format!("--{long}"), name.to_string_lossy().into_owned())).collect()
}

/// Whether the flag is written among the arguments, rightly or not.
fn stands_in(given: &[OsString], flag: &Arg) -> bool {
    let longs: Vec<String> = flag
        .get_long()
        .into_iter()
        .chain(flag.get_all_aliases().unwrap_or_default())
        .map(|long| format!("--{long}"))
        .collect();
    let flags = given.iter().take_while(|argument| *argument != "--");
    flags.filter_map(|argument| argument.to_str()).any(|argument| {
        longs.iter().any(|long| {
            argument.strip_prefix(long.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    })
}

#[cfg(test)]
mod tests {
    use clap::{ArgAction, ArgGroup};

    use super::*;

    fn program() -> Command {
        let value = |name: &'static str, env: &'static str| Arg::new(name).long(name).env(env);
        let generate = Command::new("generate")
            .arg(value("prompt", "T_PROMPT"))
            .arg(value("prompt-file", "T_PROMPT_FILE"))
            .arg(value("edges", "T_EDGES").value_parser(["own", "served"]).default_value("own"))
            .arg(value("temperature", "T_TEMPERATURE").alias("heat").value_parser(clap::value_parser!(f64)))
            .group(ArgGroup::new("prompts").args(["prompt", "prompt-file"]));
        let serve = Command::new("serve").arg(value("edges", "T_EDGES").action(ArgAction::SetTrue));
        let mut program = Command::new("p").subcommands([generate, serve]);
        program.build();
        program
    }

    fn env<'a>(known: &'a [(&str, &str)]) -> impl Fn(&OsStr) -> Option<OsString> + 'a {
        move |name| known.iter().find(|(key, _)| name == *key).map(|(_, value)| value.into())
    }

    fn silenced(arguments: &[&str], known: &[(&str, &str)]) -> Vec<String> {
        let program = program();
        let found = program.clone().ignore_errors(true).get_matches_from(arguments);
        let (name, found) = found.subcommand().unwrap();
        let command = program.find_subcommand(name).unwrap();
        silent(&program, command, found, env(known)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_command_line_goes_before_a_variable_that_contradicts_it() {
        let variable = [("T_PROMPT", "hello")];
        assert_eq!(silenced(&["p", "generate", "--prompt-file", "f"], &variable), ["prompt"]);
        assert!(silenced(&["p", "generate"], &variable).is_empty());
        assert!(silenced(&["p", "generate", "--temperature", "1"], &variable).is_empty());
        assert!(silenced(&["p", "generate", "--prompt-file", "f"], &[]).is_empty());
    }

    #[test]
    fn what_is_a_switch_for_another_command_says_nothing() {
        for word in ["1", "true", "no", ""] {
            assert_eq!(silenced(&["p", "generate"], &[("T_EDGES", word)]), ["edges"], "{word:?}");
        }
        for (command, word) in [("generate", "served"), ("generate", "everybody"), ("serve", "1")] {
            assert!(silenced(&["p", command], &[("T_EDGES", word)]).is_empty(), "{command}: {word}");
        }
        let silent = [Id::from("edges")];
        let heard = without(program(), "generate", &silent);
        let flags = heard.find_subcommand("generate").unwrap().get_arguments();
        let variables: Vec<_> = flags.filter_map(Arg::get_env).collect();
        assert_eq!(variables, ["T_PROMPT", "T_PROMPT_FILE", "T_TEMPERATURE"]);
    }

    #[test]
    fn a_variable_is_to_blame_if_nobody_wrote_the_flag() {
        let program = program();
        let command = program.find_subcommand("generate").unwrap();
        let words = ["--temperature <temperature>".to_string()];
        let blamed = |given: &[&str], known: &[(&str, &str)]| {
            let given: Vec<OsString> = given.iter().map(Into::into).collect();
            to_blame(command, &words, &given, env(known))
        };
        let variable = [("T_TEMPERATURE", "abc")];
        let told = [("--temperature".to_string(), "T_TEMPERATURE".to_string())];
        assert_eq!(blamed(&["p", "generate"], &variable), told);
        assert_eq!(blamed(&["p", "generate", "--", "--temperature"], &variable), told);
        for wrong in [&["--temperature", "x"][..], &["--temperature=x"], &["--heat=x"]] {
            assert!(blamed(wrong, &variable).is_empty(), "{wrong:?}");
        }
        assert!(blamed(&["p"], &[("T_PROMPT", "x")]).is_empty());
    }
}
