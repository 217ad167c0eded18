//! The page of `trapline report` in Chromium.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::browser::Browser;
use crate::{hostile, recording_of, total};

fn report(folder: &TempDir, recording: &str, name: &str) -> std::path::PathBuf {
    let page = folder.path().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
    let output = command.args(["report", recording, "-o"]).arg(&page).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(fs::metadata(&page).unwrap().len() < 5 << 20);
    page
}

/// Faults of two processes on three files: of process 7 five times as many as of 8, and each of those four times as long.
fn faults(comm: &str) -> Vec<String> {
    let fault = |n: u64| {
        let is_second = n.is_multiple_of(6);
        json!({
            "type": "event", "time_ns": 1_000 + n * 1_000_000, "pid": 7 + u64::from(is_second), "tid": 7 + u64::from(is_second),
            "start_ns": 5, "comm": comm, "kind": if n.is_multiple_of(2) { "major" } else { "minor" }, "addr": 4096, "rw": "R",
            "latency_ns": if is_second { 40_000 } else { 10_000 }, "cause": "file-read",
            "file": format!("/data/{}{comm}", n % 3),
        })
        .to_string()
    };
    (0..600).map(fault).collect()
}

/// A recording of them.
fn recording(folder: &TempDir, name: &str) -> String {
    recording_of(("faults", 600), folder, "faults.fault", "\"faults.fault\"", &faults(name))
}

const FIRST_ROW: &str = "return document.querySelector('#who tbody tr').innerText;";
const ROWS: &str = "return document.querySelectorAll('#who tbody tr').length;";

#[test]
fn the_page_sorts_filters_and_drills_down_and_everything_follows_a_chosen_time() {
    let Some(browser) = Browser::start() else { return };
    let folder = TempDir::new().unwrap();
    let recording = recording(&folder, "app");
    browser.open(&report(&folder, &recording, "a.html"));
    let row = |script: &str| browser.run(script).as_str().unwrap_or_default().replace('\t', " ");
    assert!(row(FIRST_ROW).contains("app (7)"), "{}", row(FIRST_ROW));
    let heading = |n: usize| {
        format!(
            "document.querySelectorAll('#who thead button')[{n}].click(); return () => {{ {FIRST_ROW} }};"
        )
    };
    // By number of faults, then from the least on.
    assert!(row(&heading(1)).contains("500"));
    assert!(row(&heading(1)).contains("app (8)"));
    // Into the process, its thread, then its files.
    let click = "document.querySelector('#who td.key button').click();";
    browser.run(click);
    let files = row(&format!("{click} return () => {{ {FIRST_ROW} }};"));
    assert!(files.contains("/data/0app"), "{files}");
    assert_eq!(browser.run(ROWS), 1);
    let reset = "[...document.querySelectorAll('.bar button')].at(-1).click();";
    assert_eq!(browser.run(&format!("{reset} return () => {{ {ROWS} }};")), 3);
    let search = "const of = document.querySelector('#who input'); of.value = 'DATA/1'; of.dispatchEvent(new Event('input'));";
    assert_eq!(browser.run(&format!("{search} return () => {{ {ROWS} }};")), 1);
    browser.run("const of = document.querySelector('#who input'); of.value = ''; of.dispatchEvent(new Event('input'));");
    // A time, by pointer and by keys.
    let said = "return document.querySelector('.bar').innerText;";
    let brush = "const canvas = document.querySelector('canvas'); canvas.setPointerCapture = () => {}; const { width } = canvas.getBoundingClientRect();
        for (const [type, at] of [['pointerdown', 0.4], ['pointermove', 0.7], ['pointerup', 0.7]]) {
          const box = canvas.getBoundingClientRect();
          canvas.dispatchEvent(new PointerEvent(type, { clientX: box.left + width * at, clientY: box.top + 50, pointerId: 1, bubbles: true }));
        }";
    let part = row(&format!("{brush} return () => {{ {said} }};"));
    assert!(part.contains(" – ") && !part.contains("Faults 600"), "{part}");
    let sum = row("return document.querySelector('#who tfoot').innerText;");
    let faults = part.split("Faults ").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned();
    assert!(sum.contains(&faults), "{sum}: {faults}");
    let key = |key: &str| {
        format!(
            "document.querySelector('canvas').dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }}));"
        )
    };
    assert!(row(&format!("{} return () => {{ {said} }};", key("Escape"))).contains("Faults 600"));
    assert!(!row(&format!("{} return () => {{ {said} }};", key("ArrowRight"))).contains("Faults 600"));
    assert_eq!(browser.complaints(), json!([]));
}

