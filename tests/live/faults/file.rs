//! `--by file`: every fault goes to the file, or the sort of memory, that it was on.

pub mod fixture;

use std::process::Command;

use serde_json::Value;

use crate::run::{Beside, Said, all_or_first, faults, fixture, missed, one_line, sum, trapline, u};

fn by_file(variant: &str, options: &[&str], words: &[String]) -> Said {
    let mut command = faults(variant, &["--by", "file"]);
    Said::by(command.args(options).arg("--").args(words))
}

/// What one row is called.
fn named<'a>(records: &'a [Value], file: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["file"] == file).collect()
}

/// The rows together are what wait4 says, threads and children and all.
pub fn rows_add_up(variant: &'static str) {
    let mut kinds = fixture("wait4");
    kinds.extend(fixture("kinds"));
    kinds.push("3".into());
    let said = by_file(variant, &["-i", "50ms"], &kinds);
    let truth = said.truth.iter().find(|truth| truth["what"] == "wait4").unwrap();
    // The fixture's own faults, before and after those of the child that it waits for, are in the rows too.
    let all = sum(&said.totals, |_| true);
    assert!(all.0 >= u(&truth["major"]) && all.1 >= u(&truth["minor"]), "{all:?} of {truth}");
    assert_eq!(u(&said.end["events"]), all.0 + all.1);
    assert_eq!(said.end["unattributed_faults"], 0);
    assert_eq!(sum(&said.rows, |_| true), all);
    said.times_add_up("file");
    let heap = named(&said.totals, "[anon]");
    assert!(heap.len() == 1 && u(&heap[0]["minor"]) > 100, "{:?}", said.totals);
    let own = std::env::current_exe().unwrap();
    assert_eq!(named(&said.totals, own.to_str().unwrap()).len(), 1, "{:?}", said.totals);
}

/// How we call what /proc/PID/maps calls so.
fn as_shown(name: &str) -> String {
    let bare = name.strip_suffix(" (deleted)").unwrap_or(name);
    match bare {
        "" => "[anon]".into(),
        "/dev/zero" if bare != name => "[shmem]".into(),
        "/anon_hugepage" if bare != name => "[hugetlb]".into(),
        "/memfd:large" => "[hugetlb] memfd:large".into(),
        "[heap]" | "[stack]" => name.into(),
        _ if bare.starts_with("/memfd:") || bare.starts_with("/SYSV") => format!("[shmem] {}", &bare[1..]),
        _ if bare.starts_with("[anon:") => "[anon]".into(),
        _ if bare.starts_with('[') => "[special]".into(),
        _ => name.into(),
    }
}

/// Each fault is shown with the file that is mapped there and the place in it: by the fixture, which knows what it
/// touched, and for all the rest by /proc/PID/maps.
pub fn every_fault_has_its_file(variant: &'static str) {
    let said = with_truth(&mut faults(variant, &["-v"]));
    let seen = |pid: &Value| {
        let pid = pid.clone();
        said.events.iter().filter(move |e| e["pid"] == pid && !e["addr"].is_null())
    };
    let inside =
        |event: &Value, truth: &Value| (u(&truth["start"])..u(&truth["end"])).contains(&u(&event["addr"]));
    for truth in said.truth.iter().filter(|truth| truth["what"] == "touched") {
        let faults: Vec<_> = seen(&truth["pid"]).filter(|event| inside(event, truth)).collect();
        let is_whole = said.is_but_for_missed(faults.len() as u64, u(&truth["faults"]), 1);
        assert!(is_whole, "{truth}: {faults:#?} {}", said.end);
        for fault in faults {
            let offset = truth["offset"].as_u64().map(|from| from + u(&fault["addr"]) - u(&truth["start"]));
            assert_eq!((&fault["file"], fault["offset"].as_u64()), (&truth["file"], offset), "{fault}");
            assert_eq!((u(&fault["addr"]) - u(&truth["start"])) % u(&truth["stride"]), 0, "{fault} {truth}");
        }
    }
    let maps: Vec<_> = said.truth.iter().filter(|truth| truth["what"] == "map").collect();
    let (mut told, mut gone) = (0, 0);
    // Before the program began, other things were in the same places.
    for fault in seen(&maps[0]["pid"]).filter(|fault| u(&fault["time_ns"]) > u(&maps[0]["began_ns"])) {
        let Some(map) = maps.iter().find(|map| inside(fault, map)) else {
            gone += 1;
            continue;
        };
        told += 1;
        let file = as_shown(map["name"].as_str().unwrap());
        let has_offset = !file.starts_with('[') || file.contains(' ');
        let offset = has_offset.then(|| u(&map["offset"]) + u(&fault["addr"]) - u(&map["start"]));
        assert_eq!(
            (fault["file"].as_str(), fault["offset"].as_u64()),
            (Some(&*file), offset),
            "{fault} {map}"
        );
    }
    let missed = missed(&said.end);
    // What was unmapped before the end: of threads.
    assert!(
        told + missed > 200 && told > 10 * gone,
        "{told} faults in what is mapped at the end, {gone} elsewhere, {missed} missed"
    );
}

