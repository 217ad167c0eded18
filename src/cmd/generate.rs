//! `trapline generate`: man pages and completions, of the command line as it is. `make install` puts them in their places.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap_complete::{Shell, generate_to};

/// Each shell, and where it looks for completions below a folder like `/usr/local/share`.
const SHELLS: &[(Shell, &str, &str)] = &[
    (Shell::Bash, "bash-completion/completions", "trapline"),
    (Shell::Zsh, "zsh/site-functions", "_trapline"),
    (Shell::Fish, "fish/vendor_completions.d", "trapline.fish"),
];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write: a folder like /usr/local/share
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Writes all of them.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn run(args: &Args, mut command: clap::Command) -> Result<()> {
    for (shell, folder, name) in SHELLS {
        let folder = args.folder.join(folder);
        let cannot = || format!("cannot write completions to {}", folder.display());
        fs::create_dir_all(&folder).with_context(cannot)?;
        let written = generate_to(*shell, &mut command, "trapline", &folder).with_context(cannot)?;
        fs::rename(written, folder.join(name)).with_context(cannot)?;
    }
    let folder = args.folder.join("man/man1");
    let cannot = || format!("cannot write man pages to {}", folder.display());
    fs::create_dir_all(&folder).with_context(cannot)?;
    clap_mangen::generate_to(command, &folder).with_context(cannot)
}
