//! What a configuration file adds to a command line. Pure: it knows no flag by name, so that new flags work by themselves.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::read::{Problem, Setting, Settings, Value};
use super::variables::is_on;

/// Flags that say where the file is, or end the program: nothing to be set in it.
const NOT_IN_A_FILE: [&str; 3] = ["config", "help", "version"];

/// How unlike the nearest known key may be that is proposed: about a third of its letters.
const LEAST_LIKENESS: f64 = 0.6;

/// An argument that the file adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) argument: OsString,
    /// The flag's name.
    pub(super) key: String,
    pub(super) line: usize,
}

/// Whether all of the file is known to `program` (built), whichever of its commands is run.
///
/// # Errors
/// [`Problem`]: the first of what is not.
pub(super) fn check(settings: &Settings, program: &Command) -> Result<(), Problem> {
    let commands: Vec<&Command> = program.get_subcommands().collect();
    for setting in &settings.common {
        let flags: Vec<&Arg> = commands.iter().filter_map(|command| flag(command, &setting.key)).collect();
        if flags.is_empty() {
            let all = commands.iter().flat_map(|command| keys(command));
            let tables = commands.iter().map(|command| command.get_name().to_string());
            return Err(unknown(setting, "any command", all.chain(tables)));
        }
        let misfits: Vec<Problem> = flags.iter().filter_map(|flag| fits(setting, flag).err()).collect();
        if misfits.len() == flags.len()
            && let Some(problem) = misfits.into_iter().next()
        {
            return Err(problem);
        }
    }
    for table in &settings.tables {
        let Some(command) = commands.iter().find(|command| command.get_name() == table.name) else {
            let names = commands.iter().map(|command| command.get_name().to_string());
            let what = format!("there is no command \"{}\"{}", table.name, nearest(&table.name, names));
            return Err(Problem { line: table.line, what });
        };
        for setting in &table.settings {
            let flag = flag(command, &setting.key);
            let flag = flag.ok_or_else(|| unknown(setting, &format!("`{}`", table.name), keys(command).into_iter()))?;
            fits(setting, flag)?;
        }
    }
    Ok(())
}

/// What the file adds to the command line that was `given`: what neither it nor the environment says, nor anything that
/// contradicts it. The command's own table goes before what is said for all commands.
///
/// # Errors
/// [`Problem`] if a value for all commands is none for this one.
pub(super) fn added(
    settings: &Settings,
    command: &Command,
    given: &ArgMatches,
    env: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<Vec<Added>, Problem> {
    let own = settings.tables.iter().filter(|table| table.name == command.get_name()).flat_map(|table| &table.settings);
    let own: Vec<&Setting> = own.collect();
    let common = settings.common.iter().filter(|setting| own.iter().all(|own| own.key != setting.key));
    let is_given = |arg: &Arg| is_on(given, arg.get_id()) || arg.get_env().is_some_and(|name| env(name).is_some());
    let mut added = Vec::new();
    for setting in own.iter().copied().chain(common) {
        let Some(flag) = flag(command, &setting.key) else { continue };
        if is_given(flag) || rivals(command, flag).into_iter().any(is_given) {
            continue;
        }
        fits(setting, flag).map_err(|problem| {
            let what = format!("{}; what is for one command only stands under [{}]", problem.what, command.get_name());
            Problem { what, ..problem }
        })?;
        let added_by =
            |argument: String| Added { argument: argument.into(), key: setting.key.clone(), line: setting.line };
        added.extend(argument_of(setting).into_iter().map(added_by));
    }
    Ok(added)
}

/// A setting as it would stand on the command line.
pub(super) fn argument_of(setting: &Setting) -> Vec<String> {
    let key = &setting.key;
    match &setting.value {
        Value::Switch(true) => vec![format!("--{key}")],
        // As if it were not there.
        Value::Switch(false) => Vec::new(),
        Value::One(value) => vec![format!("--{key}={value}")],
        Value::Many(values) => values.iter().map(|value| format!("--{key}={value}")).collect(),
    }
}

/// The command line with what is added: before what no longer counts as flags.
pub(super) fn merged(given: &[OsString], added: &[Added]) -> Vec<OsString> {
    let end = given.iter().position(|argument| argument == "--").unwrap_or(given.len());
    let added = added.iter().map(|added| added.argument.clone());
    given[..end].iter().cloned().chain(added).chain(given[end..].iter().cloned()).collect()
}

pub(super) fn flag<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let mut flags = command.get_arguments().filter(|flag| flag.get_long() == Some(key));
    flags.next().filter(|_| !NOT_IN_A_FILE.contains(&key))
}