/// The same as rows: as many faults as there were, from the first page to the last, and nothing left over.
pub fn every_row_has_its_faults(variant: &'static str) {
    let beside = Beside::start(faults(variant, &["--by", "process"]));
    let said = with_truth(&mut faults(variant, &["--by", "file"]));
    let beside = beside.interrupt();
    let touched: Vec<_> = said.truth.iter().filter(|truth| truth["what"] == "touched").collect();
    for truth in touched.iter().filter(|truth| truth["offset"].is_u64() || truth["file"] == "[shmem]") {
        let same = || touched.iter().filter(|other| other["file"] == truth["file"]);
        let rows = named(&said.totals, truth["file"].as_str().unwrap());
        let [row] = rows[..] else { panic!("{} rows for {truth}", rows.len()) };
        let (count, expected) = (u(&row["major"]) + u(&row["minor"]), same().map(|t| u(&t["faults"])).sum());
        assert!(said.is_but_for_missed(count, expected, 1), "{row} {truth} {}", said.end);
        let range = [&row["offset"], &row["offset_end"]].map(Value::as_u64);
        let whole = [
            same().filter_map(|t| t["first"].as_u64()).min(),
            same().filter_map(|t| t["last"].as_u64()).max(),
        ];
        let is_inside = range[0] >= whole[0] && range[1] <= whole[1];
        assert!(if count == expected { range == whole } else { is_inside }, "{row} {truth}");
        assert!(u(&row["max_ns"]) > 0 && said.is_but_for_missed(u(&row["timed"]), count, 1), "{row}");
    }
    let missed = missed(&said.end);
    for class in ["[anon]", "[heap]", "[stack]"] {
        let row = named(&said.totals, class)[0];
        let least: u64 = touched.iter().filter(|t| t["file"] == class).map(|t| u(&t["faults"])).sum();
        let least = least.saturating_sub(missed).max(1);
        assert!(u(&row["minor"]) >= least && row["offset"].is_null(), "{row}");
    }
    let rest = named(&said.totals, "(not attributed)");
    // What the command's process did before anything was attached: it is counted from its birth, and then waits. Nothing
    // that this fixture does is done on its behalf, so it is no more with the variant that could not see that.
    assert!(
        rest.iter()
            .all(|row| { u(&row["minor"]) < 60 + missed && u(&row["major"]) <= missed && row["timed"] == 0 }),
        "{rest:?} {}",
        said.end
    );
    // By the kernel's own accounting of the same processes, which another instance watched.
    let pids: Vec<_> = touched.iter().map(|truth| &truth["pid"]).collect();
    assert_eq!(sum(&said.totals, |_| true), sum(&beside.totals, |total| pids.contains(&&total["pid"])));
}

/// Runs the fixture.
pub fn with_truth(command: &mut Command) -> Said {
    let said = Said::by(command.arg("--").args(fixture("files")));
    sweep();
    assert!(said.truth.len() > 30);
    assert_eq!((&said.end["lost_events"], &said.end["unpaired_faults"]), (&0.into(), &0.into()));
    said
}

/// Removes what fixtures have left: the places of mounts that only they saw.
fn sweep() {
    for entry in std::fs::read_dir(crate::run::scratch()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("files-") {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
    }
}

/// Names of files that hold escape sequences and newlines reach no terminal, and break no line.
pub fn hostile_names(_: &'static str) {
    let forms = [("table", &["--by", "file"][..]), ("csv", &["--by", "file"]), ("table", &["-v"])];
    for (format, options) in all_or_first(forms) {
        let mut command = trapline();
        command.args(["faults", "--format", format]).args(options);
        let script = r#"exec "$1" --fixture files > /dev/null"#;
        command.args(["--", "sh", "-c", script, "sh"]).arg(std::env::current_exe().unwrap());
        let output = command.output().unwrap();
        // A table is on standard error.
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success() && !said.contains(&0x1b), "{format} {options:?}");
        let text = String::from_utf8(said).unwrap();
        // In CSV a quotation mark is doubled.
        let name = ["/\\x1b[2J\\x0a\",x", "/\\x1b[2J\\x0a\"\",x"].map(|name| text.contains(name));
        assert!(name[0] || name[1], "{format}: {text}");
        assert!(text.contains("memfd:a name\\x1b[2J"), "{format}: {text}");
    }
    sweep();
}

/// A variant that sees no single fault says so.
pub fn counters_are_refused(_: &'static str) {
    let output = faults("counters", &["--by", "file", "-d", "100ms"]).output().unwrap();
    one_line(&output, 2, "sees no single fault");
    let mut command = trapline();
    let output = command.args(["faults", "--by", "files"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
