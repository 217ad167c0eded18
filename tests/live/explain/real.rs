//! Programs that are there anyway, and a file system that a program serves.

use std::process::Command;
use std::time::Duration;

use crate::faults::time::slow_file::{SlowFile, map_whole};
use crate::fixture::{PAGE, look};
use crate::run::{Said, fixture, scratch, trapline};

/// Where the file is that a program reads.
const FILE: &str = "TRAPLINE_TEST_FILE";

/// Nothing is said of programs that start, work and end as they should, with their files in memory.
pub fn nothing_stands_out_in_healthy_programs(_: &'static str) {
    let folder = tempfile::tempdir_in(scratch()).unwrap();
    let [file, source] = ["warm", "healthy.c"].map(|name| folder.path().join(name));
    std::fs::write(&file, vec![7u8; 8 << 20]).unwrap();
    std::fs::write(&source, "#include <stdio.h>\nint main(void) { return puts(\"healthy\") < 0; }\n")
        .unwrap();
    let [file, source] = [file, source].map(|path| path.to_str().unwrap().to_owned());
    let object = format!("{source}.o");
    for words in [
        &["sleep", "0.3"][..],
        &["cat", &file],
        &["sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done"],
        &["python3", "-c", "print(sum(range(300000)))"],
        &["cc", "-O1", "-c", &source, "-o", &object],
    ] {
        // What they need is in memory then.
        let Ok(output) = Command::new(words[0]).args(&words[1..]).output() else {
            print!("{} is not installed ", words[0]);
            continue;
        };
        assert!(output.status.success(), "{output:?}");
        let output = trapline().args(["explain", "--"]).args(words).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.starts_with("nothing stands out in "), "{words:?}: {text}");
    }
}

/// Reads each page of the file.
pub fn reads_all() {
    let memory = map_whole(std::env::var_os(FILE).unwrap().as_ref());
    (0..memory.len()).step_by(PAGE).for_each(|at| {
        look(&memory, at);
    });
}

/// A page takes as long as its server does, whatever the order.
pub fn a_file_that_a_program_serves(_: &'static str) {
    let file = SlowFile::mount(30, Duration::from_millis(10));
    let mut words = fixture("explain");
    words.push("reads-all".into());
    let mut explain = trapline();
    explain.args(["explain", "--format", "jsonl", "--"]).args(words).env(FILE, file.path());
    let said = Said::by(&mut explain);
    let found: Vec<_> = said.totals.iter().map(|total| total["rule"].clone()).collect();
    assert_eq!(found, ["slow-file-system"], "{:#?} {}", said.totals, said.end);
    let evidence = said.totals[0]["evidence"].as_str().unwrap();
    let place = file.path().display();
    assert!(
        evidence.starts_with("30 major faults, 1")
            && evidence.ends_with(&format!("fuse is mounted at {place}")),
        "{evidence}"
    );
}