fn keys(command: &Command) -> Vec<String> {
    let longs = command.get_arguments().filter_map(Arg::get_long);
    longs.filter(|long| !NOT_IN_A_FILE.contains(long)).map(ToString::to_string).collect()
}

/// The arguments that cannot stand beside `flag`.
pub(super) fn rivals<'a>(command: &'a Command, flag: &Arg) -> Vec<&'a Arg> {
    let excluded = |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|conflict| conflict.get_id() == other.get_id())
    };
    let exclusive = command.get_groups().filter(|group| !clap::ArgGroup::clone(group).is_multiple());
    let groups: Vec<Vec<&clap::Id>> = exclusive.map(|group| group.get_args().collect()).collect();
    let grouped = |other: &Arg| {
        groups.iter().any(|members| members.contains(&flag.get_id()) && members.contains(&other.get_id()))
    };
    let others = command.get_arguments().filter(|other| other.get_id() != flag.get_id());
    others.filter(|other| excluded(flag, other) || excluded(other, flag) || grouped(other)).collect()
}

/// Whether a value is of the kind that a flag takes; what it means is clap's to say.
fn fits(setting: &Setting, flag: &Arg) -> Result<(), Problem> {
    let switch = !flag.get_action().takes_values();
    let many = matches!(flag.get_action(), ArgAction::Append);
    let wants = match &setting.value {
        Value::Switch(_) if !switch => "a text or a number",
        Value::One(_) | Value::Many(_) if switch => "true or false",
        Value::Many(_) if !many => "one value, not an array",
        _ => return Ok(()),
    };
    Err(Problem { line: setting.line, what: format!("\"{}\" takes {wants}", setting.key) })
}

fn unknown(setting: &Setting, of: &str, known: impl Iterator<Item = String>) -> Problem {
    let what = format!("\"{}\" is no flag of {of}{}", setting.key, nearest(&setting.key, known));
    Problem { line: setting.line, what }
}

