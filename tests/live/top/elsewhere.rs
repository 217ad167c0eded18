//! Panes of what only some machines have: virtual machines and enclaves.

use std::process::Command;

use serde_json::Value;

use super::has;
use crate::faults::screen::Terminal;
use crate::kvm::guest;
use crate::run::{lines, u};
use crate::sgx::Asked;
use crate::sgx::driver::Double;

/// The rows of a pane, below its headings.
fn rows(screen: &[String]) -> impl Iterator<Item = &String> {
    screen.iter().skip(3).take_while(|line| !line.is_empty())
}

/// What a row has below a heading: they end in the same column.
fn figure(screen: &[String], row: &str, title: &str) -> Option<u64> {
    let end = screen[2].find(title)? + title.len();
    let up_to: String = row.chars().take(end).collect();
    up_to.split_whitespace().last()?.parse().ok()
}

fn sum(screen: &[String], title: &str) -> u64 {
    rows(screen).filter_map(|row| figure(screen, row, title)).sum()
}

/// A guest's run of 2 vCPUs, and what it says of itself.
fn guest_runs() -> Value {
    let kinds =
        ["--io", "300", "--cpuid", "500", "--hlt", "20", "--pause", "20ms", "--vcpus", "2", "--name", "red"];
    let words = guest(&kinds);
    let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
    lines(&output.stdout).remove(0)
}

/// Whether a row is of an exit.
type IsOf = fn(&str, &str) -> bool;

/// The exits of a guest that the pane shows, grouped by what a key chooses: exactly as many as the guest took.
pub fn exits_are_those_of_the_guest(_variant: &'static str) {
    let terminal = Terminal::alone(80, 24);
    terminal.starts("LC_ALL=C.UTF-8", "top kvm -i 500ms");
    terminal.waits("attached", has("No exits in this interval."));
    terminal.types(&["c"]);
    // Keys, what rows are by then, and where they are of exits, of which.
    let by: [(&str, &str, Option<IsOf>); 6] = [
        ("4", "by vm,reason  ", Some(|row, exit| row.contains(&format!(" {exit} ")))),
        (
            "5",
            "by userspace  ",
            Some(|row, exit| row.starts_with(exit) && row.contains("(in KVM)") == (exit == "cpuid")),
        ),
        ("2", "by vm  ", None),
        ("3", "by vcpu  ", None),
        ("7", "by port  ", Some(|row, exit| row.starts_with(exit) && row.contains(" 0x1") == (exit == "io"))),
        ("1", "by reason  ", Some(|row, exit| row.starts_with(&format!("{exit} ")))),
    ];
    for (key, of, is_of) in by {
        terminal.types(&[key]);
        terminal.waits(of, |screen| has(of)(screen) && has("No exits since the start.")(screen));
        let truth = guest_runs();
        let exits = ["io", "cpuid", "hlt"];
        let known: u64 = exits.iter().map(|exit| u(&truth[exit])).sum();
        terminal.waits(&format!("the exits of {truth} {of}"), |screen| match is_of {
            // Interrupts, and the first touches of the guest's code, come on top.
            None => (known + 1..known * 3 / 2).contains(&sum(screen, "COUNT")),
            Some(is_of) => exits.iter().all(|exit| {
                let counts = rows(screen)
                    .filter(|row| is_of(row, exit))
                    .filter_map(|row| figure(screen, row, "COUNT"));
                counts.sum::<u64>() == u(&truth[exit])
            }),
        });
    }
    // Shares and rates beside the times, where there is space for them.
    terminal.tmux(&["resize-window", "-x", "200", "-y", "40"]);
    let headings = ["TOTAL_MS", "MAX_US", "AVG_US", "P99_US", "GUEST_MS", "EXITS/s", "EXITS_%", "TIME_%"];
    let screen = terminal.waits("all columns", |screen| {
        screen.len() == 40 && headings.iter().all(|title| screen[2].contains(title))
    });
    let end = screen[2].find("EXITS_%").unwrap() + "EXITS_%".len();
    // What is beside the rows goes on below them.
    let exits = screen[3..].iter().take_while(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let shares = exits.map(|row| row[..end].split_whitespace().last().unwrap().parse::<f64>().unwrap());
    let shares: f64 = shares.sum();
    assert!((99.0..101.0).contains(&shares), "{shares} % in {screen:#?}");
    terminal.types(&["q"]);
    terminal.ends(0);
}

/// Faults, loads and evictions in the pane are those that the driver counts.
pub fn pages_are_those_of_the_driver(_variant: &'static str) {
    let double = Double::load("auto", 200);
    let terminal = Terminal::alone(80, 24);
    let attached = |what: &'static str| {
        terminal.waits("probes", |screen| !has("Attaching the probes.")(screen));
        terminal.waits(what, |screen| screen[1].contains(what) && has("No faults since the start.")(screen));
    };
    let mut enclaves = [Asked::start("auto", 600), Asked::start("auto", 600)];
    terminal.starts("LC_ALL=C.UTF-8", "top sgx -i 500ms");
    terminal.waits("pane", has("sgx by enclave"));
    terminal.types(&["c"]);
    let mut first = 0;
    for (key, of) in [("1", " by enclave  "), ("2", " by process  ")] {
        terminal.types(&[key]);
        attached(of);
        let before = double.counts();
        for pages in [100, 150] {
            enclaves.iter_mut().for_each(|enclave| enclave.touch(first, pages));
        }
        first += 150;
        let screen = terminal.waits("what the driver counts", |screen| {
            let counted = double.counts();
            let is_same = |title: &str, name: &str| sum(screen, title) == counted[name] - before[name];
            has("2 rows by FAULTS")(screen)
                && [("FAULTS", "faults"), ("LOADS", "loads"), ("EVICTIONS", "evictions")]
                    .into_iter()
                    .all(|(title, name)| is_same(title, name))
        });
        assert!(has("nothing lost")(&screen), "{screen:#?}");
    }
    // The enclave of the first process, and of no other.
    let pid = terminal.screen()[3].split_whitespace().next().unwrap().to_owned();
    terminal.types(&["Home", "Enter"]);
    terminal.waits("the process", |screen| screen[1].starts_with(&format!("sgx > {pid} ")));
    attached(" by enclave  ");
    enclaves.iter_mut().for_each(|enclave| enclave.touch(first, 10));
    terminal.waits("its enclave", |screen| has("1 row by")(screen) && sum(screen, "LOADS") == 10);
    enclaves.into_iter().for_each(Asked::end);
    terminal.types(&["q"]);
    terminal.ends(0);
}
