//! `--unwind tables`: the callers of code without frame pointers, as the debugger has them at the same instruction.

pub mod programs;

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::run::{Beside, Said, Source, faults, sum, u};
use crate::running::Worker;

const WITHOUT: &[&str] =
    &["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls", "-fno-inline", "-pthread"];

/// The program as the distribution would build it, and stripped, and static.
pub const CHAINS: Source = Source { compiler: "gcc", file: "faults/unwind/chains.c", options: WITHOUT };
pub const THROWN: Source = Source { compiler: "g++", file: "faults/unwind/thrown.cpp", options: WITHOUT };
/// As released; without the lines of the standard library, which only one of the two debug formats' readers may know.
pub const PANICS: Source = Source {
    compiler: "rustc",
    file: "faults/unwind/panics.rs",
    options: &["--edition=2024", "-Copt-level=3", "-Cforce-frame-pointers=no", "-Cstrip=debuginfo"],
};

/// Pages that a program touches at the end of its chain.
const PAGES: u64 = 32;

/// The functions of the thread that stops at the instruction, outermost first; nothing for one without a name. The kernel's
/// frame of a signal is `<`.
fn by_debugger(program: &Path, mode: &str) -> Vec<Option<String>> {
    let commands = [
        "set confirm off",
        "set debuginfod enabled off",
        "set backtrace past-main on",
        "handle SIGUSR1 nostop noprint pass",
    ];
    let run = ["break *touch_here", "run", "bt"];
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch"]);
    commands.iter().chain(&run).for_each(|command| {
        gdb.args(["-ex", command]);
    });
    let output = gdb.arg("--args").arg(program).arg(mode).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let frames = text.lines().filter(|line| line.starts_with('#'));
    let name = |line: &str| {
        let rest = line.split_once(' ')?.1.trim_start();
        let rest = if rest.starts_with("0x") { rest.split_once(" in ")?.1 } else { rest };
        let name = rest.split(" (").next()?.trim();
        (name != "??")
            .then(|| if name.starts_with("<signal") { "<".to_owned() } else { without_hashes(name) })
    };
    let mut frames: Vec<_> = frames.map(name).collect();
    assert!(frames.len() > 2, "{text} {}", String::from_utf8_lossy(&output.stderr));
    frames.reverse();
    frames
}

/// Debuggers of some versions leave the hash of a function's name, `::h` and 16 digits, and that of its crate, in brackets.
fn without_hashes(name: &str) -> String {
    let is_hash = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = name.rsplit_once("::h").filter(|(_, hash)| is_hash(hash)).map_or(name, |(name, _)| name);
    let mut parts = name.split('[').map(|part| match part.split_once(']') {
        Some((hash, rest)) if is_hash(hash) => rest.to_owned(),
        _ => format!("[{part}"),
    });
    let first = parts.next().unwrap_or_default();
    parts.fold(first.trim_start_matches('[').to_owned(), |name, part| name + &part)
}

/// The frames in user mode of the row that has the faults on all pages.
fn by_tables(said: &Said) -> Vec<String> {
    let of_pages = |row: &&Value| u(&row["minor"]) >= PAGES && row["stack"].as_str().is_some_and(is_in_user);
    let mut rows = said.totals.iter().filter(of_pages);
    let row = rows.next().unwrap_or_else(|| panic!("no row has {PAGES} faults: {:#?}", said.totals));
    row["stack"].as_str().unwrap().split(';').skip(1).map(str::to_owned).collect()
}

fn is_in_user(stack: &str) -> bool {
    !stack.contains("_[k]") && stack.contains("touch_")
}

fn compare(variant: &str, program: &Path, mode: &str) {
    let options = ["--by", "stack", "--unwind", "tables", "--"];
    let said = Said::by(faults(variant, &options).arg(program).arg(mode));
    assert_eq!(said.header["unwind"], "tables");
    let (ours, theirs) = (by_tables(&said), by_debugger(program, mode));
    // Of a part that the compiler has moved elsewhere, the debugger writes `main[cold]`.
    let plain = |name: &str| name.split(['(', '@', '.', '[']).next().unwrap_or_default().to_owned();
    let same = |(ours, theirs): (&String, &Option<String>)| match theirs {
        // What handlers return to has a name in the file; and the instruction that faults has one of its own.
        Some(name) if name == "<" => true,
        Some(name) if name.starts_with("touch_") => ours.starts_with("touch_"),
        Some(name) => plain(ours) == plain(name),
        None => ours.contains("+0x") || !ours.starts_with('['),
    };
    let is_same = ours.len() == theirs.len() && ours.iter().zip(&theirs).all(same);
    assert!(is_same, "{mode}: {ours:#?} is not {theirs:#?}");
}

