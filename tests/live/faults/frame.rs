//! Intervals, filters, ends, and what it costs to be there.

use crate::run::{
    Beside, Place, Said, all_or_first, faults, fixture, in_full, place, spawn, sum, trapline, u,
};
use crate::running::Worker;

fn touch(pages: usize) -> Vec<String> {
    let mut words = fixture("touch");
    words.push(pages.to_string());
    words
}

pub fn intervals_add_up(variant: &'static str) {
    let mut storm = fixture("storm");
    storm.extend(["2", if place() == Place::Vm { "1000" } else { "2000" }].map(String::from));
    let said = Said::by(faults(variant, &["-i", "200ms"]).arg("--").args(&storm));
    let times: std::collections::BTreeSet<u64> = said.rows.iter().map(|r| u(&r["time_ns"])).collect();
    // Emulation is slow to read all threads: the intervals come late there, and must add up all the same.
    assert!(times.len() >= if place() == Place::Vm { 2 } else { 8 }, "{} intervals", times.len());
    assert_eq!(sum(&said.rows, |_| true), sum(&said.totals, |_| true));
    if variant != "counters" {
        said.times_add_up("tid");
        if in_full() {
            let options = ["-i", "10ms", "--by", "cause"];
            Said::by(faults(variant, &options).arg("--").args(&storm)).times_add_up("cause");
        }
    }
    let cumulative = Said::by(faults(variant, &["-c", "-i", "200ms"]).arg("--").args(&storm));
    for total in &cumulative.totals {
        let mut rows = cumulative.rows.iter().filter(|r| r["tid"] == total["tid"]).map(|r| u(&r["minor"]));
        assert!(rows.clone().is_sorted(), "{total}");
        assert_eq!(rows.next_back(), total["minor"].as_u64());
    }
}

pub fn filters(variant: &'static str) {
    // By name: exactly what was done under that name.
    let said = Said::by(faults(variant, &["--comm", "wanted"]).arg("--").args(fixture("rename")));
    assert_eq!(sum(&said.totals, |_| true), (0, 1000), "{:?}", said.totals);
    // By process and by thread, from outside, with others at work.
    let mut child = Worker::start(&fixture("on-demand"));
    let pid = child.id().to_string();
    for filter in [["-p", pid.as_str()], ["-t", pid.as_str()]] {
        let trapline = Beside::start(faults(variant, &filter));
        let mut other = spawn(&touch(3000));
        other.wait().unwrap();
        child.touch(500);
        let said = trapline.interrupt();
        assert!(sum(&said.totals, |_| true).1 >= 500, "{:?}", said.totals);
        assert!(said.totals.iter().all(|t| u(&t["pid"]) == u64::from(child.id())), "{:?}", said.totals);
    }
    // By cgroup: a child in a cgroup of its own, and one outside.
    let dir = cgroup_root().join(format!("trapline-test-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let inner = dir.join("inner");
    std::fs::create_dir(&inner).unwrap();
    let trapline = Beside::start(faults(variant, &["--cgroup", dir.to_str().unwrap()]));
    let grouped = Beside::start(faults(variant, &["--by", "cgroup"]));
    let join = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", inner.display());
    let mut inside = vec!["sh".into(), "-c".into(), join, "sh".into()];
    inside.extend(touch(5000));
    let mut outside = spawn(&touch(5000));
    let mut inside = spawn(&inside);
    inside.wait().unwrap();
    outside.wait().unwrap();
    let said = trapline.interrupt();
    let grouped = grouped.interrupt();
    std::fs::remove_dir(&inner).unwrap();
    std::fs::remove_dir(&dir).unwrap();
    assert!(said.totals.iter().all(|t| u(&t["pid"]) == u64::from(inside.id())), "{:?}", said.totals);
    assert!((5000..6000).contains(&sum(&said.totals, |_| true).1), "{:?}", said.totals);
    let path = format!("/{}/inner", dir.file_name().unwrap().to_str().unwrap());
    let inner = sum(&grouped.totals, |t| t["cgroup"] == path.as_str());
    assert!((5000..6000).contains(&inner.1), "{path}: {:?}", grouped.totals);
}

pub fn cgroup_root() -> std::path::PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some("cgroup2"))
        .expect("cgroup2 is not mounted");
    line.split(' ').nth(1).unwrap().into()
}

pub fn a_process_that_ends(_: &'static str) {
    let worker = Worker::start(&fixture("on-demand"));
    let trapline = Beside::start(faults("auto", &["-p", &worker.id().to_string(), "-d", "60s"]));
    worker.end();
    let took = u(&trapline.wait().end["duration_ns"]);
    assert!(took < 60_000_000_000, "it went on after its process had ended");
}

/// A few intervals have been shown.
fn runs_for_a_while(trapline: &mut Beside) {
    while u(&trapline.next()["time_ns"]) < u(&trapline.header()["start_ns"]) + 500_000_000 {}
}

pub fn an_interrupt_gives_totals(_: &'static str) {
    let mut trapline = Beside::start(faults("auto", &["-i", "100"]));
    runs_for_a_while(&mut trapline);
    let pid = u64::from(trapline.pid());
    let said = trapline.interrupt();
    assert!(!said.totals.is_empty());
    assert!(said.totals.iter().any(|t| u(&t["pid"]) == pid), "its own faults are faults like others");
    assert!(u(&said.end["duration_ns"]) > 300_000_000 && u(&said.end["own_cpu_ns"]) > 0);
    assert_eq!(said.header["schema"], 2);
}

