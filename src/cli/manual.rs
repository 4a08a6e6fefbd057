//! The manual page: one for the whole, with every command in it.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;

use crate::config::{KEYS, variable_name};

/// The page as roff.
pub(super) fn page(mut command: Command) -> io::Result<Vec<u8>> {
    command.build();
    let mut page = Vec::new();
    let whole = Man::new(command.clone()).manual("User commands");
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    writeln!(page, ".SH COMMANDS")?;
    for subcommand in command
        .get_subcommands()
        .filter(|subcommand| subcommand.get_name() != "help" && !subcommand.is_hide_set())
    {
        // The options of every command stand above, once.
        let own = subcommand.clone().mut_args(|argument| {
            let everywhere = argument.is_global_set() || argument.get_id() == "help";
            argument.hide(everywhere)
        });
        let part = Man::new(own);
        let mut section = Vec::new();
        part.render_synopsis_section(&mut section)?;
        part.render_description_section(&mut section)?;
        part.render_options_section(&mut section)?;
        part.render_extra_section(&mut section)?;
        writeln!(page, ".SS \"magnetfs {}\"", subcommand.get_name())?;
        page.write_all(inner(&String::from_utf8_lossy(&section)).as_bytes())?;
    }
    let mut extra = Vec::new();
    whole.render_extra_section(&mut extra)?;
    page.write_all(b".SH NOTES\n")?;
    page.write_all(inner(&String::from_utf8_lossy(&extra)).as_bytes())?;
    write!(page, "{}", files_and_variables())?;
    Ok(page)
}

/// The sections of a command as paragraphs of its subsection: titles in bold. What stands below the options (clap_mangen
/// calls it extra) has examples, which are indented and whose lines are kept, and prose.
fn inner(section: &str) -> String {
    let mut out = String::new();
    let (mut extra, mut kept) = (false, false);
    for line in section.lines() {
        let keep = extra && line.starts_with(' ');
        if keep != kept {
            out.push_str(if keep { ".nf\n" } else { ".fi\n" });
            kept = keep;
        }
        match line.strip_prefix(".SH ") {
            Some("SYNOPSIS" | "DESCRIPTION") => out.push_str(".PP\n"),
            Some("EXTRA") => {
                out.push_str(".PP\n");
                extra = true;
            }
            Some(title) => out.push_str(&format!(".PP\n\\fB{}\\fR\n", title.trim_matches('"'))),
            None if line.is_empty() => out.push_str(".PP\n"),
            None => {
                out.push_str(line);
                out.push('\n');
            }
        }
    }
    if kept {
        out.push_str(".fi\n");
    }
    out
}

fn files_and_variables() -> String {
    let mut out = ".SH ENVIRONMENT\nEach option has a variable; the command line goes over it.\n".to_owned();
    for key in KEYS {
        out.push_str(&format!(
            ".TP\n{}\n\\-\\-{}\n",
            variable_name(key),
            key.replace('-', "\\-")
        ));
    }
    out.push_str(".TP\nMAGNETFS_CONFIG\n\\-\\-config\n");
    out.push_str(
        ".SH FILES\n.TP\n~/.config/magnetfs/config.toml\n\
         The same keys, such as upload\\-limit = \"512K\" or dht = false.\n\
         .TP\n~/.local/share/magnetfs\n\
         The library: which torrents there are, and what is stored of them.\n\
         .SH \"SEE ALSO\"\nfusermount3(1), mount.fuse3(8), mpv(1), ffmpeg(1)\n",
    );
    out
}
