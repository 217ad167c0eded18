//! Functions of instructions that access, of programs whose functions are known.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::access::{access, touched};
use crate::run::{Said, trapline, u};

/// Every access to the memory that is touched names the function that touched it.
pub fn the_function_of_each_access(engine: &'static str) {
    let touch = ["--on", "file", "--pages", "40", "--rounds", "4", "--threads", "2", "--access", "both"];
    let run = touched(engine, &["--symbols"], &touch);
    assert_eq!(run.header["symbols"], 1);
    let ranges: HashMap<&str, (u64, u64)> = run
        .truth
        .iter()
        .filter(|line| line["type"] == "function")
        .map(|f| (f["name"].as_str().unwrap(), (u(&f["start"]), u(&f["end"]))))
        .collect();
    assert_eq!(ranges.len(), 4);
    let inside =
        |ip: u64| ranges.iter().find(|(_, range)| (range.0..range.1).contains(&ip)).map(|(name, _)| *name);
    let accesses: Vec<&Value> = run.events.iter().filter(|event| event["event"] == "access").collect();
    let mut met = HashSet::new();
    for access in &accesses {
        let symbol = access["symbol"].as_str();
        match inside(u(&access["ip"])) {
            Some(name) => {
                assert_eq!(symbol, Some(name), "{access}");
                met.insert(name);
            }
            None => assert!(symbol.is_none_or(|symbol| !ranges.contains_key(symbol)), "{access}"),
        }
    }
    assert_eq!(met.len(), 4, "{met:?}");
    // The C library and the loader have symbols, or at least a place in a file.
    let named = accesses.iter().filter(|access| !access["symbol"].is_null()).count();
    println!("{named} of {} accesses have a name", accesses.len());
    assert!(named * 10 > accesses.len() * 9, "{named} of {}", accesses.len());
}

/// Programs that have ended before anybody could look at them: each access has its function and its place in the file.
pub fn of_programs_that_came_and_went(engine: &'static str) {
    const PROGRAMS: usize = 20;
    let own = env!("CARGO_BIN_EXE_trapline");
    let touch = format!("{own} workload touch --on file --pages 3 --rounds 1");
    let script = format!("for i in $(seq {PROGRAMS}); do {touch} > /dev/null; done");
    let (mut command, file) = access(engine, &["--symbols", "--", "sh", "-c", &script]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let run = Said::recorded(file.lines(), &[]);
    let accesses: Vec<&Value> = run.events.iter().filter(|event| event["event"] == "access").collect();
    let mut touched: HashMap<u64, Vec<u64>> = HashMap::new();
    for access in accesses.iter().filter(|access| access["symbol"] == "touch_write_even") {
        let path = access["file"].as_str().unwrap_or_default();
        assert!(path.contains("/trapline-touch-"), "{access}");
        touched.entry(u(&access["pid"])).or_default().push(u(&access["offset"]));
    }
    assert_eq!(touched.len(), PROGRAMS);
    assert!(touched.values().all(|offsets| *offsets == [0, 0x1000, 0x2000]), "{touched:?}");
    let unknown: Vec<_> = accesses.iter().filter(|access| access["file"].is_null()).collect();
    assert!(unknown.is_empty(), "{unknown:#?}");
    assert_eq!(u(&run.end["dropped_mapping_records"]), 0);
}

/// In the lines for people: the function, and what is mapped at the address.
pub fn the_lines_have_them(engine: &'static str) {
    let own = env!("CARGO_BIN_EXE_trapline");
    let touch = ["workload", "touch", "--on", "file", "--pages", "3", "--rounds", "1"];
    let run = |symbols: &[&str]| {
        let command = [&["access", "--reset", engine], symbols, &["--", own], &touch].concat();
        let output = trapline().args(command).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        text.lines().filter(|line| line.contains("handle_mm_fault")).map(str::to_owned).collect::<Vec<_>>()
    };
    let with = run(&["--symbols"]);
    let touched: Vec<_> = with.iter().filter(|line| line.contains(" touch_write_even ")).collect();
    assert!(touched.len() >= 3, "{with:#?}");
    for offset in ["+0x0", "+0x1000", "+0x2000"] {
        let line = touched.iter().find(|line| line.contains(&format!("{offset} first")));
        assert!(line.is_some_and(|line| line.contains("/trapline-touch-")), "{offset}: {touched:#?}");
    }
    let without = run(&[]);
    assert!(
        without.len() >= 3 && without.iter().all(|line| !line.contains("touch_write_even")),
        "{without:#?}"
    );
}
