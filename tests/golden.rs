//! What the binary says without any privilege: help, bad input, statuses.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output, Stdio};

fn trapline(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
    command.args(arguments).env("COLUMNS", "100").stdin(Stdio::null()).output().unwrap()
}

/// It fails with this status and says why: what clap finds, over several lines; the rest, in one line.
fn refuses(arguments: &[&str], status: i32, holds: &str) {
    let output = trapline(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {error}");
    assert!(error.contains(holds), "{arguments:?}: {error}");
    assert!(!error.contains("panicked"), "{error}");
    if status == 1 {
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
        assert!(error.starts_with("trapline: "), "{error}");
    }
    assert!(output.stdout.is_empty(), "{arguments:?}");
}

#[test]
fn bad_input_is_refused() {
    refuses(&[], 2, "Usage");
    refuses(&["nosuchtool"], 2, "unrecognized subcommand 'nosuchtool'");
    refuses(&["faults", "-i", "0"], 2, "it must be more than 0");
    refuses(&["faults", "-i", "1"], 2, "it must be at least 10ms");
    refuses(&["faults", "-i", "soon"], 2, "try 500ms, 2s or 1m");
    for words in [
        "faults -d 10",
        "faults --stall 10",
        "kvm count -i 10",
        "kvm slower 1 -d 10",
        "sgx -d 10",
        "access -p 1 --every 10",
        "access -p 1 --summary -i 10",
        "access -p 1 --summary --window 10",
        "workload faults --storm 10",
    ] {
        refuses(&words.split(' ').collect::<Vec<_>>(), 2, "`10` has no unit: 10s or 10ms?");
    }
    refuses(&["faults", "-d", "0s"], 2, "it must be more than 0");
    refuses(&["faults", "--format", "damo"], 2, "possible values: table, jsonl, csv");
    refuses(&["faults", "--format", "xml"], 2, "possible values: table, jsonl, csv");
    refuses(&["faults", "-p", "abc"], 2, "invalid digit");
    refuses(&["faults", "-p", "1,abc"], 2, "invalid digit");
    refuses(&["faults", "--user", "no-such-user"], 2, "there is no such user: give a name or a number");
    refuses(&["faults", "--children"], 2, "--pid");
    refuses(&["faults", "-p", "1", "-t", "1", "--children"], 2, "cannot be used with");
    refuses(&["access", "--children", "--exec", "true"], 2, "cannot be used with");
    refuses(&["sgx", "--children", "--", "true"], 2, "cannot be used with");
    refuses(&["faults", "--unit", "x", "--cgroup", "/"], 2, "cannot be used with");
    refuses(&["faults", "--unit", "a/b"], 2, "the name of a unit");
    refuses(&["faults", "-p", "-1"], 2, "");
    refuses(&["access", "--exec", ""], 2, "the name is empty");
    refuses(&["targets", "add", "x", ""], 2, "the name is empty");
    refuses(&["targets", "add", "/bin/x"], 2, "without its path");
    refuses(&["faults", "-t", "0"], 2, "0 is not in 1..");
    refuses(&["faults", "--top", "0"], 2, "0 is not in 1..");
    refuses(&["faults", "-p", "1", "--", "ls"], 2, "cannot be used with");
    refuses(&["faults", "--run-as", "root"], 2, "<COMMAND>");
    refuses(&["explain", "x.jsonl", "--run-as", "root"], 2, "cannot be used with");
    refuses(&["faults", "-p", "1", "--run-as", "root"], 2, "cannot be used with");
    refuses(&["access", "-p", "1", "--run-as", "root"], 2, "cannot be used with");
    refuses(&["faults", "--minor-latency", "1:0"], 2, "use exact, off, or 1:N");
    refuses(&["faults", "--ring-size", "3"], 2, "power of two");
    refuses(&["faults", "--sort", "size"], 2, "no such column");
    refuses(
        &["faults", "-o", "/nosuchdir/x.jsonl"],
        1,
        "cannot write to /nosuchdir/x.jsonl: ENOENT: No such file or directory",
    );
    refuses(&["faults", "-o", "result.xyz"], 2, "use .txt, .jsonl, .csv, ");
    refuses(
        &["faults", "--log-step", "-v", "--variant", "counters"],
        2,
        "it reads counters of threads and sees no single fault",
    );
    refuses(&["faults", "-o", "result.svg"], 2, "use `trapline faults --by stack`");
    for message in ["-v", "--log-step", "--stall=1s"] {
        refuses(&["faults", "--span", "libc.so.6:fsync", message], 2, "leave out one of them");
    }
    refuses(&["access"], 2, "required");
    refuses(&["access", "-p", "1", "--", "ls"], 2, "cannot be used with");
    refuses(&["access", "-p", "1", "--every", "1us"], 2, "at least 100");
    refuses(&["access", "-p", "1", "--max-overhead", "200%"], 2, "a percentage above 0");
    refuses(&["access", "-p", "1", "--reset", "magic"], 2, "rwp, numa, writes, none");
    refuses(
        &["access", "--summary", "what", "-p", "1"],
        2,
        "workingset, mappings, pages, rw, sharing, reuse",
    );
    refuses(&["access", "--window", "1s", "-p", "1"], 2, "--summary");
    refuses(&["access", "--summary", "--window", "10us", "-p", "1"], 2, "at least 1ms");
    refuses(&["access", "--read", "x.jsonl", "-p", "1"], 2, "cannot be used with");
    refuses(&["access", "--read", "x.jsonl", "-d", "1s"], 2, "cannot be used with");
    refuses(&["targets", "add"], 2, "required");
    refuses(&["top"], 2, "top needs a terminal");
    refuses(&["top", "faults", "--by", "colour"], 2, "faults has no rows by `colour`: use process, thread");
    refuses(&["top", "sgx", "--split"], 2, "leave out --split");
    refuses(&["top", "x.jsonl", "-p", "1"], 2, "filters are for what runs now");
    refuses(&["doctor", "--format", "csv"], 2, "possible values: table, jsonl");
    refuses(&["doctor", "--repair", "--programs"], 2, "cannot be used with");
    refuses(&["kvm"], 2, "Usage");
    refuses(&["kvm", "hist", "HTL"], 2, "trapline: no exit has the name `HTL`; did you mean `HLT`?");
    refuses(&["kvm", "slower", "--excludes", "12,CPIUD"], 2, "did you mean `CPUID`?");
    refuses(&["kvm", "hist", "0x999"], 2, "has the number 0x999; the nearest is ");
    refuses(&["kvm", "slower", "--excludes", "0xfffff"], 2, "has the number 0xfffff; ");
    refuses(&["kvm", "slower", "soon"], 2, "try 500ms, 2s or 1m");
    refuses(
        &["kvm", "count", "--by", "colour"],
        2,
        "possible values: reason, vm, vcpu, msr, port, mmio, rip",
    );
    refuses(&["kvm", "count", "--level", "l3"], 2, "possible values: l1, l2");
}

/// Findings have no figures that a report shows.
#[test]
fn a_recording_of_findings_is_not_reported_on() {
    let folder = tempfile::tempdir().unwrap();
    let (file, page) = (folder.path().join("findings.jsonl"), folder.path().join("page.html"));
    let header = r#"{"type":"header","schema":2,"tool":"explain","variant":"fentry","version":"1","host":"h","kernel":"6","start":"2026-01-01T08:00:00Z","start_ns":0,"tables":["explain.finding"],"events":null}"#;
    let end = r#"{"type":"end","duration_ns":1000,"events":0,"lost_events":0,"sampled":1,"own_cpu_ns":5}"#;
    std::fs::write(&file, format!("{header}\n{end}\n")).unwrap();
    let [path, page] = [&file, &page].map(|path| path.to_str().unwrap());
    refuses(
        &["report", path, "-o", page],
        2,
        "a report shows no recording of `explain`: use `trapline replay`",
    );
    assert!(!folder.path().join("page.html").exists());
    assert!(trapline(&["replay", path]).status.success());
}

/// What would have no effect is refused, and not passed over.
#[test]
fn options_without_effect_are_refused() {
    let cases = [
        ("faults --", "no command after `--`"),
        ("access -p 1 --", "no command after `--`"),
        ("sgx --", "no command after `--`"),
        ("kvm count --", "no command after `--`"),
        ("faults -i -5", "`-5` is less than 0"),
        ("faults -i -5s", "`-5s` is less than 0"),
        ("faults -d -1", "`-1` is less than 0"),
        ("faults --top -1", "-1 is not in 1.."),
        ("faults -p -1", "-1 is not in 0.."),
        ("faults --stall -1s", "less than 0"),
        ("faults --stall 2s/1s", "must not be longer than its window"),
        ("faults --stall 1us/10us", "at least 1ms"),
        ("faults --stall 10/1s", "has no unit"),
        ("faults --stall 10ms/", "try 500ms"),
        ("faults --stall 1s --variant counters", "sees no single fault"),
        ("faults --stall 1ms/1s --variant counters", "sees no single fault"),
        ("faults --stall 1ms/1s --variant rootless -- true", "it does not count in the kernel"),
        ("faults --log-step 5 --waits --variant counters", "sees no single fault"),
        ("kvm slower -5", "less than 0"),
        ("faults -t 1 -- true", "cannot be used with"),
        ("faults -p 0 -p 1", "-p 0 means all processes"),
        ("faults -p 0,1", "-p 0 means all processes"),
        ("sgx -p 0 --children", "-p 0 means all processes"),
        ("faults --variant rootless -p 1 --children", "leave out --children"),
        ("faults --variant rootless -p 1 --user root", "it filters by process only"),
        ("faults -c -- true", "-c needs rows at intervals"),
        ("faults -c -v", "-c needs rows at intervals"),
        ("faults --by stack -c --format folded", "a flame graph shows the whole run"),
        ("faults --by stack -i 1s --format svg", "leave out -i"),
        ("faults --minor-latency 1:8 --variant fentry", "times every fault"),
        ("faults --by stack --sort major --format svg", "a flame graph has its own order"),
        ("faults --sort major --format pprof", "a profile has its own order"),
        ("faults -v -o x.pb.gz", "a profile shows rows: leave out -v"),
        ("kvm slower -o x.pb.gz", "a profile shows rows, and this command prints events"),
        ("access -p 1 -o x.pb.gz", "a profile needs rows"),
        ("kvm count -o x.perfetto-trace", "add -i TIME"),
        ("faults -o x.perfetto-trace -- true", "add -i TIME"),
        ("faults -i 1s -c -o x.json.gz", "shows what came in each interval: leave out -c"),
        ("access -p 1 --summary pages -o x.perfetto-trace", "add -i TIME"),
        ("kvm count -i 1s -o x.pb.gz", "a profile shows the whole run: leave out -i"),
        ("faults --by stack -v --format svg", "a flame graph shows rows"),
        ("faults -v -i 1s --format csv", "csv prints the events, not rows: leave out -i"),
        ("faults -v --sort major --format csv", "leave out --sort"),
        ("faults -v --top 3 -o x.csv", "leave out --top"),
        ("faults -v --by file --format csv", "leave out --by"),
        ("faults --log-step --by file --format csv", "leave out --by"),
        ("faults --stacks major", "add --by stack"),
        ("faults --stacks all --by file", "add --by stack"),
        ("faults --weight count", "-o FILE.svg"),
        ("faults --by stack --weight time --format jsonl", "-o FILE.svg"),
        ("faults --major", "--log-step"),
        ("faults --minor-latency off -v", "leave out --minor-latency"),
        ("faults --minor-latency 1:8 --log-step 5", "leave out --minor-latency"),
        ("faults --minor-latency off --by file", "leave out --minor-latency"),
        ("faults --minor-latency exact --variant counters", "times no fault"),
        ("faults --minor-latency off --variant rootless -- true", "times no fault"),
        ("faults --span a:b --by file", "--span prints a row per span"),
        ("faults --span a:b -v", "leave out one of them"),
        ("faults --by span", "--span"),
        ("faults --variant rootless -p 1 --comm x", "it filters by process only"),
        ("kvm slower --by vm", "leave out --by"),
        ("kvm slower --split", "leave out --split"),
        ("kvm slower -i 1s", "leave out -i"),
        ("kvm slower --by vm --format csv", "leave out --by"),
        ("kvm hist --by vm", "leave out --by"),
        ("kvm hist --split", "leave out --split"),
        ("kvm hist --top 3", "add --each"),
        ("kvm hist --each --format jsonl", "leave out --each"),
        ("kvm hist -o x.csv", "this format has no histograms"),
        ("faults --wide -o x.txt", "a table in a file has every column"),
        ("faults -i 2s -d 1s", "no interval ends"),
        ("access --exec true --run-as root", "cannot be used with"),
        ("access --read x.jsonl --run-as root", "cannot be used with"),
        ("kvm count -c", "-c needs rows at intervals"),
        ("sgx --top 3", "add --by"),
        ("sgx --hist --format csv", "this format has no histograms"),
        ("sgx --sort faults", "add --by"),
        ("sgx -c -- true", "-c needs rows at intervals"),
        ("access -p 1 --reset none --every 5ms", "leave out --every"),
        ("access -p 1 --reset none --max-overhead 5%", "leave out --max-overhead"),
        ("access -p 1 --reset none --no-first-touch", "leave out --no-first-touch"),
        ("access -p 1 --symbols --summary", "--symbols is for single accesses"),
        ("access -p 1 --symbols --format damo", "--symbols is for single accesses"),
        ("access -p 1 --summary pages --window 1s", "--window needs the table workingset"),
        ("access -p 1 --summary workingset --top 3", "--top limits tables"),
        ("access -p 1 --top 3", "--summary"),
        ("access -p 1 -i 1s", "--summary"),
        ("access -p 1 --summary --sort writes", "leave out --sort"),
        ("access -p 1 --sort nothing", "no such column"),
        ("sgx --format svg", "possible values: table, jsonl, csv"),
        ("access -p 1 --summary -c", "-c needs rows at intervals"),
        ("doctor --repair --format jsonl", "cannot be used with"),
        ("workload data -s 0", "at least 1"),
        ("workload data --seed 1 -p sequential", "leave out --seed"),
        ("workload data -s 99999999999999", "choose less"),
        ("workload mmap --stride 3", "--pattern stride"),
        ("workload mmap --seed 3 -p seq", "leave out --seed"),
        ("workload mmap -t 0", "choose 1 to 1024"),
        ("workload mmap -c 0", "at least 1"),
        ("workload faults 0", "at least 1"),
        ("workload faults 3 -t 5", "choose fewer threads"),
        ("workload faults 3 -f x", "--kind file"),
        ("workload faults 3 --rate 0", "at least 1"),
        ("workload faults --storm 1s --kind file", "leave out --kind file"),
        ("workload guest --vcpus 0", "1 to 256 vCPUs"),
        ("workload guest --pause 1", "--pause needs HLT exits"),
        ("workload touch --together", "--together needs several threads"),
        ("workload touch --stagger 1", "--stagger needs several threads"),
        ("workload touch --seed 1", "leave out --seed"),
        ("workload touch --pages 0", "at least 1 page"),
    ];
    for (line, holds) in cases {
        refuses(&line.split(' ').collect::<Vec<_>>(), 2, holds);
    }
}

#[test]
fn recordings_that_cannot_be_compared_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let recording = |tool: &str, table: &str, sampled: u64| {
        format!(
            r#"{{"type":"header","schema":2,"tool":"{tool}","variant":"x","version":"0","host":"h","kernel":"k","start":"2026-01-01T00:00:00Z","start_ns":1,"tables":["{table}"]}}
{{"type":"total","time_ns":2,"table":"{table}","name":"HLT","cause":"x","count":5,"minor":5,"total_ns":9}}
{{"type":"end","duration_ns":1000000000,"events":5,"lost_events":3,"sampled":{sampled},"own_cpu_ns":5}}
"#
        )
    };
    let exits = file("kvm.jsonl", &recording("kvm", "kvm.count_reason", 1));
    let causes = file("faults.jsonl", &recording("faults", "faults.cause", 1));
    let sampled = file("sampled.jsonl", &recording("faults", "faults.cause", 8));
    let text = text_of(&["diff", &exits, &exits, "--per", "count"]);
    assert!(text.contains("losses before: 3 lost events; after: 3 lost events"), "{text}");
    refuses(&["diff", &exits, &causes], 2, "compare recordings of one command");
    refuses(&["diff", &causes, &sampled], 2, "sampled.jsonl is sampled (1 in 8 faults is timed)");
    refuses(&["diff", &exits, &exits, "-o", "x.svg"], 2, "a flame graph needs stacks");
    refuses(&["diff", &causes, &causes, "--per", "calls"], 2, "--per calls: faults.cause counts");
    refuses(&["diff", &causes, &causes, "--figures", "calls"], 2, "faults.cause has no figure `calls`");
    refuses(&["diff", &causes, &causes, "--per", "0"], 2, "`0` is not a number of operations");
    refuses(&["diff", &causes, &causes, "--sort", "size"], 2, "no such column");
    refuses(&["diff", &causes, &causes, "--weight", "time"], 2, "--weight needs a flame graph");
    refuses(&["diff", &causes, &causes, "-o", &causes], 2, "would be overwritten");
    refuses(&["diff", &causes], 2, "2 values required");
    refuses(&["diff"], 2, "required");
    refuses(&["diff", "--before", &causes], 2, "--after");
    refuses(&["diff", &causes, &causes, "--before", &causes, "--after", &causes], 2, "cannot be used with");
    refuses(&["diff", &causes, &exits, "--by", "process"], 2, "has no single faults, which --by needs");
    // What perf did not record of each fault is not 0.
    let perf = |name: &str| format!("{}/fuzz/seeds/perf_data/{name}", env!("CARGO_MANIFEST_DIR"));
    for (name, why) in [("exceptions", "both major-faults and minor-faults"), ("sampled", "minor-faults")] {
        refuses(&["replay", &perf(name), "--by", "process"], 2, why);
        refuses(&["diff", &perf(name), &perf(name), "--by", "process"], 2, why);
    }
    let cut = file("cut.jsonl", recording("faults", "faults.cause", 1).lines().next().unwrap());
    refuses(&["diff", &causes, &cut], 1, "the recording stops here");
}