#[test]
fn the_page_fits_from_a_phone_to_a_wall_in_both_themes_and_names_what_it_draws() {
    let Some(browser) = Browser::start() else { return };
    let folder = TempDir::new().unwrap();
    let name = hostile();
    let recording = recording(&folder, &name);
    let page = report(&folder, &recording, "b.html");
    let mut papers = vec![];
    for (width, theme) in [(400, "light"), (400, "dark"), (3840, "light")] {
        assert_fits(&browser, &page, width, theme);
        papers.push(browser.run("return getComputedStyle(document.documentElement).backgroundColor;"));
    }
    assert!(papers[0] != papers[1] && papers[0] == papers[2], "{papers:?}");
    // What processes chose to be called is text.
    assert_eq!(browser.run("return document.querySelectorAll('script').length;"), 2);
    assert_eq!(
        browser
            .run("return document.querySelector('#who').textContent.includes('<script>alert(1)</script>');"),
        true
    );
    let unnamed = "return [...document.querySelectorAll('canvas, button, input, select, [role=img]')].filter((node) =>
        !(node.getAttribute('aria-label') || node.textContent.trim() || node.closest('label'))).map((node) => node.outerHTML);";
    assert_eq!(browser.run(unnamed), json!([]));
    assert_eq!(browser.complaints(), json!([]));
}

/// Pages of all kinds, with names that a process may choose: faults, stacks, exits at intervals, accesses, paging at intervals.
fn pages(folder: &TempDir) -> Vec<std::path::PathBuf> {
    let name = hostile();
    let rows = (1..40).map(|n: u64| {
        let exit = |level: &str| json!({format!("{level}_count"): 2 * n, format!("{level}_ns"): 3000 * n});
        let mut row = json!({"type": "row", "time_ns": 1000 + n * 20_000_000, "table": "kvm.split_vm_reason", "isa": "vmx",
            "name": if n.is_multiple_of(2) { "HLT" } else { "CPUID" }, "reason": n % 2, "count": 4 * n, "total_ns": 6000 * n, "kvm_ns": 4000 * n,
            "vmm_ns": 0, "blocked_ns": 2000 * n, "preempted_ns": 0, "pid": 7, "vm": name});
        for level in ["l1", "l2"] {
            row.as_object_mut().unwrap().extend(exit(level).as_object().unwrap().clone());
        }
        row.to_string()
    });
    let access = |n: u64| {
        json!({"type": "event", "time_ns": 1000 + n * 1_000_000, "event": "access", "pid": 7, "tid": 7, "comm": name, "cpu": 0,
            "rw": if n.is_multiple_of(3) { "W" } else { "R" }, "ip": 1, "addr": (1 << 30) + n % 60 * 4096, "file": name, "offset": 0, "first": u64::from(n < 60)})
        .to_string()
    };
    let stacks = [("main;work;read", 300_000, 3), ("main;work;copy", 500_000, 4), ("main;idle", 100_000, 5)];
    let stacks = stacks.map(|(stack, ns, minor)| {
        let stack = Value::from(format!("{name};{stack}"));
        total(&format!("\"stack\":{stack},\"lines\":\";;;\",\"major\":1,\"minor\":{minor},\"total_ns\":{ns},\"major_ns\":1"))
    });
    let paging = (1..40).map(|n: u64| {
        json!({"type": "row", "time_ns": 1000 + n * 20_000_000, "table": "sgx.enclave", "pid": 7 + n % 2, "comm": name, "enclave": n % 2,
            "base": 1_u64 << 40, "size": 1 << 30, "pages": n, "bytes": n * 4096, "unaccounted": 0, "faults": 2 * n, "loads": n, "evictions": n % 2 * n,
            "brought_bytes": n * 4096, "load_ns": n * 9000, "timed": n})
        .to_string()
    });
    let recordings = [
        ("faults", "faults.fault", "\"faults.fault\"", faults(&name)),
        ("faults", "faults.stack", "null", stacks.to_vec()),
        ("kvm", "kvm.split_vm_reason", "null", rows.collect()),
        ("access", "access.process", "\"access.event\"", (0..600).map(access).collect()),
        ("sgx", "sgx.enclave", "null", paging.collect()),
    ];
    let page = |(tool, table, events, lines): &(&str, &str, &str, Vec<String>)| {
        report(folder, &recording_of((tool, 600), folder, table, events, lines), &format!("{table}.html"))
    };
    recordings.iter().map(page).collect()
}

