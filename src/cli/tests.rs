//! What the command line takes, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use clap::parser::ValueSource;

use super::*;

/// Lines to which each option of the command is added: every output and every kind of rows.
const LINES: &[&str] = &[
    "faults",
    "faults -d 1s",
    "faults -- true",
    "faults -p 0",
    "faults -o x.txt",
    "faults --format jsonl",
    "faults -o x.trapline",
    "faults --format csv",
    "faults --variant counters",
    "faults --variant fentry",
    "faults --by file",
    "faults --by stack",
    "faults --by stack --format folded",
    "faults --by stack -o x.svg",
    "faults --by file -o x.pb.gz",
    "faults -o x.json.gz",
    "faults -v -o x.perfetto-trace",
    "faults --span a:b",
    "faults -v",
    "faults -v --format csv",
    "faults --log-step 5 -- true",
    "faults --stall 1s",
    "faults --stall 100ms/1s",
    "faults --slower 1ms",
    "faults --hist",
    "faults --split",
    "kvm count",
    "kvm count -d 1s",
    "kvm count --by vm -o -",
    "kvm count -- true",
    "kvm count --format csv",
    "kvm count --format pprof",
    "kvm time",
    "kvm time -d 1s",
    "kvm time -- true",
    "kvm time --format jsonl",
    "kvm time --format pprof",
    "kvm hist",
    "kvm hist -d 1s",
    "kvm hist -- true",
    "kvm hist --each",
    "kvm hist --format jsonl",
    "kvm slower",
    "kvm slower -- true",
    "kvm slower --format jsonl",
    "kvm slower --format csv",
    "kvm slower --stacks",
    "sgx",
    "sgx -d 1s",
    "sgx -- true",
    "sgx --by enclave",
    "sgx --format jsonl",
    "sgx --format csv",
    "access -p 1",
    "access --exec true",
    "access -- true",
    "access --read x.jsonl",
    "access -p 1 --reset none",
    "access -p 1 --format jsonl",
    "access -p 1 --format csv",
    "access -p 1 --format damo",
    "access -p 1 --summary",
    "access -p 1 --summary -d 1s",
    "access -p 1 --summary pages --format csv",
    "access -p 1 --summary workingset",
    "top",
    "top faults",
    "top sgx",
    "top x.jsonl",
    "replay x.jsonl",
    "replay x.jsonl -o x.txt",
    "replay x.jsonl --format jsonl",
    "replay x.jsonl --format csv",
    "replay x.jsonl --format svg",
    "replay x.jsonl --format pprof",
    "replay x.jsonl --format firefox",
    "replay x.jsonl --format perfetto",
    "replay x.jsonl --format damo",
    "replay x.jsonl --summary",
    "diff a b",
    "diff a b --format jsonl",
    "diff a b --format svg",
    "diff --before a --after b",
    "explain",
    "explain -d 1s",
    "explain -- true",
    "explain -o x.txt",
    "explain --format jsonl",
    "explain x",
    "report x",
    "prefetch x",
    "replay x.jsonl -v",
    "replay x.jsonl --log-step 5",
    "replay x.jsonl --hist",
    "replay x.jsonl --by file",
    "replay x.jsonl --prefetch",
    "replay x.jsonl --prefetch --format jsonl",
    "targets add x",
    "targets list",
    "targets clear",
    "doctor",
    "doctor --programs",
    "doctor --repair",
    "demo",
    "workload data",
    "workload data --pattern sequential",
    "workload mmap",
    "workload mmap --pattern seq",
    "workload faults 1",
    "workload faults --storm 1s",
    "workload guest",
    "workload touch",
    "workload touch --pause 0",
    "help",
    "generate x",
];

