//! The picture of a report in the README, which is of the page as it is: the checksum of the page is in the picture.
//!
//! `INSTA_UPDATE=always cargo test --test exports picture` makes it anew.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::browser::Browser;

/// What stands before the checksum.
const MARK: &[u8] = b"tEXtPage\0";

/// A database that reads a cold file, a server that copies memory after a fork, and a program that fills fresh memory.
fn recording() -> String {
    let mut seed: u64 = 1;
    let mut below = move |most: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % most
    };
    let fault = |time: u64, whom: (u64, &str), cause: (&str, &str), offset: u64, took: u64, waits: bool| {
        let (pid, comm) = whom;
        let io = if waits { took - took / 9 } else { 0 };
        json!({
            "type": "event", "time_ns": time, "pid": pid, "tid": pid, "start_ns": 5, "comm": comm,
            "kind": if waits { "major" } else { "minor" }, "addr": 4096 + offset, "ip": 4096, "rw": if waits { "R" } else { "W" },
            "latency_ns": took, "wait_ns": io, "cause": cause.0, "file": cause.1, "offset": offset, "process_comm": comm,
            "process_start_ns": 5, "cgroup": "/", "lock_ns": 0, "io_ns": io, "reclaim_ns": 0, "throttled_ns": 0, "preempted_ns": 0,
            "sleep_ns": 0, "kernel_ns": took - io,
        })
    };
    let mut faults: Vec<Value> = (0..2400)
        .map(|n| {
            let time = n * 1_600_000 + below(900_000);
            let is_busy = (1_300_000_000..2_300_000_000).contains(&time);
            let slow = if below(40) == 0 { 12 } else { 1 + 3 * u64::from(is_busy) };
            let file =
                if is_busy && n % 3 == 0 { "/srv/db/base/16384/24610" } else { "/srv/db/base/16384/24601" };
            let took = (90_000 + below(160_000)) * slow;
            fault(time, (310 + n % 2, "postgres"), ("file-read", file), below(1 << 18) << 12, took, true)
        })
        .collect();
    faults.extend((0..1500).map(|n| {
        let time = 2_500_000_000 + n * 500_000;
        fault(time, (640, "redis-server"), ("copy-on-write", "[heap]"), n << 12, 4000 + below(30_000), false)
    }));
    faults.extend((0..900).map(|n| {
        fault(n * 700_000, (777, "python3"), ("zero-fill", "[anon]"), n << 12, 900 + below(9000), false)
    }));
    faults.sort_by_key(|fault| fault["time_ns"].as_u64());
    let header = json!({
        "type": "header", "schema": 2, "tool": "faults", "variant": "fentry", "version": "1", "host": "db1", "kernel": "6.12.9",
        "start": "2026-01-01T08:00:00Z", "start_ns": 0, "tables": ["faults.split_process"], "events": "faults.split_fault",
        "served_mounts": "",
    });
    let end = json!({"type": "end", "duration_ns": 3_900_000_000_u64, "events": faults.len(), "lost_events": 0, "sampled": 1, "own_cpu_ns": 9_000_000});
    let lines = [header].into_iter().chain(faults).chain([end]);
    lines.map(|line| line.to_string() + "\n").collect()
}

/// The same of the same page, whatever its version is called.
fn checksum(page: &str) -> String {
    let version = format!("\"version\":\"{}\"", env!("CARGO_PKG_VERSION"));
    format!("{:08x}", crc32fast::hash(page.replace(&version, "").as_bytes()))
}

/// The PNG file with the checksum in a chunk of text before its last chunk, which has 12 bytes.
fn marked(png: &[u8], checksum: &str) -> Vec<u8> {
    let (before, end) = png.split_at(png.len() - 12);
    let text = [MARK, checksum.as_bytes()].concat();
    let length = u32::try_from(text.len() - 4).unwrap().to_be_bytes();
    [before, &length, &text, &crc32fast::hash(&text).to_be_bytes(), end].concat()
}

fn photograph(page: &Path) -> Option<Vec<u8>> {
    let browser = Browser::start()?;
    browser.look(1280, "light");
    browser.open(page);
    browser.run("");
    let clip = json!({"x": 0, "y": 0, "width": 1280, "height": 1120, "scale": 1});
    let made =
        browser.command("Page.captureScreenshot", json!({"clip": clip, "captureBeyondViewport": true}));
    let mut decode =
        Command::new("base64").arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut into = decode.stdin.take().unwrap();
    let data = made["data"].as_str().unwrap().to_owned();
    let writing = std::thread::spawn(move || into.write_all(data.as_bytes()));
    let png = decode.wait_with_output().unwrap().stdout;
    writing.join().unwrap().unwrap();
    Some(png)
}

#[test]
fn the_picture_in_the_readme_is_of_the_page_as_it_is() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("run.jsonl"), recording()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
    let output = command.args(["report", "run.jsonl"]).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let page = folder.path().join("report.html");
    let checksum = checksum(&fs::read_to_string(&page).unwrap());
    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/report.png");
    if std::env::var("INSTA_UPDATE").is_ok_and(|how| how == "always") {
        let Some(png) = photograph(&page) else { return };
        fs::write(&picture, marked(&png, &checksum)).unwrap();
    }
    let png = fs::read(&picture).unwrap();
    assert!(png.len() < 150_000, "{} bytes", png.len());
    let text = [MARK, checksum.as_bytes()].concat();
    assert!(
        png.windows(text.len()).any(|part| part == text),
        "docs/report.png is of another page than that of {checksum}: make it anew with INSTA_UPDATE=always"
    );
}