#[test]
fn axe_finds_nothing_in_any_page_in_both_themes() {
    let Some(browser) = Browser::start() else { return };
    // The names of recordings are long words.
    let folder = tempfile::Builder::new().prefix(&"W".repeat(60)).tempdir().unwrap();
    for page in pages(&folder) {
        for (width, theme) in [(400, "light"), (1280, "dark")] {
            browser.look(width, theme);
            browser.open(&page);
            browser
                .run("document.querySelectorAll('details').forEach((details) => { details.open = true; });");
            let Some(violations) = browser.violations() else { return };
            assert_eq!(violations, json!([]), "{} {theme}", page.display());
            let beyond = "return [...document.querySelectorAll('*')].filter((it) => !it.closest('.scroll') && it.scrollWidth > it.clientWidth)
                .map((it) => [it.tagName, it.id, it.className, it.textContent.slice(0, 40), it.scrollWidth, it.clientWidth]).slice(0, 9);";
            // What has been opened is drawn in the next frame.
            let is_within = (0..100).any(|_| {
                sleep(Duration::from_millis(50));
                browser.run("return document.documentElement.scrollWidth <= innerWidth;") == true
            });
            assert!(is_within, "{} {theme}: {}", page.display(), browser.run(beyond));
        }
    }
    assert_eq!(browser.complaints(), json!([]));
}