/// Each option with a value that it can have, and why it always has an effect; nothing where a line above refuses
/// it. One that differs in a command has that before it.
const OPTIONS: &[(&str, &str, &str)] = &[
    ("--pid", "1", ""),
    ("--children", "", ""),
    ("--tid", "1", ""),
    ("--comm", "x", "filters threads"),
    ("--user", "0", "filters threads"),
    ("--cgroup", "/", "filters threads"),
    ("--unit", "x", "filters threads"),
    ("--interval", "2s", ""),
    ("kvm hist --interval", "2s", ""),
    ("--duration", "1s", "ends the run"),
    ("access --duration", "1s", ""),
    ("--cumulative", "", ""),
    ("--sort", "faults", ""),
    ("kvm --sort", "count", ""),
    ("kvm hist --sort", "count", ""),
    ("kvm slower --sort", "count", ""),
    ("--top", "3", ""),
    ("kvm --top", "3", "cuts the rows of every output"),
    ("kvm hist --top", "3", ""),
    ("kvm slower --top", "3", ""),
    ("--format", "jsonl", "changes the output"),
    ("kvm hist --format", "jsonl", ""),
    ("doctor --format", "jsonl", ""),
    ("--output", "y.txt", "changes where the output is"),
    ("diff --before", "c", ""),
    ("diff --after", "c", ""),
    ("diff --by", "file", ""),
    ("diff --per", "5", "changes the figures"),
    ("diff --figures", "major", ""),
    ("diff --sort", "diff", ""),
    ("diff --top", "3", ""),
    ("--keep", "10m", ""),
    ("--keep-on-message", "", ""),
    ("explain --comm", "x", ""),
    ("explain --user", "0", ""),
    ("explain --cgroup", "/", ""),
    ("explain --unit", "x", ""),
    ("explain --duration", "1s", ""),
    ("explain --variant", "tracepoint", ""),
    ("explain --sort", "count", "orders the findings"),
    ("explain --top", "3", "cuts the findings"),
    ("--rules", "", ""),
    ("replay --by", "file", ""),
    ("replay --comm", "x", ""),
    ("replay --tid", "1", ""),
    ("replay --cgroup", "x", ""),
    ("--from", "1s", ""),
    ("--to", "2s", ""),
    ("--wide", "", ""),
    ("--color", "always", ""),
    ("--variant", "tracepoint", "changes what is attached"),
    ("access --variant", "fentry", ""),
    ("--run-as", "root", ""),
    ("--memory", "64", "limits memory with every output"),
    ("--ring-size", "4", "is refused when the variant is known"),
    ("access --ring-size", "4", ""),
    ("kvm slower --ring-size", "4", "the exits come through it with every output"),
    ("--by", "process", "changes the rows"),
    ("faults --by", "cause", ""),
    ("faults --span", "c:d", ""),
    ("--titles", "", ""),
    ("faults --stacks", "major", ""),
    ("kvm slower --stacks", "", "adds columns to the exits"),
    ("--unwind", "fp", ""),
    ("--weight", "count", ""),
    ("--verbose", "", ""),
    ("--log-step", "7", ""),
    ("--major", "", ""),
    ("--stall", "2s", ""),
    ("--minor-latency", "1:8", ""),
    ("--waits", "", ""),
    ("--slower", "2ms", ""),
    ("faults --split", "", ""),
    ("faults --hist", "", ""),
    ("top --interval", "2s", "changes the interval"),
    ("top --comm", "x", ""),
    ("top --user", "0", ""),
    ("top --cgroup", "/", ""),
    ("top --unit", "x", ""),
    ("top --by", "process", ""),
    ("top --split", "", ""),
    ("replay --hist", "", ""),
    ("replay --split", "", ""),
    ("kvm --vm", "x", "filters exits"),
    ("kvm --vcpu", "0", "filters exits"),
    ("kvm --level", "l1", "filters exits"),
    ("kvm --by", "vm", "changes the rows"),
    ("kvm hist --by", "vm", ""),
    ("kvm slower --by", "vm", ""),
    ("kvm --split", "", "adds columns to the rows"),
    ("kvm hist --split", "", ""),
    ("kvm slower --split", "", ""),
    ("kvm --each", "", ""),
    ("kvm --excludes", "0", "filters exits"),
    ("sgx --hist", "", ""),
    ("sgx --module", "x", "changes what is attached"),
    ("--exec", "x", ""),
    ("--reset", "none", ""),
    ("--every", "5ms", ""),
    ("--no-first-touch", "", ""),
    ("--symbols", "", ""),
    ("--max-overhead", "5%", ""),
    ("--summary", "rw", ""),
    ("--window", "1s", ""),
    ("--read", "x.jsonl", ""),
    ("--prefetch", "", ""),
    ("--layout", "declared", ""),
    ("--programs", "", ""),
    ("--repair", "", ""),
    ("--libbpf-log", "", "prints messages of libbpf with every command that attaches"),
    ("demo --size", "1", "changes the file"),
    ("demo --pattern", "seq", "changes the order"),
    ("demo --threads", "2", "changes the number of threads"),
    ("demo --report", "x.html", "writes a page"),
    ("workload --file", "x", "changes the file"),
    ("workload faults --file", "x", ""),
    ("workload --size", "1", "changes the file"),
    ("workload --pattern", "random", "changes the order or the contents"),
    ("workload --seed", "1", ""),
    ("workload --drop", "", "changes what is cached"),
    ("workload --count", "1", "changes the number of accesses"),
    ("workload --threads", "2", "changes the number of threads"),
    ("workload --stride", "3", ""),
    ("workload --delay", "1", "pauses"),
    ("workload --pause", "1", "pauses"),
    ("workload guest --pause", "1", ""),
    ("workload --cold", "", "changes what is cached"),
    ("workload --advice", "normal", "changes what the kernel reads ahead"),
    ("workload --kind", "anon", "changes the faults"),
    ("workload --rate", "5", ""),
    ("workload --storm", "1s", ""),
    ("workload --io", "1", "adds exits"),
    ("workload --cpuid", "1", "adds exits"),
    ("workload --hlt", "1", "adds exits"),
    ("workload --mmio", "1", "adds exits"),
    ("workload --msr", "1", "adds exits"),
    ("workload --touch", "1", "adds exits"),
    ("workload --nested", "1", "adds exits"),
    ("workload --smi", "", ""),
    ("workload --halts-in-kvm", "", ""),
    ("workload --vcpus", "2", "adds exits"),
    ("workload --name", "x", "names the process"),
    ("workload --on", "anon", "changes the memory"),
    ("workload --pages", "1", "changes the number of touches"),
    ("workload --rounds", "1", "changes the number of touches"),
    ("workload --access", "read", "changes the touches"),
    ("workload --together", "", ""),
    ("workload --warm", "", "adds touches"),
    ("workload --stagger", "1", ""),
    ("workload --after-resets", "", "changes when rounds begin"),
    ("workload --busy", "", ""),
];

