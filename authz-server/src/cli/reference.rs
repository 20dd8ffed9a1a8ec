//! The commands as people read them: `docs/cli.md`, made from the same texts as `--help`.

use clap::{Command, CommandFactory};

use super::{Cli, EXAMPLES, EXIT_CODES};

const INTRODUCTION: &str = "\
# Command line

This file is generated: `authz-server commands` prints it, and a test compares the two.

Without a command `authz-server` serves. Answers go to standard output, everything else to standard error. A command reads the
settings that it uses, see [settings.md](settings.md), and no others: `policy`, `rules`, `routes`, `openapi`, `settings`
and `commands` read none.
";

/// The Markdown text.
pub(super) fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    // The settings that the program's own help ends with have their own reference.
    let mut root = Cli::command().after_long_help(format!("{EXAMPLES}\n{EXIT_CODES}"));
    root.build();
    describe(&mut root, &mut text);
    text
}

fn describe(command: &mut Command, text: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    text.push_str(&format!("\n## `{name}`\n\n```text\n{}\n```\n", help.join("\n")));
    for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
        describe(inner, text);
    }
}