/// `; did you mean "x"?`, if anything is like it.
fn nearest(key: &str, known: impl Iterator<Item = String>) -> String {
    let key = key.replace('_', "-");
    let likeness = known.map(|known| (strsim::normalized_damerau_levenshtein(&key, &known), known));
    let best = likeness.max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)));
    match best.filter(|(likeness, _)| *likeness >= LEAST_LIKENESS) {
        Some((_, known)) => format!("; did you mean \"{known}\"?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{ArgGroup, value_parser};

    use super::super::read::read;
    use super::*;

    fn program() -> Command {
        let value = |name: &'static str, env: &'static str| Arg::new(name).long(name).env(env);
        let serve = Command::new("serve")
            .arg(value("blocks", "T_BLOCKS").value_parser(value_parser!(u32)).conflicts_with("range"))
            .arg(Arg::new("range").long("block-range"))
            .arg(value("bootstrap", "T_BOOTSTRAP").action(ArgAction::Append).value_delimiter(','))
            .arg(Arg::new("mdns").long("mdns").action(ArgAction::SetTrue))
            .arg(Arg::new("edges").long("edges").action(ArgAction::SetTrue))
            .arg(Arg::new("model").long("model").required(true));
        let generate = Command::new("generate")
            .arg(value("bootstrap", "T_BOOTSTRAP").action(ArgAction::Append))
            .arg(Arg::new("edges").long("edges"))
            .arg(Arg::new("prompt").long("prompt"))
            .arg(Arg::new("file").long("prompt-file"))
            .group(ArgGroup::new("prompts").args(["prompt", "file"]).required(true))
            .arg(Arg::new("rest").num_args(0..));
        let log = Arg::new("log").long("log").global(true);
        let mut program = Command::new("p").arg(log).subcommands([serve, generate]);
        program.build();
        program
    }

    /// The command line that comes out, joined.
    fn line(file: &str, given: &[&str], env: &[(&str, &str)]) -> Result<String, Problem> {
        let (program, settings) = (program(), read(file).unwrap());
        check(&settings, &program)?;
        let arguments: Vec<OsString> = given.iter().map(Into::into).collect();
        let lenient = program.clone().ignore_errors(true);
        let first = lenient.try_get_matches_from(&arguments).unwrap();
        let (name, matches) = first.subcommand().unwrap();
        let command = program.find_subcommand(name).unwrap();
        let env = |name: &OsStr| env.iter().find(|(known, _)| name == *known).map(|(_, value)| value.into());
        let line = merged(&arguments, &added(&settings, command, matches, env)?);
        Ok(line.iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn a_flag_goes_before_the_environment_and_that_before_the_file() {
        let file = "[serve]\nblocks = 8\n";
        assert_eq!(line(file, &["p", "serve"], &[]).unwrap(), "p serve --blocks=8");
        assert_eq!(line(file, &["p", "serve"], &[("T_BLOCKS", "4")]).unwrap(), "p serve");
        assert_eq!(line(file, &["p", "serve", "--blocks", "2"], &[("T_BLOCKS", "4")]).unwrap(), "p serve --blocks 2");
        assert_eq!(line(file, &["p", "generate", "--prompt", "a"], &[]).unwrap(), "p generate --prompt a");
    }

    #[test]
    fn a_commands_own_table_goes_before_what_is_for_all() {
        let file = "bootstrap = [\"a\", \"b\"]\nmodel = \"demo\"\nlog = \"info\"\n[serve]\nbootstrap = \"c\"\n";
        assert_eq!(line(file, &["p", "serve"], &[]).unwrap(), "p serve --bootstrap=c --model=demo --log=info");
        assert_eq!(line(file, &["p", "generate"], &[]).unwrap(), "p generate --bootstrap=a --bootstrap=b --log=info");
        assert_eq!(line(file, &["p", "--log=x", "serve"], &[]).unwrap(), "p --log=x serve --bootstrap=c --model=demo");
    }

    #[test]
    fn switches_are_there_or_not() {
        assert_eq!(line("[serve]\nmdns = true\n", &["p", "serve"], &[]).unwrap(), "p serve --mdns");
        assert_eq!(line("[serve]\nmdns = false\n", &["p", "serve"], &[]).unwrap(), "p serve");
    }

    #[test]
    fn what_contradicts_the_command_line_is_left_out() {
        let file = "[serve]\nblocks = 8\n[generate]\nprompt = \"x\"\n";
        let given = ["p", "serve", "--block-range", "0..2"];
        assert_eq!(line(file, &given, &[]).unwrap(), given.join(" "));
        let given = ["p", "generate", "--prompt-file", "f"];
        assert_eq!(line(file, &given, &[]).unwrap(), given.join(" "));
        let reverse = "[serve]\nblock-range = \"0..2\"\n";
        assert_eq!(line(reverse, &["p", "serve"], &[("T_BLOCKS", "4")]).unwrap(), "p serve");
    }

    #[test]
    fn what_follows_two_dashes_is_no_flag() {
        let file = "[generate]\nprompt = \"x\"\n";
        assert_eq!(line(file, &["p", "generate", "--", "--a"], &[]).unwrap(), "p generate --prompt=x -- --a");
    }

    #[test]
    fn what_nobody_knows_is_told_with_its_line_and_the_nearest_key() {
        let problem = |file: &str, command: &str| line(file, &["p", command], &[]).unwrap_err();
        for (file, at, says) in [
            ("\nbotstrap = \"a\"\n", 2, "did you mean \"bootstrap\"?"),
            (
                "[serve]\nblock_range = \"0..2\"\n",
                2,
                "\"block_range\" is no flag of `serve`; did you mean \"block-range\"?",
            ),
            ("[serve]\nprompt = \"x\"\n", 2, "\"prompt\" is no flag of `serve`"),
            ("[sevre]\n", 1, "no command \"sevre\"; did you mean \"serve\"?"),
            ("[serve]\nmdns = 1\n", 2, "\"mdns\" takes true or false"),
            ("[serve]\nmodel = true\n", 2, "\"model\" takes a text or a number"),
            ("[serve]\nmodel = [\"a\"]\n", 2, "\"model\" takes one value, not an array"),
            ("blocks = true\n", 1, "\"blocks\" takes a text or a number"),
        ] {
            let Problem { line, what } = problem(file, "generate");
            assert_eq!((line, what.contains(says)), (at, true), "{file:?}: {what}");
        }
        // What is a switch to one command and a value to another needs a table.
        let edges = problem("edges = true\n", "generate");
        assert!(edges.what.contains("stands under [generate]"), "{edges:?}");
        assert!(line("edges = true\n", &["p", "serve"], &[]).is_ok());
    }
}