/// What the command line refuses, or its option's parser.
fn refusal(words: &[&str]) -> Option<String> {
    let words = ["trapline"].iter().chain(words);
    let cli = command().try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches));
    let refused = match cli {
        Err(error) => {
            return Some(match error.kind() {
                ErrorKind::ArgumentConflict => "cannot be used with an option that is given".into(),
                ErrorKind::MissingRequiredArgument => "needs an option that is not given".into(),
                _ => panic!("{error}"),
            });
        }
        Ok(cli) => match &cli.command {
            Command::Faults(args) => args.check(),
            Command::Top(args) => args.check(),
            Command::Kvm(args) => args.check(),
            Command::Sgx(args) => args.check(),
            Command::Access(args) => args.check(),
            Command::Replay(args) => args.check(),
            Command::Diff(args) => args.check(),
            Command::Explain(args) => args.check(),
            Command::Report(args) => args.check(),
            Command::Demo(args) => args.check(),
            Command::Workload(args) => args.check(),
            Command::Prefetch(_)
            | Command::Targets(_)
            | Command::Doctor(_)
            | Command::Help(_)
            | Command::Generate(_) => Ok(()),
        },
    };
    refused.err().map(|error| error.to_string())
}

/// Commands without subcommands, with their names.
fn leaves(command: &clap::Command, path: &str, into: &mut Vec<(String, clap::Command)>) {
    let subcommands: Vec<_> = command.get_subcommands().collect();
    if subcommands.is_empty() {
        into.push((path.to_owned(), command.clone()));
    }
    for sub in subcommands {
        leaves(sub, format!("{path} {}", sub.get_name()).trim_start(), into);
    }
}