#[test]
fn what_is_not_there_is_named() {
    refuses(&["faults", "-p", "1073741823"], 1, "there is no process 1073741823");
    refuses(&["faults", "-t", "1073741823"], 1, "there is no thread 1073741823");
    refuses(&["faults", "--comm", "a-name-of-twenty-bytes"], 2, "at most 15 bytes");
    refuses(&["faults", "--cgroup", "/nosuch/group"], 1, "is not a cgroup");
    refuses(&["faults", "--variant", "magic"], 2, "there are fentry, kprobe, tracepoint, counters");
    refuses(&["workload", "mmap", "-f", "/nosuch.bin"], 1, "No such file");
}

/// A file's contents are given up when the trace begins, and not for a typo.
#[test]
fn what_a_file_holds_outlives_a_run_that_does_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["x.jsonl", "x.csv", "x.txt", "x.svg", "x.folded"] {
        let path = folder.path().join(name);
        std::fs::write(&path, "yesterday's").unwrap();
        let to = path.to_str().unwrap();
        let by = if name.ends_with("svg") || name.ends_with("folded") { "stack" } else { "thread" };
        for (wrong, status) in [
            (vec!["-p", "1073741823"], 1),
            (vec!["--cgroup", "/nosuch/group"], 1),
            (vec!["--variant", "magic"], 2),
            (vec!["--variant", "rootless", "--", "/nosuch/command"], 127),
        ] {
            let output = trapline(&[&["faults", "--by", by, "-o", to], &wrong[..]].concat());
            assert_eq!(output.status.code(), Some(status), "{wrong:?}: {output:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "yesterday's", "{name} {wrong:?}");
        }
    }
    let new = folder.path().join("new.jsonl");
    trapline(&["faults", "-p", "1073741823", "-o", new.to_str().unwrap()]);
    assert!(!new.exists(), "nothing is left of a run that did not begin");
}

