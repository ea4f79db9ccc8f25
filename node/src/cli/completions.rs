//! `swarm-node completions` and `swarm-node man`: what shells and `man` know of the command line.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::output::Printer;

/// The program's name as people type it.
const PROGRAM: &str = "swarm-node";

/// What clap_complete 4.6 calls this program where it completes flags in bash, and where it looks for them: with a hyphen in a
/// program's name the two differ, and no flag would ever be completed.
const HALF_A_NAME: &str = "swarm__subcmd__node";
const NAME: &str = "swarm__node";

/// Print what a shell needs to complete this program's commands and flags.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node completions bash \\
    > ~/.local/share/bash-completion/completions/swarm-node
  swarm-node completions zsh > \"${fpath[1]}/_swarm-node\"
  swarm-node completions fish \\
    > ~/.config/fish/completions/swarm-node.fish")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Print the manual page, or write one for each command.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  swarm-node man | man -l -
  swarm-node man ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Where to write the pages: one for the program, one for each command [default: the program's goes to stdout]
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Prints the completions of `program`.
///
/// # Errors
/// If stdout cannot be written.
pub(crate) fn completions(args: &CompletionsArgs, mut program: Command) -> Result<()> {
    // Whole, or not at all: who reads may have gone.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, PROGRAM, &mut script);
    if args.shell == Shell::Bash {
        script = String::from_utf8_lossy(&script).replace(HALF_A_NAME, NAME).into_bytes();
    }
    Ok(std::io::stdout().write_all(&script)?)
}

/// Prints or writes the pages of `program`.
///
/// # Errors
/// If they cannot be written.
pub(crate) fn man(args: &ManArgs, program: Command) -> Result<()> {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        Man::new(program.disable_help_subcommand(true)).render(&mut page)?;
        return Ok(std::io::stdout().write_all(&page)?);
    };
    let unwritable = || format!("cannot write manual pages into {}; name a folder you may write to", folder.display());
    std::fs::create_dir_all(folder).with_context(unwritable)?;
    clap_mangen::generate_to(program, folder).with_context(unwritable)?;
    Printer::new(false).note(format_args!("wrote the pages into {}", folder.display()));
    Ok(())
}
