//! `cargo xtask overhead`: runs the benchmarks and joins what they say to a page. Each prints its section; here is where
//! it runs. Sections that are not run again stay as they are.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;

use crate::harness;
use crate::system::{self, quote};
use crate::{Task, stage};

const PAGE: &str = "docs/overhead.md";

const INTRODUCTION: &str = "# What watching costs\n\nWritten by `make bench`, which anyone can repeat.\n";

/// In software everything takes tens of times longer than on a processor with virtualization of its own.
const EMULATED: &str = "In a virtual machine (`cargo xtask vm`). Where software executes it, everything takes tens of \
                        times longer than on a processor, and only ratios mean something.\n\n";

/// A benchmark, and the section that it writes.
#[derive(Debug)]
struct Bench {
    name: &'static str,
    section: &'static str,
    /// The kernel that it is run on, in a virtual machine; the machine's own where there is none.
    kernel: Option<&'static str>,
    /// What a shell has to do before.
    before: &'static str,
}

/// In the order of the page.
const BENCHES: &[Bench] = &[
    Bench { name: "faults", section: "Page faults", kernel: None, before: "" },
    Bench { name: "span", section: "Calls that are spans", kernel: None, before: "" },
    Bench {
        name: "kvm",
        section: "Exits of virtual machines",
        kernel: Some("6.12"),
        before: "modprobe kvm_amd nested=1 && ",
    },
    Bench { name: "sgx", section: "Faults of SGX enclaves", kernel: Some("6.12"), before: "" },
];

/// What `cargo xtask overhead` is told.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Benchmarks by name; all of them when none is named
    #[arg(value_name = "BENCHMARK")]
    names: Vec<String>,
    /// How often each watcher has its turn, if not as often as the benchmark thinks right
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
}

/// Runs those that are named and writes the page.
pub fn write(args: &Args) -> Result<ExitCode> {
    if let Some(unknown) = args.names.iter().find(|name| !BENCHES.iter().any(|bench| bench.name == **name)) {
        let known: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!("no benchmark is called {unknown:?}; known are {}", known.join(", "));
    }
    let path = system::repository().join(PAGE);
    for bench in
        BENCHES.iter().filter(|b| args.names.is_empty() || args.names.iter().any(|name| name == b.name))
    {
        let said = bench.run(args.rounds)?;
        ensure!(said.contains("\n|---"), "the benchmark {} printed no table", bench.name);
        // Written each time: what has been measured is not lost when the next one fails.
        let before = fs::read_to_string(&path).unwrap_or_default();
        let page = join(&before, bench.section, &said);
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
        println!("xtask: {} has a new section: {}", path.display(), bench.section);
    }
    Ok(ExitCode::SUCCESS)
}

impl Bench {
    /// Runs it, and gives what it printed.
    fn run(&self, rounds: Option<u32>) -> Result<String> {
        let executable = self.build()?;
        let rounds: Vec<_> = rounds.map(|n| format!("--rounds={n}")).into_iter().collect();
        let Some(kernel) = self.kernel else {
            let mut command = Command::new(executable);
            command.args(rounds).current_dir(system::repository()).stderr(Stdio::inherit());
            let output = command.output()?;
            ensure!(output.status.success(), "the benchmark {} failed", self.name);
            return Ok(String::from_utf8(output.stdout)?);
        };
        let inside = format!(
            "{}{} {} > $TRAPLINE_RESULTS/overhead.md",
            self.before,
            quote(&executable.display().to_string()),
            rounds.concat()
        );
        let words = ["xtask", "vm", "--release", "--timeout", "3600", "--run", &inside, kernel];
        let Task::Vm(args) = crate::Args::parse_from(words).task else {
            bail!("the virtual machines have another name");
        };
        ensure!(stage::run(&args)? == ExitCode::SUCCESS, "the benchmark {} failed on {kernel}", self.name);
        let said = fs::read_to_string(system::directory("results")?.join(kernel).join("overhead.md"))?;
        Ok(EMULATED.to_owned() + &said)
    }

    /// Builds it and trapline, optimized.
    fn build(&self) -> Result<PathBuf> {
        let mut cargo = system::command("cargo")?;
        cargo.args(["bench", "--no-run", "--locked", "--message-format=json-render-diagnostics"]);
        cargo.args(["--package", "trapline", "--bench", self.name]).current_dir(system::repository());
        let built = cargo.stderr(Stdio::inherit()).output()?;
        ensure!(built.status.success(), "the benchmark {} does not build", self.name);
        let executables = harness::executables_in(&String::from_utf8_lossy(&built.stdout));
        let own = executables.into_iter().find(|executable| executable.name == self.name);
        Ok(own.with_context(|| format!("cargo built no benchmark {}", self.name))?.place)
    }
}

/// The page with that section replaced.
fn join(page: &str, section: &str, text: &str) -> String {
    let mut joined = INTRODUCTION.to_owned();
    for bench in BENCHES {
        let body = if bench.section == section { Some(text) } else { body_of(page, bench.section) };
        if let Some(body) = body {
            joined += &format!("\n## {}\n\n{}\n", bench.section, body.trim());
        }
    }
    joined
}

/// What is under that heading.
fn body_of<'a>(page: &'a str, section: &str) -> Option<&'a str> {
    let (_, after) = page.split_once(&format!("\n## {section}\n"))?;
    Some(after.split_once("\n## ").map_or(after, |(body, _)| body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let page = join(&join("", "Faults of SGX enclaves", "old"), "Page faults", "| fresh |\n");
        assert_eq!(
            page,
            format!("{INTRODUCTION}\n## Page faults\n\n| fresh |\n\n## Faults of SGX enclaves\n\nold\n")
        );
        let again = join(&page, "Faults of SGX enclaves", "new");
        assert_eq!(again, page.replace("old", "new"));
    }

    #[test]
    fn the_page_has_a_section_of_each_benchmark() {
        let page = fs::read_to_string(system::repository().join(PAGE)).unwrap();
        for bench in BENCHES {
            assert!(body_of(&page, bench.section).is_some(), "{}", bench.section);
        }
    }
}
