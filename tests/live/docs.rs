//! The commands in README.md and docs/, run as they stand there.
//!
//! A fenced block ```` ```console ```` holds commands, each in a line that begins with `$ ` (and the lines after it, while they end
//! in `\`), and what they print. All blocks of a page run in one scratch folder, in order, so that later ones use the files of earlier ones.
//! Words behind `console`: `needs=kvm|sgx|access` says what machine runs it (by a case of that tool), `status=N` another exit status
//! than 0, `not-run` that no test runs it; the page says why. A command that does not end gets Ctrl-C after its first line of output.
//! `1234` is the PID of a process that faults, `./app` a program that does.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

macro_rules! pages {
    ($($name:literal)*) => { &[$(($name, include_str!(concat!("../../", $name)))),*] };
}

const PAGES: &[(&str, &str)] = pages! {
    "README.md" "docs/access.md" "docs/case-gcc.md" "docs/case-jvm.md" "docs/case-postgresql.md" "docs/case-redis.md" "docs/case-sqlite.md" "docs/command.md" "docs/containers.md" "docs/diff.md" "docs/explain.md" "docs/exports.md" "docs/faults.md" "docs/fleet.md" "docs/install.md" "docs/kernels.md" "docs/kvm.md"
    "docs/output.md" "docs/overhead.md" "docs/prefetch.md" "docs/recipes.md" "docs/recordings.md" "docs/report.md" "docs/security.md" "docs/sgx.md" "docs/spans.md" "docs/top.md"
    "docs/troubleshooting.md" "docs/variants.md" "docs/workload.md"
};

/// How long a command that does not end by itself runs after its first line.
const SHORT: Duration = Duration::from_millis(1500);
/// When a command that has been interrupted, or prints nothing, has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command of a page.
#[derive(Debug)]
struct Line<'a> {
    page: &'a str,
    text: String,
    needs: Option<&'a str>,
    status: i32,
    is_run: bool,
    /// The headings of tables that the page shows below it.
    headings: Vec<&'a str>,
}

fn lines<'a>(page: &'a str, text: &'a str) -> Vec<Line<'a>> {
    let mut all = Vec::new();
    let mut info: Option<&str> = None;
    let mut rest = text.lines();
    while let Some(line) = rest.next() {
        if let Some(fence) = line.trim_start().strip_prefix("```") {
            info = if info.is_some() { None } else { Some(fence) };
        }
        let Some(words) = info.and_then(|info| info.strip_prefix("console")) else { continue };
        let Some(command) = line.strip_prefix("$ ") else {
            if let Some(last) = all.last_mut().filter(|_: &&mut Line| is_heading(line)) {
                last.headings.push(line);
            }
            continue;
        };
        let mut text = command.to_owned();
        while text.ends_with('\\') {
            text.push('\n');
            text += rest.next().unwrap();
        }
        let mut line = Line { page, text, needs: None, status: 0, is_run: true, headings: Vec::new() };
        for word in words.split_whitespace() {
            match word.split_once('=') {
                Some(("needs", need)) => line.needs = Some(need),
                Some(("status", status)) => line.status = status.parse().unwrap(),
                _ => {
                    assert_eq!(word, "not-run", "{page}: {words}");
                    line.is_run = false;
                }
            }
        }
        all.push(line);
    }
    all
}

/// Four words or more, in capitals.
fn is_heading(line: &str) -> bool {
    let is_capital = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_uppercase())
            && word
                .trim_end_matches("/s")
                .chars()
                .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || "_%".contains(c))
    };
    line.split_whitespace().count() >= 4 && line.split_whitespace().all(is_capital)
}

/// The commands that need nothing but this machine.
pub mod here {
    use super::{PAGES, lines, run};

