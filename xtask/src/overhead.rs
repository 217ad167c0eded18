//! `cargo xtask overhead`: runs the benchmarks. Each prints a section of a page; here is which, and where it runs. Sections
//! that are not run again stay as they are.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::harness;
use crate::stage;
use crate::system::{self, quote};

/// In software everything takes tens of times longer than on a processor with virtualization of its own.
const EMULATED: &str = "In a virtual machine (`cargo xtask vm`). Where software executes it, everything takes tens of \
                        times longer than on a processor, and only ratios mean something.\n\n";

/// A benchmark, and the section that it writes.
#[derive(Debug)]
struct Bench {
    name: &'static str,
    page: &'static str,
    section: &'static str,
    runs: &'static [Run],
}

/// Where a benchmark runs, and with what.
#[derive(Debug)]
struct Run {
    /// The kernel of a virtual machine; the machine's own where there is none.
    kernel: Option<&'static str>,
    /// What a shell has to do before.
    before: &'static str,
    /// What the benchmark is told.
    words: &'static str,
}

const OVERHEAD: &str = "docs/overhead.md";

const HERE: Run = Run { kernel: None, before: "", words: "" };

const fn inside(kernel: &'static str) -> Run {
    Run { kernel: Some(kernel), ..HERE }
}

const BENCHES: &[Bench] = &[
    Bench { name: "faults", page: OVERHEAD, section: "Page faults", runs: &[HERE] },
    Bench { name: "record", page: OVERHEAD, section: "Recordings", runs: &[HERE] },
    Bench { name: "top", page: OVERHEAD, section: "The screen of trapline top", runs: &[HERE] },
    Bench { name: "span", page: OVERHEAD, section: "Calls that are spans", runs: &[HERE] },
    Bench {
        name: "kvm",
        page: OVERHEAD,
        section: "Exits of virtual machines",
        runs: &[Run { before: "modprobe kvm_amd nested=1 && ", ..inside("6.12") }],
    },
    Bench { name: "sgx", page: OVERHEAD, section: "Faults of SGX enclaves", runs: &[inside("6.12")] },
    Bench {
        name: "access",
        page: "docs/access.md",
        section: "Period and cost by size",
        runs: &[
            HERE,
            Run { words: "numa writes", ..inside("6.1") },
            Run { words: "numa", ..inside("6.12") },
            Run { words: "rwp writes", ..inside("7.3") },
        ],
    },
];

/// Memory of a machine, MiB: the largest target of a benchmark has 4 GB.
const MEMORY: u32 = 6144;

/// What `cargo xtask overhead` is told.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Benchmarks by name; all of them when none is named
    #[arg(value_name = "BENCHMARK")]
    names: Vec<String>,
    /// How often each measurement is made, if not as often as the benchmark thinks right
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
}

/// Runs those that are named and writes their sections.
pub fn write(args: &Args) -> Result<ExitCode> {
    if let Some(unknown) = args.names.iter().find(|name| !BENCHES.iter().any(|bench| bench.name == **name)) {
        let known: Vec<_> = BENCHES.iter().map(|bench| bench.name).collect();
        bail!("no benchmark is called {unknown:?}; known are {}", known.join(", "));
    }
    for bench in
        BENCHES.iter().filter(|b| args.names.is_empty() || args.names.iter().any(|name| name == b.name))
    {
        let said = bench.run(args.rounds)?;
        let path = system::repository().join(bench.page);
        let page = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let page = replaced(&page, bench.section, &said)
            .with_context(|| format!("{} has no section {:?}", bench.page, bench.section))?;
        // Written each time: what has been measured is not lost when the next one fails.
        fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
        println!("xtask: {} has a new section: {}", path.display(), bench.section);
    }
    Ok(ExitCode::SUCCESS)
}

impl Bench {
    /// Runs it wherever it is to be run, and gives what it printed.
    fn run(&self, rounds: Option<u32>) -> Result<String> {
        let executable = self.build()?;
        let rounds = rounds.map(|n| format!(" --rounds={n}")).unwrap_or_default();
        let mut all = String::new();
        for run in self.runs {
            let command = format!("{} {}{rounds}", quote(&executable.display().to_string()), run.words);
            let said = run.said(&command).with_context(|| format!("the benchmark {} failed", self.name))?;
            ensure!(said.contains("\n|---"), "the benchmark {} printed no table", self.name);
            if run.kernel.is_some() && !all.contains(EMULATED) {
                all += EMULATED;
            }
            all += &format!("{}\n\n", said.trim());
        }
        Ok(all)
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

impl Run {
    /// What the command prints there.
    fn said(&self, command: &str) -> Result<String> {
        let Some(kernel) = self.kernel else {
            let mut shell = Command::new("sh");
            shell.args(["-c", command]).current_dir(system::repository()).stderr(Stdio::inherit());
            let output = shell.output()?;
            ensure!(output.status.success(), "it ended with {}", output.status);
            return Ok(String::from_utf8(output.stdout)?);
        };
        let inside = format!("{}{command} > $TRAPLINE_RESULTS/overhead.md", self.before);
        let mut args = stage::Args::command(inside, [kernel]);
        (args.release, args.timeout, args.memory) = (true, 3600, MEMORY);
        ensure!(stage::run(&args)? == ExitCode::SUCCESS, "on {kernel}");
        Ok(fs::read_to_string(system::directory("results")?.join(kernel).join("overhead.md"))?)
    }
}

/// The page with what is under that heading replaced.
fn replaced(page: &str, section: &str, text: &str) -> Option<String> {
    let heading = format!("\n## {section}\n");
    let (before, after) = page.split_once(&heading)?;
    let rest = after.find("\n## ").map_or("", |next| &after[next..]);
    Some(format!("{before}{heading}\n{}\n{rest}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_others_stay() {
        let page = "# P\n\n## Page faults\n\nold\n\n## Faults of SGX enclaves\n\nlast\n";
        let fresh = replaced(page, "Page faults", "| fresh |\n\n").unwrap();
        assert_eq!(fresh, page.replace("old", "| fresh |"));
        let again = replaced(&fresh, "Faults of SGX enclaves", "new").unwrap();
        assert_eq!(again, fresh.replace("last", "new"));
        assert_eq!(replaced(page, "Faults", ""), None);
    }

    #[test]
    fn the_pages_have_a_section_of_each_benchmark() {
        for bench in BENCHES {
            let page = fs::read_to_string(system::repository().join(bench.page)).unwrap();
            assert!(replaced(&page, bench.section, "").is_some(), "{}", bench.section);
        }
    }
}