/// Every help page, short and long, as it looks with 100 columns.
#[test]
fn help_pages() {
    assert!(text_of(&["--version"]).starts_with("trapline 0."));
    let mut open = vec![vec![]];
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    while let Some(command) = open.pop() {
        let page = |how| text_of(&[&command[..], &[how]].concat());
        let (short, long) = (page("-h"), page("--help"));
        let listed = short.split_once("Commands:\n").map_or("", |(_, list)| list);
        let listed = listed.lines().take_while(|line| !line.is_empty());
        // A deeper indent goes on with the line before. Guests are for x86 alone.
        let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
        for name in names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help") {
            open.push([&command[..], &[Box::leak(name.to_owned().into_boxed_str())]].concat());
        }
        if cfg!(target_arch = "x86_64") {
            let name = [&["help"], &command[..]].concat().join("-");
            settings.bind(|| insta::assert_snapshot!(name, format!("{short}\n=== --help ===\n\n{long}")));
        }
    }
}

/// Help that nobody can read is no success; a reader who has had enough is none to complain about.
#[test]
fn help_that_cannot_be_written_is_a_failure() {
    for words in [&["--help"][..], &["faults", "-h"], &["--version"]] {
        let to = |path: &str| {
            let full = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
            command.args(words).stdout(full).output().unwrap()
        };
        let output = to("/dev/full");
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(error, "trapline: cannot write to standard output: ENOSPC: No space left on device\n");
        assert_eq!(to("/dev/null").status.code(), Some(0));
    }
}

