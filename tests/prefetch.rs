//! `trapline prefetch`: what is read ahead, what is left out and why, and whose status it has. Without privilege.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

fn trapline(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).output().unwrap()
}

fn error_of(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A recording of faults at these offsets.
fn recording(faults: &[(&str, u64)]) -> String {
    let header = r#"{"type":"header","schema":2,"tool":"faults","variant":"x","version":"0","host":"h","kernel":"k","start":"2026-01-01T00:00:00Z","start_ns":1,"tables":["faults.thread"],"events":"faults.fault"}"#;
    let event = |(file, offset): &(&str, u64)| {
        format!(
            "{{\"type\":\"event\",\"time_ns\":2,\"pid\":1,\"tid\":1,\"comm\":\"x\",\"kind\":\"major\",\"file\":{},\
             \"offset\":{offset}}}\n",
            serde_json::json!(file)
        )
    };
    let events: String = faults.iter().map(event).collect();
    let end = r#"{"type":"end","duration_ns":5,"events":3,"lost_events":0,"sampled":1,"own_cpu_ns":5}"#;
    format!("{header}\n{events}{end}\n")
}

/// A list with these ranges: the file, its offset and length, and what the file was.
fn list(ranges: &[(&str, u64, u64, [u64; 3])]) -> String {
    let header = r#"{"type":"header","schema":2,"tool":"prefetch","variant":"x","version":"0","host":"h","kernel":"k","start":"2026-01-01T00:00:00Z","start_ns":1,"tables":["prefetch.range"]}"#;
    let range = |(file, offset, length, [size, mtime, inode]): &(&str, u64, u64, [u64; 3])| {
        format!(
            "{{\"type\":\"total\",\"time_ns\":2,\"table\":\"prefetch.range\",\"file\":{},\"offset\":{offset},\
             \"length\":{length},\"size\":{size},\"mtime_ns\":{mtime},\"inode\":{inode}}}\n",
            serde_json::json!(file)
        )
    };
    let ranges: String = ranges.iter().map(range).collect();
    let end = r#"{"type":"end","duration_ns":5,"events":3,"lost_events":0,"sampled":1,"own_cpu_ns":5}"#;
    format!("{header}\n{ranges}{end}\n")
}

fn identity(path: &Path) -> [u64; 3] {
    let meta = fs::metadata(path).unwrap();
    [meta.size(), (meta.mtime() * 1_000_000_000 + meta.mtime_nsec()).cast_unsigned(), meta.ino()]
}

#[test]
fn a_recording_becomes_a_list_that_is_read_and_leaves_out_what_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (kept, changed) = (file("kept"), file("changed"));
    fs::write(&kept, vec![1; 300_000]).unwrap();
    fs::write(&changed, vec![1; 300_000]).unwrap();
    let faults = [(&*kept, 290_000), ("[heap]", 0), (&changed, 0), (&kept, 5000), (&file("gone"), 0)];
    fs::write(file("run.jsonl"), recording(&faults)).unwrap();
    let made = trapline(&["replay", &file("run.jsonl"), "--prefetch", "-o", &file("list.jsonl")]);
    assert!(made.status.success(), "{made:?}");
    let text = fs::read_to_string(file("list.jsonl")).unwrap();
    let ranges: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|line: &serde_json::Value| line["type"] == "total")
        .collect();
    let of = |at: usize| {
        (ranges[at]["file"].as_str().unwrap(), ranges[at]["offset"].as_u64(), ranges[at]["length"].as_u64())
    };
    assert_eq!(ranges.len(), 3, "{text}");
    assert_eq!(of(0), (&*kept, Some(262_144), Some(300_000 - 262_144)));
    assert_eq!(of(1), (&*changed, Some(0), Some(65_536)));
    assert_eq!(of(2), (&*kept, Some(0), Some(65_536)));
    assert!(text.contains("\"unlisted_files\":1"), "{text}");
    fs::write(&changed, vec![1; 300_001]).unwrap();
    let read = trapline(&["prefetch", &file("list.jsonl")]);
    let said = error_of(&read);
    assert!(read.status.success() && read.stdout.is_empty(), "{said}");
    assert!(said.contains("2 ranges of 1 files; files left out: 1\n"), "{said}");
    assert!(said.contains(&format!("left out {changed}: it has changed since the list was made")), "{said}");
}