pub fn the_status_is_the_commands(_: &'static str) {
    let ends = [(&["sh", "-c", "kill -9 $$"][..], 137), (&["sh", "-c", "exit 42"], 42), (&["true"], 0)];
    for (command, status) in all_or_first(ends) {
        let output = faults("auto", &["--"]).args(command).output().unwrap();
        assert_eq!(output.status.code(), Some(status));
        Said::of(&output);
    }
    if !in_full() {
        return;
    }
    for (command, status) in [("/nosuchcommand", 127), ("/etc/passwd", 126)] {
        let output = faults("auto", &["--", command]).output().unwrap();
        assert_eq!(output.status.code(), Some(status));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("trapline: cannot run") && error.lines().count() == 1, "{error}");
    }
}

/// What a command took is what it says itself, with its children; of one that goes on, nothing is said.
pub fn a_command_has_its_times(_: &'static str) {
    let busy = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
    let script = format!("{busy}; sh -c '{busy}'; times");
    let output = faults("auto", &["--", "sh", "-c", &script]).output().unwrap();
    let said = Said::of(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    let time = |word: &str| {
        let (minutes, seconds) = word.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    };
    let by_itself: Vec<f64> = text
        .lines()
        .filter(|line| !line.starts_with('{'))
        .flat_map(str::split_whitespace)
        .filter_map(time)
        .collect();
    assert_eq!(by_itself.len(), 4, "user and system, of the shell and of its children: {text}");
    let seconds = |name: &str| u(&said.end[name]) as f64 / 1e9;
    let cpu = seconds("command_user_ns") + seconds("command_system_ns");
    // The shell counts in ticks of 10 ms, and has to end yet; before, it was a child of ours that waited.
    let difference = cpu - by_itself.iter().sum::<f64>();
    assert!((-0.05..0.2).contains(&difference), "{by_itself:?}: {}", said.end);
    assert!(cpu > 0.05 && seconds("command_wall_ns") > 0.0, "{}", said.end);
    let cut = Said::by(&mut faults("auto", &["-d", "200ms", "--", "sleep", "1"]));
    assert!(cut.end["command_user_ns"].is_null(), "{}", cut.end);
}

/// What is for people makes way for the command's own output, what is for programs does not, and a table that says the
/// same as the one before it is left out.
pub fn tables_leave_standard_output_to_the_command(_: &'static str) {
    let said = |options: &[&str]| {
        let mut command = trapline();
        let output = command.arg("faults").args(options).args(["--", "echo", "its own"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap())
    };
    let [own, table] = said(&[]);
    assert_eq!(own, "its own\n");
    assert!(table.contains("TOTAL_MS") && table.contains("Totals, trapline faults by"), "{table}");
    for options in all_or_first([&["-i", "1m"][..], &["-i", "10ms", "-c"]]) {
        let [own, table] = said(options);
        assert_eq!(own, "its own\n");
        // The end of it is in the totals only.
        let last = table.matches("trapline faults by").count();
        let blocks = table.matches("\n     PID").count();
        assert!(last == blocks && (blocks == 1 || options.contains(&"-c")), "{options:?}: {table}");
        let sums: Vec<_> = table.lines().filter(|line| line.contains("- TOTAL ")).collect();
        assert!(!sums.windows(2).any(|two| two[0] == two[1]), "{table}");
    }
    let [lines, nothing] = said(&["-i", "1m", "--format", "jsonl"]);
    assert!(lines.contains("its own\n") && nothing.is_empty(), "{lines} {nothing}");
    // Whoever adds rows up has all of them.
    let kinds = |kind: &str| lines.matches(&format!("{{\"type\":\"{kind}\"")).count();
    assert!(kinds("row") > 0 && kinds("row") == kinds("total"), "{lines}");
}

/// Names that hold escape sequences and newlines reach no terminal, and break no line.
pub fn hostile_names(_: &'static str) {
    let name = "\x1b[2J\n\"=x";
    let dir = crate::run::scratch().join("hostile");
    std::fs::create_dir_all(&dir).unwrap();
    let program = dir.join(name);
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let arguments = ["--fixture", "touch", "50"];
    let said = Said::by(faults("auto", &["--"]).arg(&program).args(arguments));
    assert_eq!(said.totals[0]["comm"], name);
    for form in all_or_first(["table", "csv"]) {
        let mut command = trapline();
        let output =
            command.args(["faults", "--format", form, "--"]).arg(&program).args(arguments).output().unwrap();
        // A table is on standard error.
        let said = [output.stdout, output.stderr].concat();
        assert!(!said.contains(&0x1b), "{form}");
        let text = String::from_utf8(said).unwrap();
        assert!(text.contains("\\x1b[2J\\x0a"), "{form}: {text}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// A process can have an empty name; a function does not take its place.
pub fn an_empty_name(_: &'static str) {
    let script = "printf '\\000' > /proc/$$/comm; for i in 1 2 3; do x=$(echo $i); done";
    let of = |options: &[&str]| {
        let output =
            trapline().arg("faults").args(options).args(["--", "sh", "-c", script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let folded = of(&["--by", "stack", "--format", "folded"]);
    assert!(folded.contains("[no name];"), "{folded}");
    assert!(folded.lines().all(|line| !line.starts_with(';')), "{folded}");
    for form in ["table", "csv"] {
        assert!(of(&["--format", form]).contains("[no name]"), "{form}");
    }
    assert!(of(&["--format", "jsonl"]).contains("\"comm\":\"\""));
}

/// Not a timing test: bounds far above what was measured, to catch what is out of all proportion.
pub fn it_is_small(_: &'static str) {
    let mut trapline = Beside::start(faults("auto", &["-i", "100"]));
    runs_for_a_while(&mut trapline);
    let status = std::fs::read_to_string(format!("/proc/{}/status", trapline.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident_kb: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    trapline.interrupt();
    assert!(resident_kb < 30_000, "{resident_kb} kB are resident");
    println!("{resident_kb} kB resident");
}
