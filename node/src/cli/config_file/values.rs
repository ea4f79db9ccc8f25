//! Whether what a file sets are values of the flags. Pure but for what flags' own parsers look at.

use clap::Command;
use clap::error::{ContextKind, ErrorKind};

use super::merge::{argument_of, flag};
use super::read::{Problem, Setting, Settings};

/// Whether every setting is a value for one of the commands that it is for.
///
/// # Errors
/// [`Problem`]: the first that is none.
pub(super) fn check(settings: &Settings, program: &Command) -> Result<(), Problem> {
    for setting in &settings.common {
        let commands = program.get_subcommands().filter(|command| flag(command, &setting.key).is_some());
        let refused: Vec<_> = commands.map(|command| refusal(setting, program, command.get_name())).collect();
        if let Some(why) = refused.into_iter().collect::<Option<Vec<String>>>().and_then(|all| all.into_iter().next()) {
            return Err(Problem { line: setting.line, what: why });
        }
    }
    let own = settings.tables.iter().flat_map(|table| table.settings.iter().map(|setting| (&table.name, setting)));
    for (command, setting) in own {
        if let Some(what) = refusal(setting, program, command) {
            return Err(Problem { line: setting.line, what });
        }
    }
    Ok(())
}

/// Why a command does not take the setting, if it does not.
fn refusal(setting: &Setting, program: &Command, command: &str) -> Option<String> {
    let line = [program.get_name().to_string(), command.to_string()].into_iter().chain(argument_of(setting));
    let error = program.clone().try_get_matches_from(line).err()?;
    // Others than of values are of flags that this line lacks; those of other flags are of variables.
    let of_a_value = matches!(
        error.kind(),
        ErrorKind::ValueValidation
            | ErrorKind::InvalidValue
            | ErrorKind::TooManyValues
            | ErrorKind::WrongNumberOfValues
    );
    let flag = format!("--{}", setting.key);
    let named = error.get(ContextKind::InvalidArg)?.to_string();
    let of_this = named.split([' ', '=', ',']).any(|word| word == flag);
    (of_a_value && of_this).then(|| {
        let text = error.to_string();
        let said: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        said.join(" ").trim_start_matches("error: ").to_string()
    })
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, value_parser};

    use super::super::read::read;
    use super::*;

    fn program() -> Command {
        let numbered = || Arg::new("blocks").long("blocks").value_parser(value_parser!(u32).range(1..));
        let serve = Command::new("serve")
            .arg(numbered())
            .arg(Arg::new("kind").long("kind").value_parser(["a", "b"]))
            .arg(Arg::new("mdns").long("mdns").action(ArgAction::SetTrue))
            .arg(Arg::new("many").long("many").action(ArgAction::Append).value_parser(value_parser!(u8)))
            .arg(Arg::new("logprobs").long("logprobs").value_parser(value_parser!(u8)).requires("mdns"))
            .arg(Arg::new("model").long("model").required(true));
        let pull = Command::new("pull").arg(Arg::new("blocks").long("blocks"));
        let doctor = Command::new("doctor").arg(Arg::new("level").long("level").value_parser(value_parser!(u8)));
        let mut program = Command::new("p").subcommands([serve, pull, doctor]);
        program.build();
        program
    }

    #[test]
    fn values_are_what_the_command_would_take() {
        for file in [
            "[serve]\nblocks = 8\nkind = \"a\"\nmdns = true\nmany = [1, 2]\nlogprobs = 3\n",
            // Some command takes it.
            "blocks = \"0..4\"\n",
            "",
        ] {
            assert_eq!(check(&read(file).unwrap(), &program()), Ok(()), "{file:?}");
        }
        for (file, line, says) in [
            ("[serve]\n\nblocks = \"many\"\n", 3, "invalid value 'many' for '--blocks <blocks>'"),
            ("[serve]\nblocks = -1\n", 2, "'--blocks <blocks>'"),
            ("[serve]\nkind = \"c\"\n", 2, "[possible values: a, b]"),
            ("[serve]\nmany = [1, 300]\n", 2, "300"),
            ("level = \"high\"\n", 1, "'high'"),
        ] {
            let problem = check(&read(file).unwrap(), &program()).unwrap_err();
            assert_eq!((problem.line, problem.what.contains(says)), (line, true), "{file:?}: {problem:?}");
            assert!(!problem.what.contains('\n') && !problem.what.starts_with("error"), "{problem:?}");
        }
    }
}