/// A list that anybody may have written: nothing but a regular file is opened, by no link, and nothing is waited for.
#[test]
fn hostile_lists_open_no_pipe_no_device_and_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(file("a"), vec![1; 200_000]).unwrap();
    let a = identity(Path::new(&file("a")));
    assert!(Command::new("mkfifo").arg(file("pipe")).status().unwrap().success());
    std::os::unix::fs::symlink(file("a"), file("link")).unwrap();
    fs::create_dir(file("folder")).unwrap();
    std::os::unix::fs::symlink(file("folder"), file("way")).unwrap();
    fs::write(file("folder/b"), "b").unwrap();
    let newline = file("x\n\u{1b}[2J");
    fs::write(&newline, "x").unwrap();
    let huge = u64::MAX / 2;
    let [pipe, link, folder_b, through] = ["pipe", "link", "folder", "way/b"].map(file);
    let of = |path: &str| identity(Path::new(path));
    let ranges = [
        (&*file("a"), 100_000, huge, a),
        (&pipe, 0, 10, of(&pipe)),
        ("/dev/zero", 0, huge, of("/dev/zero")),
        ("/dev/null", 0, 10, of("/dev/null")),
        (&link, 0, 10, a),
        (&folder_b, 0, 10, of(&folder_b)),
        (&through, 0, 1, of(&file("folder/b"))),
        ("etc/passwd", 0, 10, a),
        ("", 0, 10, a),
        (&newline, 0, 1, of(&newline)),
        ("/nosuch", 0, 10, a),
    ];
    fs::write(file("l.jsonl"), list(&ranges)).unwrap();
    let read = trapline(&["prefetch", &file("l.jsonl")]);
    let said = error_of(&read);
    assert!(read.status.success(), "{said}");
    assert!(
        said.contains("read ahead 97 kB in ") && said.contains(": 1 ranges of 1 files; files left out: 10"),
        "{said}"
    );
    for (path, why) in [
        (&*pipe, "it is not a regular file"),
        ("/dev/zero", "it is not a regular file"),
        ("/dev/null", "it is not a regular file"),
        (&folder_b, "it is not a regular file"),
        (&link, "ELOOP"),
        (&through, "ELOOP"),
        ("etc/passwd", "it is not an absolute path"),
        ("/nosuch", "ENOENT"),
    ] {
        let line = said.lines().find(|line| line.contains(&format!("left out {path}: ")));
        assert!(line.is_some_and(|line| line.contains(why)), "{path}: {said}");
    }
    assert!(said.contains("control characters") && !said.contains('\u{1b}'), "{said}");
    // Ranges that are in no file, and of another file by the same name.
    let [size, mtime, inode] = a;
    for (offset, length, of, why) in [
        (size, 1, a, "is not in the file"),
        (u64::MAX / 2, huge, a, "is not in the file"),
        (0, 0, a, "is not in the file"),
        (0, 10, [size, mtime + 1, inode], "has changed"),
        (0, 10, [size, mtime, inode + 1], "has changed"),
        (0, 10, [size + 1, mtime, inode], "has changed"),
    ] {
        fs::write(file("l.jsonl"), list(&[(&*file("a"), offset, length, of)])).unwrap();
        let said = error_of(&trapline(&["prefetch", &file("l.jsonl")]));
        assert!(said.contains(why) && said.contains("0 ranges of 0 files"), "{said}");
    }
}

#[test]
fn what_is_no_list_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let refused = |text: &str, why: &str| {
        fs::write(file("l.jsonl"), text).unwrap();
        let output = trapline(&["prefetch", &file("l.jsonl")]);
        let said = error_of(&output);
        assert!(output.status.code() == Some(1) && said.contains(why), "{said}");
    };
    refused("", "it is empty");
    refused(&recording(&[]), "it is a recording of `faults`, not of `prefetch`");
    let good = list(&[("/a", 0, 1, [1, 1, 1])]);
    refused(&good.replace("\"length\":1", "\"length\":-1"), "`length` is not a whole number");
    refused(&good.replace("\"length\":1", "\"length\":null"), "a range lacks a value");
    refused(&good[..good.len() - 5], "cut off");
    let thread = recording(&[]).replace("\"faults.fault\"", "null");
    fs::write(file("t.jsonl"), thread).unwrap();
    let output = trapline(&["replay", &file("t.jsonl"), "--prefetch"]);
    assert!(output.status.code() == Some(2) && error_of(&output).contains("faults -v"), "{output:?}");
}

#[test]
fn with_a_command_the_status_and_the_output_are_the_commands() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(file("a"), vec![1; 200_000]).unwrap();
    fs::write(file("l.jsonl"), list(&[(&*file("a"), 0, 200_000, identity(Path::new(&file("a"))))])).unwrap();
    let run = |command: &[&str]| trapline(&[&["prefetch", &file("l.jsonl"), "--"], command].concat());
    let done = run(&["sh", "-c", "echo out; exit 7"]);
    assert_eq!((done.status.code(), &*done.stdout), (Some(7), &b"out\n"[..]), "{done:?}");
    let killed = run(&["sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.status.code(), Some(128 + 9));
    let none = run(&["/nosuch/command"]);
    assert_eq!(none.status.code(), Some(127), "{none:?}");
    assert!(error_of(&none).contains("ENOENT"), "{none:?}");
    // The list is read before the command is started.
    let refused = trapline(&["prefetch", &file("nosuch"), "--", "touch", &file("started")]);
    assert!(refused.status.code() == Some(1) && !Path::new(&file("started")).exists());
}