/// What a command that succeeds prints.
fn text_of(arguments: &[&str]) -> String {
    let output = trapline(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

const RECORDING: &str = r#"{"type":"header","schema":2,"tool":"access","variant":"kprobe","version":"0.1.0","host":"h","kernel":"6.1","start":"2026-01-01T00:00:00Z","start_ns":1000000000,"reset":"writes","every_ns":1000000,"tables":["access.process"],"events":"access.event"}
{"type":"event","time_ns":1001000000,"event":"start","pid":7,"tid":7,"comm":"app"}
{"type":"event","time_ns":1002000000,"event":"access","pid":7,"tid":7,"comm":"app","cpu":0,"rw":"W","ip":64,"addr":8200,"file":"/data","offset":8,"symbol":null,"first":1,"note":null}
{"type":"event","time_ns":1104000000,"event":"access","pid":7,"tid":8,"comm":"app","cpu":0,"rw":"W","ip":64,"addr":8192,"file":"/data","offset":0,"symbol":null,"first":0,"note":null}
{"type":"end","duration_ns":200000000,"events":2,"lost_events":0,"sampled":1,"own_cpu_ns":5,"rounds":150,"period_ns":1300000}
"#;

#[test]
fn a_recording_is_read() {
    let file = tempfile::Builder::new().suffix(".jsonl").tempfile().unwrap();
    std::fs::write(&file, RECORDING).unwrap();
    let path = file.path().to_str().unwrap();
    let said = |arguments: &[&str]| {
        let output = trapline(&[&["access", "--read", path], arguments].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = said(&["--summary"]);
    for part in [
        "Working set over time",
        "Pages written by several threads",
        "7:1 8:1",
        "150 rounds of resets, one each 1.300 ms",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let csv = said(&["--summary", "rw", "--format", "csv"]);
    let rw = "total,1200000000,rw,7,1001000000,app,2,0,2,0,1,1,0,1,0";
    assert_eq!(csv.lines().nth(1), Some(rw), "{csv}");
    assert!(said(&[]).contains("    1.104000: handle_mm_fault: 8 W 40 2000\n"), "{}", said(&[]));
    let damo = trapline(&["access", "--read", path, "--format", "damo"]);
    // As zlib begins.
    assert!(damo.status.success() && damo.stdout.starts_with(&[0x78]), "{damo:?}");
    refuses(&["access", "--summary", "--read", path, "--format", "damo"], 2, "leave out --summary");
    refuses(&["access", "--summary", "--read", path, "--format", "csv"], 2, "csv can print one table");
    refuses(&["access", "--read", path, "-o", path], 2, "would be overwritten");
    refuses(&["access", "--read", "/nosuch.jsonl"], 1, "cannot read /nosuch.jsonl: ENOENT");
    // `replay` shows the same, and knows of which tool it is.
    for options in [&[][..], &["--summary"], &["--summary", "rw", "--format", "csv"], &["--format", "jsonl"]]
    {
        let replayed = trapline(&[&["replay", path], options].concat());
        assert_eq!(String::from_utf8(replayed.stdout).unwrap(), said(options), "{options:?}");
    }
    refuses(&["replay", path, "-o", path], 2, "would be overwritten");
    refuses(&["replay", path, "--layout", "kvm.time"], 2, "is not for a recording of `access`");
    refuses(&["replay", path, "--format", "svg"], 2, "needs stacks");
    refuses(&["replay", path, "--format", "csv", "--top", "1"], 2, "this prints no rows of the recording");
    // A dash is standard output, and no file.
    let here = tempfile::tempdir().unwrap();
    for format in ["table", "jsonl"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
        command.current_dir(&here).args(["replay", path, "--format", format, "-o", "-"]);
        assert_eq!(String::from_utf8(command.output().unwrap().stdout).unwrap(), said(&["--format", format]));
    }
    assert_eq!(std::fs::read_dir(&here).unwrap().count(), 0);
    refuses(&["replay", path, "--window", "1s"], 2, "--window needs --summary");
    refuses(&["replay", "/nosuch.jsonl"], 1, "cannot read /nosuch.jsonl: ENOENT");
    // What came before is shown, but no totals.
    let stops = |text: &str, line: &str| {
        std::fs::write(&file, text).unwrap();
        let output = trapline(&["access", "--summary", "--read", path]);
        let (out, error) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        assert!(error.contains(line) && !out.contains("Heat"), "{error} {out}");
    };
    stops(&RECORDING[..RECORDING.len() - 20], "line 5: the recording is cut off");
    stops(RECORDING.lines().next().unwrap(), "line 1: the recording stops here");
    std::fs::write(&file, "").unwrap();
    refuses(&["access", "--summary", "--read", path], 1, "line 1: it is empty");
    std::fs::write(&file, RECORDING.replace("\"access\",\"variant", "\"faults\",\"variant")).unwrap();
    refuses(&["access", "--summary", "--read", path], 1, "line 1: it is a recording of `faults`");
    std::fs::write(&file, RECORDING.replace("\"access\",\"variant", "\"x\\u001b\",\"variant")).unwrap();
    refuses(&["replay", path], 1, "which this version does not know");
}