/// An option is refused where it has no effect, or always has one: each option of each command, on each kind of output
/// and rows. A new option fails until it is in `OPTIONS`; what is refused where is in the snapshot.
#[test]
fn each_option_has_an_effect_or_is_refused() {
    let mut root = command();
    root.build();
    let mut commands = Vec::new();
    leaves(&root, "", &mut commands);
    let mut table = String::new();
    let mut used = BTreeSet::new();
    let mut wrong = Vec::new();
    for (path, of) in &commands {
        let lines: Vec<&str> = LINES
            .iter()
            .copied()
            .filter(|line| *line == path || line.starts_with(&format!("{path} ")))
            .collect();
        assert!(!lines.is_empty(), "no line for `{path}`");
        let mut refused = BTreeSet::new();
        for line in &lines {
            let words: Vec<&str> = line.split(' ').collect();
            assert_eq!(refusal(&words), None, "{line}");
            let mut given = command().try_get_matches_from(["trapline"].iter().chain(&words)).unwrap();
            while let Some((_, of_sub)) = given.remove_subcommand() {
                given = of_sub;
            }
            let is_given = |id| given.value_source(id) == Some(ValueSource::CommandLine);
            let mut by_reason = BTreeMap::<String, Vec<&str>>::new();
            for option in of.get_arguments().filter(|arg| !arg.is_positional()) {
                let Some(long) = option.get_long().filter(|long| !matches!(*long, "help" | "version")) else {
                    continue;
                };
                let (at, value) = sample(path, long);
                used.insert(at);
                if is_given(option.get_id().as_str()) {
                    continue;
                }
                let option = format!("--{long}");
                let mut words = words.clone();
                let end = words.iter().position(|word| *word == "--").unwrap_or(words.len());
                let added = [option.as_str(), value].into_iter().filter(|word| !word.is_empty());
                words.splice(end..end, added);
                if let Some(reason) = refusal(&words) {
                    refused.insert(long);
                    by_reason.entry(reason).or_default().push(long);
                }
            }
            let _ = writeln!(table, "{line}");
            for (reason, options) in by_reason {
                let _ = writeln!(table, "    {}: {reason}", options.join(" "));
            }
        }
        for option in of.get_arguments().filter_map(clap::Arg::get_long) {
            if matches!(option, "help" | "version") {
                continue;
            }
            let (at, _) = sample(path, option);
            let (name, _, reason) = OPTIONS[at];
            let is_refused = refused.contains(option);
            if is_refused != reason.is_empty() {
                let is = if is_refused { "it is refused" } else { "no line has it refused" };
                wrong.push(format!("{path} --{option}: {is}, but {name} has the reason `{reason}`"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Guests are for x86 alone.
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let unused: Vec<_> = (0..OPTIONS.len()).filter(|at| !used.contains(at)).map(|at| OPTIONS[at].0).collect();
    assert!(unused.is_empty(), "of no command: {unused:?}");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../../tests/golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("options-without-effect", table));
}

/// The place in `OPTIONS` of a command's option, of which the longest name counts, and its value.
fn sample(path: &str, long: &str) -> (usize, &'static str) {
    let is = |name: &str| {
        let (of, option) = name.rsplit_once(' ').unwrap_or(("", name));
        option.trim_start_matches('-') == long
            && (of.is_empty() || format!("{path} ").starts_with(&format!("{of} ")))
    };
    let found = OPTIONS.iter().enumerate().filter(|(_, (name, ..))| is(name));
    let longest = found.max_by_key(|(_, (name, ..))| name.len());
    let (at, (_, value, _)) =
        longest.unwrap_or_else(|| panic!("`{path} --{long}` is not in OPTIONS: where has it no effect?"));
    (at, value)
}

#[test]
fn the_command_line_is_sound() {
    command().debug_assert();
}

#[test]
fn a_bare_interval_is_seconds_milliseconds_or_refused() {
    let refusal = |words: &str| {
        let words = format!("trapline {words}");
        command().try_get_matches_from(words.split(' ')).map_err(|error| error.to_string()).err()
    };
    let said = |words: &str, text: &str| refusal(words).is_some_and(|error| error.contains(text));
    assert_eq!(refusal("sgx -i 3"), None);
    assert!(said("faults -i 3", "it must be at least 10ms"), "it is 3 ms");
    assert_eq!(refusal("faults -i 30"), None);
    assert!(said("kvm count -i 30", "30s or 30ms?"));
    assert!(said("access -p 1 --summary -i 30", "30s or 30ms?"));
}