    pub fn commands(_variant: &str) {
        let listed: Vec<_> = std::fs::read_dir("docs")
            .map(|all| all.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
            .unwrap_or_default();
        let is_written =
            |name: &&String| name.ends_with(".md") && !["losses.md", "columns.md"].contains(&name.as_str());
        for name in listed.iter().filter(is_written) {
            assert!(
                PAGES.iter().any(|(page, _)| page.ends_with(&format!("/{name}"))),
                "{name} is not in PAGES"
            );
        }
        let needs = PAGES.iter().flat_map(|(page, text)| lines(page, text)).filter_map(|line| line.needs);
        let known = |need: &str| ["kvm", "sgx", "access"].contains(&need);
        assert!({ needs }.all(known), "a need that no case runs");
        run(None);
    }
}

/// Those that need exits of virtual machines.
pub mod kvm {
    pub fn commands(_variant: &str) {
        super::run(Some("kvm"));
    }
}

/// Those that need enclaves.
pub mod sgx {
    pub fn commands(_variant: &str) {
        let _double = crate::sgx::driver::Double::load("auto", 200);
        super::run(Some("sgx"));
    }
}

/// Those that reset page tables, which only one process of a machine can do at a time.
pub mod access {
    pub fn commands(_variant: &str) {
        super::run(Some("access"));
    }
}

fn run(need: Option<&str>) {
    let failed: Vec<String> = if need.is_some() {
        PAGES.iter().flat_map(|(page, text)| run_page(page, text, need)).collect()
    } else {
        // Most of the time, a command waits for its interval or its end.
        std::thread::scope(|scope| {
            let pages = PAGES.iter().map(|(page, text)| scope.spawn(move || run_page(page, text, need)));
            let pages: Vec<_> = pages.collect();
            pages.into_iter().flat_map(|page| page.join().unwrap()).collect()
        })
    };
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Runs the commands of a page; what went wrong.
fn run_page(page: &str, text: &str, need: Option<&str>) -> Vec<String> {
    let all: Vec<_> =
        lines(page, text).into_iter().filter(|line| line.is_run && line.needs == need).collect();
    if all.is_empty() {
        return Vec::new();
    }
    let folder = tempfile::tempdir_in(crate::run::scratch()).unwrap();
    let bin = folder.path().join(".bin");
    std::fs::create_dir(&bin).unwrap();
    let trapline = env!("CARGO_BIN_EXE_trapline");
    std::os::unix::fs::symlink(trapline, bin.join("trapline")).unwrap();
    // What users are told to type before a command, root needs not.
    std::fs::write(bin.join("sudo"), "#!/bin/sh\nexec \"$@\"\n").unwrap();
    std::fs::write(
        folder.path().join("app"),
        "#!/bin/sh\nexec ls -lR /usr/share/zoneinfo /etc >/dev/null 2>&1\n",
    )
    .unwrap();
    for script in [bin.join("sudo"), folder.path().join("app")] {
        std::fs::set_permissions(script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut faulting = Command::new(trapline);
    faulting.args(["workload", "faults", "100000000", "--rate", "200"]).stdout(Stdio::null());
    let mut faulting = Faulting(faulting.stderr(Stdio::null()).spawn().unwrap());
    let pid = faulting.0.id().to_string();
    let failed = all.iter().filter_map(|line| run_line(line, folder.path(), &pid).err()).collect();
    assert!(faulting.0.try_wait().unwrap().is_none(), "{page}: the process {pid} has ended");
    failed
}

/// The process that documentation calls 1234.
struct Faulting(Child);

impl Drop for Faulting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn run_line(line: &Line, folder: &Path, pid: &str) -> Result<(), String> {
    let text = line.text.split(' ').map(|word| if word == "1234" { pid } else { word });
    let text = text.collect::<Vec<_>>().join(" ");
    let path = format!("{}:{}", folder.join(".bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.args(["-c", &text]).current_dir(folder).env("PATH", path).env("USER", "nobody");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().unwrap();
    let group = Pid::from_raw(child.id() as i32);
    let (send, receive) = channel();
    let readers: [Box<dyn std::io::Read + Send>; 2] =
        [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
    for reader in readers {
        let send = send.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
                let _ = send.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
    }
    drop(send);
    let mut output = Vec::new();
    let came =
        collect(&receive, &mut output, PATIENCE, 1) && collect(&receive, &mut output, SHORT, usize::MAX);
    if !came {
        let _ = killpg(group, Signal::SIGINT);
        collect(&receive, &mut output, PATIENCE, usize::MAX);
        let _ = killpg(group, Signal::SIGKILL);
    }
    let status = child.wait().unwrap();
    let expected = std::os::unix::process::ExitStatusExt::from_raw(line.status << 8);
    if status == expected {
        // A page may show what a terminal has the width for: some of the columns, in their order.
        let same = |shown: &str, printed: &str| {
            let mut printed = printed.split_whitespace();
            shown.split_whitespace().all(|title| printed.any(|other| other == title))
        };
        let missing = line.headings.iter().find(|shown| !output.iter().any(|printed| same(shown, printed)));
        return missing.map_or(Ok(()), |heading| {
            Err(format!("{}: {}\n  it prints no table with the heading\n{heading}", line.page, line.text))
        });
    }
    let last: Vec<_> = output.iter().rev().take(5).rev().map(String::as_str).collect();
    Err(format!("{}: {}\n  {status}: {}", line.page, line.text, last.join("\n  ")))
}

/// Reads that number of lines, or to the end; not true if that takes longer.
fn collect(from: &Receiver<String>, lines: &mut Vec<String>, patience: Duration, count: usize) -> bool {
    let until = std::time::Instant::now() + patience;
    for _ in 0..count {
        match from.recv_timeout(until.saturating_duration_since(std::time::Instant::now())) {
            Ok(line) => lines.push(line),
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
    true
}
