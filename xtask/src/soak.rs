//! `cargo xtask soak`: does trapline stay as small as it is? Processes come and go for minutes under each grouping, while
//! its memory, descriptors and BPF maps are looked at; in the end the rows have to be what the kernel counted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde_json::Value;

use crate::system::{self, Scratch};

/// What is run beside the storm: each for the same part of the time. Those that count have to count exactly.
const TOOLS: &[(&str, &[&str])] = &[
    ("faults --by thread", &["faults", "--by", "thread"]),
    ("faults --by process", &["faults", "--by", "process"]),
    ("faults --by file", &["faults", "--by", "file"]),
    ("faults --by cause", &["faults", "--by", "cause"]),
    ("faults --by stack", &["faults", "--by", "stack"]),
    ("access --reset none", &["access", "--reset", "none"]),
];

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// What may be more in the last third of the time than in the second: allocators keep what they were given, and maps hold
/// what has come since they were last read.
const GROWTH_PARTS: u64 = 10;
const GROWTH_RSS: u64 = 8 << 20;
const GROWTH_MAPS: u64 = 4 << 20;
const GROWTH_FDS: u64 = 8;

#[derive(Debug, Parser)]
pub struct Args {
    /// For how long, all together: 60s, 10m
    #[arg(long, default_value = "10m", value_parser = time)]
    time: Duration,
    /// Only tools whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// What rows may take: so little that it is taken long before the end
    #[arg(long, default_value = "32M")]
    memory: String,
    /// The trapline to look at
    #[arg(long, default_value = "target/release/trapline")]
    trapline: PathBuf,
}

fn time(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match (&text[number.len()..], number.parse::<u64>()) {
        ("s" | "", Ok(n)) => n,
        ("m", Ok(n)) => n * 60,
        ("h", Ok(n)) => n * 3600,
        _ => return Err("give a time such as 60s, 10m or 8h".into()),
    };
    Ok(Duration::from_secs(seconds))
}

/// What a process has at a moment, bytes and number.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    rss: u64,
    maps: u64,
    fds: u64,
}

/// Runs them all.
pub fn run(args: &Args) -> Result<ExitCode> {
    let scratch = Scratch::new("soak")?;
    let storm = scratch.path().join("storm");
    let source = system::repository().join("xtask/src/soak/storm.c");
    let compiled = Command::new("gcc")
        .args(["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", "-pthread", "-o"])
        .arg(&storm)
        .arg(source)
        .status();
    ensure!(compiled.context("cannot run gcc")?.success(), "cannot compile the storm");
    let tools: Vec<_> = TOOLS.iter().filter(|(name, _)| name.contains(&args.only)).collect();
    ensure!(!tools.is_empty(), "no tool is called `{}`", args.only);
    let seconds = (args.time.as_secs() / tools.len() as u64).max(6);
    println!("| tool | RSS MB: second third | last third | BPF maps MB | | descriptors | | faults | rows |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut sound = true;
    for (name, words) in tools {
        sound &= one(name, words, args, &storm, scratch.path(), seconds)
            .with_context(|| format!("under {name}"))?;
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one, and tells whether it stayed as small as it was and counted exactly.
fn one(name: &str, words: &[&str], args: &Args, storm: &Path, scratch: &Path, seconds: u64) -> Result<bool> {
    let output = scratch.join("output.jsonl");
    let counts = words[0] == "faults";
    let mut command = Command::new(&args.trapline);
    command.args(words);
    if counts {
        command.args(["-i", "1s", "--memory", &args.memory, "-o"]).arg(&output);
    } else {
        command.args(["--format", "jsonl", "-o", "/dev/null"]);
    }
    command.arg("--").arg(storm).arg(seconds.to_string()).arg(scratch);
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run trapline")?;
    let mut looks = Vec::new();
    while child.try_wait()?.is_none() {
        looks.extend(look(child.id()));
        std::thread::sleep(LOOK);
    }
    let done = child.wait_with_output()?;
    ensure!(done.status.success(), "it ended with {}", done.status);
    let third = looks.len() / 3;
    ensure!(third > 0, "it ended at once");
    // As it ends, it makes totals of all that it knows: that is not what it takes while it runs.
    let last = looks.len() - 2;
    let most = |looks: &[Look]| {
        looks.iter().fold(Look::default(), |a, b| Look {
            rss: a.rss.max(b.rss),
            maps: a.maps.max(b.maps),
            fds: a.fds.max(b.fds),
        })
    };
    let (middle, end) = (most(&looks[third..2 * third]), most(&looks[2 * third..last.max(2 * third + 1)]));
    let may = |of: u64, more: u64| of + of / GROWTH_PARTS + more;
    let flat = end.rss <= may(middle.rss, GROWTH_RSS)
        && end.maps <= may(middle.maps, GROWTH_MAPS)
        && end.fds <= may(middle.fds, GROWTH_FDS);
    let text = String::from_utf8_lossy(&done.stdout);
    let truth: u64 = text.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).sum();
    let rows = if counts { sum(&output)? } else { truth };
    let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "| {name} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} | {truth} | {rows} |{}{}",
        mb(middle.rss),
        mb(end.rss),
        mb(middle.maps),
        mb(end.maps),
        middle.fds,
        end.fds,
        if flat { "" } else { " GROWS" },
        if rows == truth { "" } else { " DIFFERS" },
    );
    Ok(flat && rows == truth && truth > 0)
}

/// What a process has now; nothing if it has ended.
fn look(pid: u32) -> Option<Look> {
    let proc = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(proc.join("status")).ok()?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let rss = rss.trim().trim_end_matches(" kB").parse::<u64>().ok()? << 10;
    let mut look = Look { rss, ..Look::default() };
    for entry in fs::read_dir(proc.join("fdinfo")).ok()?.flatten() {
        look.fds += 1;
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        // Of a map, what its elements take: since 6.4.
        if info.contains("map_type:") {
            let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:"));
            look.maps += bytes.and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Some(look)
}

/// Major and minor faults of all totals.
fn sum(output: &Path) -> Result<u64> {
    let text = fs::read_to_string(output)?;
    let mut sum = 0;
    for line in text.lines().filter(|line| line.starts_with("{\"type\":\"total\"")) {
        let total: Value = serde_json::from_str(line)?;
        let field = |name: &str| total[name].as_u64().with_context(|| format!("no {name} in {line}"));
        sum += field("major")? + field("minor")?;
    }
    if !text.lines().last().is_some_and(|line| line.starts_with("{\"type\":\"end\"")) {
        bail!("there is no end in {}", output.display());
    }
    Ok(sum)
}