#[test]
fn charts_are_zoomed_and_searched_by_keys() {
    let Some(browser) = Browser::start() else { return };
    let folder = TempDir::new().unwrap();
    let pages = pages(&folder);
    browser.look(1280, "light");
    let section = |heading: &str| {
        format!(
            "[...document.querySelectorAll('section')].find((of) => of.querySelector('h2')?.textContent === '{heading}')"
        )
    };
    let label = |heading: &str| {
        let of = section(heading);
        browser
            .run(&format!("return {of}.querySelector('canvas').getAttribute('aria-label');"))
            .as_str()
            .unwrap()
            .to_owned()
    };
    // The flame graph: down to what the process called, then into it.
    browser.open(&pages[1]);
    let status =
        || browser.run(&format!("return {}.querySelector('p[role=status]').textContent;", section("Code")));
    browser.run(&format!("{}.querySelector('canvas').focus();", section("Code")));
    for key in ["ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "Enter"] {
        browser.press(key);
    }
    assert!(status().as_str().unwrap().starts_with("work: 9 faults, 800 µs, 88.9 %"), "{}", status());
    assert!(label("Code").contains("3 functions shown; work."), "{}", label("Code"));
    browser.press("Escape");
    let search = "const of = document.querySelector('[aria-label=\"Search functions\"]'); of.value = 'COPY'; of.dispatchEvent(new Event('input')); of.focus();";
    browser.run(search);
    browser.press("Enter");
    assert!(status().as_str().unwrap().starts_with("copy: 5 faults"), "{}", status());
    browser.run(&format!(
        "const of = {}.querySelector('select'); of.value = 0; of.dispatchEvent(new Event('change'));",
        section("Code")
    ));
    assert!(label("Code").starts_with("Flame graph of faults, 7 functions shown"), "{}", label("Code"));
    // Exits by reason, by what their time was spent on, by level.
    browser.open(&pages[2]);
    assert!(
        label("Over time").starts_with("Time over time by exit; most at 760 ms"),
        "{}",
        label("Over time")
    );
    for (by, names) in [("-1", "KVM Blocked"), ("-2", "L1 time L2 time")] {
        let choose = format!(
            "const of = {}.querySelectorAll('select')[1]; of.value = {by}; of.dispatchEvent(new Event('change'));",
            section("Over time")
        );
        let legend = format!(
            "return () => [...{}.querySelectorAll('.legend span')].map((of) => of.textContent).join(' ');",
            section("Over time")
        );
        assert_eq!(browser.run(&format!("{choose} {legend}")), names);
    }
    // Paging of enclaves; a figure that a process does not have.
    browser.open(&pages[4]);
    let figure = |name: &str| {
        let figure = format!(
            "const of = {0}.querySelector('select'); of.value = [...of.options].find((one) => one.text === '{name}').value; of.dispatchEvent(new Event('change'));
            return () => {0}.querySelector('canvas').getAttribute('aria-label') + {0}.querySelector('.legend').textContent;",
            section("Over time")
        );
        browser.run(&figure).as_str().unwrap().to_owned()
    };
    let loaded = figure("Loaded or added");
    assert!(
        loaded.starts_with("Loaded or added over time by process; most at 760 ms: 156 KiB in 20 ms"),
        "{loaded}"
    );
    assert!(!figure("Evictions").contains("at all times"));
    browser.run("[...document.querySelectorAll('#who td.key button')].find((of) => of.textContent.endsWith('(7)')).click();");
    assert!(figure("Evictions").ends_with("Evictions: 0 at all times."), "{}", figure("Evictions"));
    // Addresses: half of them, then all.
    browser.open(&pages[3]);
    let all = label("Addresses over time");
    browser.run(&format!("{}.querySelector('canvas').focus();", section("Addresses over time")));
    browser.press("+");
    assert_ne!(label("Addresses over time"), all);
    browser.press("Escape");
    assert_eq!(label("Addresses over time"), all);
    assert_eq!(browser.complaints(), json!([]));
}

#[test]
fn what_has_no_time_is_not_drawn_over_time() {
    let Some(browser) = Browser::start() else { return };
    let folder = TempDir::new().unwrap();
    let row = json!({"type": "total", "time_ns": 9, "table": "kvm.hist_reason", "isa": "svm", "name": "hlt", "reason": 120, "count": 30,
        "total_ns": 60_000, "timed": 30, "buckets": [[1024, 2047, 20], [2048, 4095, 10]]});
    let recording = recording_of(("kvm", 30), &folder, "kvm.hist_reason", "null", &[row.to_string()]);
    browser.open(&report(&folder, &recording, "d.html"));
    let headings =
        "return [...document.querySelectorAll('h2')].map((heading) => heading.textContent).join(', ');";
    assert_eq!(browser.run(headings), "Findings, Latency histogram, Who, Conditions and losses");
    let label = "return document.querySelector('canvas').getAttribute('aria-label');";
    assert_eq!(browser.run(label), "Histogram of latency: from 1 µs: 20, from 2 µs: 10");
    assert_eq!(browser.complaints(), json!([]));
}

