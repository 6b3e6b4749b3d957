//! What the definition of the command line makes besides the help: man pages, and the completions of shells.

use crate::policy::builtin;
use clap::{Command, ValueEnum, builder::PossibleValuesParser};
use clap_complete::{generate, shells};
use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use std::io;

/// Programs for administrators, see man-pages(7).
const SECTION: &str = "8";

/// A shell that completions can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU Bash, with the package bash-completion.
    Bash,
    /// fish.
    Fish,
    /// The Z shell.
    Zsh,
}

/// A script for a shell that completes the command line of `definition`.
pub fn completions(definition: Command, shell: Shell) -> String {
    let mut command = definition.mut_arg("policy", |arg| {
        let names = builtin::BUILTIN.iter().map(|builtin| builtin.name);
        arg.value_parser(PossibleValuesParser::new(names.chain(["list"])))
    });
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let mut script = Vec::new();
    match shell {
        Shell::Bash => generate(shells::Bash, &mut command, name, &mut script),
        Shell::Fish => generate(shells::Fish, &mut command, name, &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut command, name, &mut script),
    }
    String::from_utf8_lossy(&script).into_owned()
}

/// The man page of the program with all its commands, as roff.
///
/// # Errors
/// None that can happen: it is written to memory.
pub fn page(definition: Command) -> io::Result<String> {
    let mut program = definition.mut_subcommands(|command| command.disable_help_flag(true));
    program.build();
    let with_its_own = |command: &Command| {
        let own = command.get_subcommands().cloned();
        [command.clone()].into_iter().chain(own).collect::<Vec<_>>()
    };
    let commands: Vec<_> = program.get_subcommands().flat_map(with_its_own).collect();
    let exits = program.get_after_help().map(ToString::to_string).unwrap_or_default();

    let synopsis = usage(&mut program);
    let program = program.override_usage(synopsis);
    let man = Man::new(program).section(SECTION).date(env!("SCHEDULER_DATE"));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    for section in [
        Man::render_name_section,
        Man::render_synopsis_section,
        Man::render_description_section,
        Man::render_options_section,
    ] {
        page.extend(render(|out| section(&man, out))?.into_bytes());
    }
    page.extend(b".SH COMMANDS\n");
    for command in commands {
        page.extend(paragraphs(command)?.into_bytes());
    }
    page.extend(render(|out| exit_status(&exits).to_writer(out))?.into_bytes());
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// How a command is called, as the help says it.
fn usage(command: &mut Command) -> String {
    let usage = command.render_usage().to_string();
    usage.trim_start_matches("Usage:").trim().to_owned()
}

/// What a section says, without the definitions of roff that each begins with: the title has them. A second paragraph
/// of an option's text stays with the option.
fn render(section: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<String> {
    let mut out = Vec::new();
    section(&mut out)?;
    let text = String::from_utf8_lossy(&out).into_owned();
    let lines = text.lines().filter(|line| !line.starts_with(".ie ") && !line.starts_with(".el "));
    Ok(lines
        .map(|line| if line.is_empty() { ".IP\n".to_owned() } else { format!("{line}\n") })
        .collect())
}

/// A command of the program, below its usage: what would be sections of a page of its own, as paragraphs.
fn paragraphs(mut command: Command) -> io::Result<String> {
    let usage = usage(&mut command);
    let ends = command.get_after_help().map(|help| roman(help.to_string()));
    let man = Man::new(command);
    let text = render(|out| {
        Roff::new().control("SS", [usage.as_str()]).to_writer(out)?;
        man.render_description_section(out)?;
        man.render_options_section(out)?;
        ends.map_or(Ok(()), |ends| Roff::new().control("PP", []).text([ends]).to_writer(out))
    })?;
    Ok(text
        .lines()
        .filter(|line| !line.starts_with(".SH"))
        .map(|line| format!("{line}\n"))
        .collect())
}

/// The section on exit codes, from the help, which has a line for each.
fn exit_status(help: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in help.lines().filter_map(|line| line.trim().split_once("  ")) {
        roff.control("TP", []).text([bold(code)]).text([roman(meaning)]);
    }
    roff
}