/// Recursion, alloca, a signal's handler, a callback of the C library, a frame that aligns its stack, another thread.
pub fn chains_are_those_of_the_debugger(variant: &'static str) {
    let program = CHAINS.program();
    for mode in ["plain", "recursion", "alloca", "signal", "library", "aligned", "thread"] {
        compare(variant, &program, mode);
    }
    compare(variant, &THROWN.program(), "");
    compare(variant, &PANICS.program(), "");
    let other = |name: &str, options: &[&str]| {
        let path = program.with_file_name(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live").join(CHAINS.file);
        let made = Command::new("gcc").args(WITHOUT).args(options).arg("-o").arg(&path).arg(source).status();
        assert!(made.unwrap().success());
        path
    };
    compare(variant, &other("chains-static", &["-static"]), "signal");
    // The debugger stops where a symbol says: the chain is that of the same program with its symbols.
    let (whole, stripped) =
        (other("chains-whole", &["-no-pie"]), other("chains-stripped", &["-no-pie", "-s"]));
    let options = ["--by", "stack", "--unwind", "tables", "--"];
    let [whole, stripped] = [whole, stripped].map(|program| {
        let said = Said::by(faults(variant, &options).arg(program).arg("recursion"));
        let rows = said.totals.iter().filter(|row| u(&row["minor"]) >= PAGES);
        let depth = |row: &Value| row["stack"].as_str().unwrap().split(';').count();
        rows.map(depth).max().unwrap()
    });
    assert!(whole > 100, "{whole}");
    assert_eq!(whole, stripped);
}

/// A file that another program is written into has that one's table; and while a program is loaded there is no stack in user mode.
pub fn a_program_that_is_written_anew(variant: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/faults/unwind/anew.c");
    let [first, second, program] = ["first", "second", "anew"].map(|name| directory.path().join(name));
    for (path, room) in [(&first, "-DROOM=16"), (&second, "-DROOM=8192")] {
        let made = Command::new("gcc").args(WITHOUT).arg(room).arg("-o").arg(path).arg(&source).status();
        assert!(made.unwrap().success());
    }
    std::fs::copy(&first, &program).unwrap();
    let script = "./anew && ./anew && sleep 1 && cat second > anew && ./anew && sleep 1 && ./anew";
    let mut command = faults(variant, &["--by", "stack", "--unwind", "tables", "--", "sh", "-c", script]);
    let said = Said::by(command.current_dir(directory.path()));
    let is_of = |what: &'static str| move |row: &Value| row["stack"].as_str().unwrap().contains(what);
    let is_whole = |row: &Value| {
        let stack = row["stack"].as_str().unwrap();
        stack.starts_with("anew;_start;") && stack.ends_with(";main;middle;touch_all")
    };
    let of_touching: Vec<_> = said.totals.iter().filter(|row| is_of("touch_all")(row)).collect();
    let [all, whole] = [sum(&said.totals, is_of("touch_all")).1, sum(&said.totals, is_whole).1];
    // The first run of the new program may be over before it has a table: its callers are missing then, and none is wrong.
    let late = u(&said.end["late_stacks"]);
    let is_right = all == 4 * PAGES && whole >= 3 * PAGES && all - whole <= late;
    assert!(is_right, "{all}, {whole}: {of_touching:#?} {}", said.end);
    let known = ["anew", "[no unwind table yet]", "middle", "touch_all"];
    for row in of_touching.iter().filter(|row| !is_whole(row)) {
        assert!(row["stack"].as_str().unwrap().split(';').all(|frame| known.contains(&frame)), "{row}");
    }
    let of_exec =
        |row: &Value| is_of("execve_[k]")(row) && row["stack"].as_str().unwrap().starts_with("anew;");
    assert!(sum(&said.totals, of_exec).1 > 0, "{:#?}", said.totals);
    for row in said.totals.iter().filter(|row| of_exec(row)) {
        let frames = row["stack"].as_str().unwrap().split(';').skip(1);
        assert!(frames.clone().all(|frame| frame.ends_with("_[k]")), "{row}");
    }
}

/// Each kernel takes the walk. By frame pointers the same chain has lost its callers: the tables are what finds them.
pub fn frame_pointers_find_less(variant: &'static str) {
    let said = |how| {
        Said::by(
            faults(variant, &["--by", "stack", "--unwind", how, "--"]).arg(CHAINS.program()).arg("recursion"),
        )
    };
    let by_tables_said = said("tables");
    assert_eq!(by_tables_said.header["unwind"], "tables");
    let frames = by_tables(&by_tables_said);
    let is_whole = frames[0] == "_start" && frames.iter().filter(|name| *name == "recursion").count() == 101;
    assert!(is_whole, "{frames:#?}");
    let said = said("fp");
    assert_eq!(said.header["unwind"], "fp");
    assert_eq!(said.end["partial_stacks"], Value::Null);
    let frames = by_tables(&said);
    assert!(frames.len() < 50, "{frames:#?}");
}

/// Of programs that start others, and of those that load libraries as they run, nearly all faults have a whole chain, also those before
/// the tables of their files were made. By default.
pub fn programs_that_just_began_are_unwound(variant: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("functions.c");
    let function =
        |n: u32| format!("int f{n}(int x) {{ int s = {n}; while (x--) s += s * x + {n}; return s; }}\n");
    std::fs::write(&source, (0..600).map(function).collect::<String>()).unwrap();
    let script = "import json, decimal, sqlite3\nx = [json.dumps({'a': [i] * 50}) for i in range(5000)]";
    let table = "create table t(a, b); with recursive c(n) as (select 1 union all select n + 1 from c where n < 50000)
        insert into t select n, n * 7 from c; create index i on t(b);";
    let output = directory.path().join("functions.o");
    let [source, output] = [&source, &output].map(|path| path.to_str().unwrap());
    for (command, most) in [
        (vec!["gcc", "-O2", "-c", "-o", output, source], 20),
        (vec!["/usr/bin/python3", "-c", script], 20),
        (vec!["sqlite3", ":memory:", table], 20),
    ] {
        let said = Said::by(faults(variant, &["--by", "stack", "--"]).args(&command));
        assert_eq!(said.header["unwind"], "tables");
        // What the kernel faults in by itself while it makes a process has no stack.
        let all = sum(&said.totals, |row| row["stack"].as_str().is_some_and(|it| !it.starts_with('('))).1;
        let short = ["late_stacks", "partial_stacks", "lost_stacks"]
            .map(|loss| u(&said.end[loss]))
            .iter()
            .sum::<u64>();
        println!("{}: {short} of {all} faults have no whole chain: {}", command[0], said.end);
        assert!(all > 400 && short * 1000 <= all * most, "{command:?}: {short} of {all}: {}", said.end);
    }
}

/// Of the interpreter, which no distribution builds with frame pointers, nearly all faults have a whole chain: what it has mapped
/// by then has its tables.
pub fn python_is_unwound(variant: &'static str) {
    let script = "import json, re, decimal, sys\nprint('ready', flush=True)\nsys.stdin.readline()\n\
                  x = [json.dumps({'a': [i] * 50}) for i in range(20000)]\nprint('done', flush=True)\nsys.stdin.readline()";
    let mut python = Worker::by(Command::new("/usr/bin/python3").args(["-c", script]));
    assert_eq!(python.line().trim(), "ready");
    let pid = python.id().to_string();
    let tracer =
        Beside::start(faults(variant, &["--by", "stack", "--unwind", "tables", "-i", "50ms", "-p", &pid]));
    python.tell("");
    assert_eq!(python.line().trim(), "done");
    let said = tracer.interrupt();
    let taken = |row: &Value| row["stack"].as_str().is_some_and(|stack| !stack.starts_with('('));
    let all = sum(&said.totals, taken).1;
    let is_whole = |row: &Value| {
        let stack = row["stack"].as_str().unwrap_or_default();
        taken(row) && !stack.split(';').nth(1).unwrap_or_default().starts_with('[')
    };
    let whole = sum(&said.totals, is_whole).1.saturating_sub(u(&said.end["late_stacks"]));
    println!("python3: {whole} of {all} faults have a whole chain");
    assert!(all > 1000 && whole * 100 >= all * 98, "{whole} of {all}: {:#?} {}", said.totals, said.end);
}