/// One recording was made with `--split`, the other without.
#[test]
fn what_time_was_spent_on_is_not_drawn_where_it_was_not_recorded() {
    let Some(browser) = Browser::start() else { return };
    let folder = TempDir::new().unwrap();
    let fault = |name: &str, parts: &str| {
        format!(
            "{{\"type\":\"event\",\"time_ns\":2000,\"pid\":7,\"tid\":7,\"comm\":\"{name}\",\"kind\":\"major\",\"latency_ns\":900{parts}}}"
        )
    };
    let plain = fault("plain", "");
    let split = fault("split", ",\"lock_ns\":0,\"io_ns\":700,\"kernel_ns\":200");
    let [plain, split] = [("plain", "faults.fault", plain), ("split", "faults.split_fault", split)].map(
        |(name, events, line)| {
            let within = folder.path().join(name);
            fs::create_dir(&within).unwrap();
            let table = if name == "plain" { "faults.thread" } else { "faults.split_thread" };
            let made = recording_of(("faults", 1), &folder, table, &format!("\"{events}\""), &[line]);
            let to = within.join("x.jsonl");
            fs::rename(made, &to).unwrap();
            to
        },
    );
    let page = folder.path().join("e.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
    let output = command.arg("report").args([plain, split]).arg("-o").arg(&page).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    browser.open(&page);
    browser.run("document.querySelector('#who [data-dim=process]').click();");
    let cells = "return [...document.querySelectorAll('#who tbody tr')].map((row) => `${row.cells[0].innerText}: ${row.cells[1].innerText || row.cells[1].firstChild.ariaLabel}`).sort();";
    assert_eq!(
        browser.run(&format!("return () => {{ {cells} }};")),
        json!(["plain (7): not recorded", "split (7): I/O 700 ns, Kernel 200 ns"])
    );
    assert_eq!(browser.complaints(), json!([]));
}

/// Recordings of several machines: one lost events and has a finding, one has no causes, and one has all and no finding.
fn hosts(folder: &TempDir) -> Vec<std::path::PathBuf> {
    let host = |n: u64| {
        let (name, comm) = (format!("db{n}.example.net"), if n == 1 { "postgres" } else { "mysqld" });
        let header = json!({"type": "header", "schema": 2, "tool": "faults", "variant": "fentry", "version": "1", "host": name, "kernel": format!("6.{n}"),
            "start": "2026-01-01T08:00:00Z", "start_ns": 0, "tables": ["faults.split_thread"], "events": "faults.split_fault", "served_mounts": ""});
        let faults = (0..600_u64).map(|at| {
            json!({"type": "event", "time_ns": 1000 + at * 9_000_000, "pid": 7, "tid": 7, "start_ns": 5, "comm": comm, "process_comm": comm,
                "kind": if n == 1 { "major" } else { "minor" }, "addr": 4096, "rw": "R", "latency_ns": if n == 1 { 900_000 } else { 900 },
                "cause": (n != 2).then_some(if n == 1 { "file-read" } else { "file-map" }), "file": "/srv/data", "offset": at * 40_503 % 99_991 * 4096,
                "lock_ns": 0, "io_ns": if n == 1 { 899_100 } else { 0 }, "reclaim_ns": 0, "throttled_ns": 0, "preempted_ns": 0, "sleep_ns": 0, "kernel_ns": 900})
        });
        let lost = if n == 1 { 41_234 } else { 0 };
        let end = json!({"type": "end", "duration_ns": 6_000_000_000_u64, "events": 600, "lost_events": lost, "sampled": 1, "own_cpu_ns": 5,
            "untracked_threads": u64::from(n == 1) * 3});
        let lines = [header].into_iter().chain(faults).chain([end]);
        let path = folder.path().join(format!("{n}.jsonl"));
        fs::write(&path, lines.map(|line| line.to_string() + "\n").collect::<String>()).unwrap();
        path
    };
    (1..4).map(host).collect()
}

/// All of a page is to be seen at a width, pixels, without moving it aside.
fn assert_fits(browser: &Browser, page: &Path, width: u64, theme: &str) {
    browser.look(width, theme);
    browser.open(page);
    let fits = browser.run("return document.documentElement.scrollWidth <= innerWidth;");
    assert_eq!(fits, true, "{width}");
}

#[test]
fn findings_and_losses_of_several_machines_are_those_of_each() {
    let Some(browser) = Browser::start() else { return };
    let folder = TempDir::new().unwrap();
    let page = folder.path().join("hosts.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
    let output = command.arg("report").args(hosts(&folder)).arg("-o").arg(&page).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for (width, theme) in [(400, "dark"), (1280, "light")] {
        assert_fits(&browser, &page, width, theme);
        if let Some(violations) = browser.violations() {
            assert_eq!(violations, json!([]), "{theme}");
        }
    }
    let text = |of: &str| {
        let text = browser.run(&format!("return document.querySelector('{of}').innerText;"));
        text.as_str().unwrap().to_owned()
    };
    assert!(
        text("header").contains(
            "db1.example.net, db2.example.net, db3.example.net; Linux 6.1, 6.2, 6.3; 2026-01-01 08:00:00 UTC"
        ),
        "{}",
        text("header")
    );
    let losses = "return [...document.querySelectorAll('.tile b.warn')].map((of) => of.textContent);";
    assert_eq!(browser.run(losses), json!(["41,234"]));
    let findings = text("section");
    let parts = ["db1.example.net\n", "db2.example.net\n", "db3.example.net\n"];
    let [_, first, second, third] = {
        let mut rest = findings.as_str();
        let mut of = vec![];
        for part in parts {
            let (before, after) = rest.split_once(part).unwrap_or_else(|| panic!("{findings}"));
            of.push(before);
            rest = after;
        }
        of.push(rest);
        <[&str; 4]>::try_from(of).unwrap()
    };
    assert!(first.contains("postgres (7) reads /srv/data at scattered offsets"), "{first}");
    assert!(
        first.contains("Not judged: sequential-reads, ") && first.contains("(lost: 41,234 faults)"),
        "{first}"
    );
    let missing = "Nothing stands out by the rules that could be judged.\n\nNot judged: swap-in, ";
    assert!(second.contains(missing), "{second}");
    assert!(second.contains("(the cause of no fault is known)"), "{second}");
    assert_eq!(third.trim(), "Nothing stands out.");
    // The process of that machine, and not the one with the same number on another.
    browser.run("document.querySelector('.finding button').click();");
    let chosen = text(".bar");
    assert!(
        chosen.contains("Recording: db1.example.net: ")
            && chosen.contains("postgres (7)")
            && chosen.contains("Faults 600"),
        "{chosen}"
    );
    let foot = browser.run("return [...document.querySelectorAll('section')].at(-1).innerText;");
    let foot = foot.as_str().unwrap().replace('\n', " ");
    for part in ["41,234 lost events.", "3 untracked threads.", "Nothing was lost.", "served mounts none"] {
        assert!(foot.contains(part), "{foot}");
    }
    assert_eq!(browser.complaints(), json!([]));
}

#[test]
fn paper_is_light_and_has_no_controls() {
    let Some(browser) = Browser::start() else { return };
    let folder = TempDir::new().unwrap();
    let recording = recording(&folder, "app");
    browser.look(1280, "dark");
    browser.open(&report(&folder, &recording, "c.html"));
    let noted = "addEventListener('beforeprint', () => {
          const canvas = document.querySelector('canvas');
          const [, , , clear] = canvas.getContext('2d').getImageData(0, 0, 1, 1).data;
          const shown = [...document.querySelectorAll('button, select, input, summary')].filter((node) => node.checkVisibility() && !node.closest('td, thead'));
          window.printed = [getComputedStyle(document.body.parentNode).getPropertyValue('--ink'), clear, canvas.width, shown.map((node) => node.outerHTML)];
        });";
    browser.run(noted);
    let feature = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
    browser.command("Emulation.setEmulatedMedia", json!({"media": "print", "features": feature}));
    let pdf = browser.command("Page.printToPDF", json!({}));
    assert!(pdf["data"].as_str().is_some_and(|data| data.len() > 10_000));
    assert_eq!(browser.run("return window.printed;"), json!(["#000", 0, 720, []]));
    // And back to what it was.
    browser.command("Emulation.setEmulatedMedia", json!({"media": "", "features": feature}));
    assert_eq!(browser.run("return document.documentElement.dataset.print === undefined;"), true);
}
