//! The stage: which kernels, what runs there, how many at a time, and the summary.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result, ensure};

use crate::archive::Archive;
use crate::boot::{self, Files, Machine};
use crate::double;
use crate::emulator::{self, Accel, Emulator};
use crate::harness::{self, Built, Tally};
use crate::kernels::{self, Kernel};
use crate::system::{self, quote};

/// How long a kernel may take to show that it boots on KVM: as long as it needs under emulation.
const KVM_LIMIT: Duration = Duration::from_secs(10);

/// Memory of a machine, MiB, if nothing else is said.
const MEMORY: u32 = 3072;

/// More tests than this, one in a hundred, do not fail for want of time on emulated machines.
const SECOND_TRIES: usize = 8;

/// Seconds after which a kernel has failed, if nothing else is said.
const TIMEOUT: u64 = 3000;

/// What `cargo xtask vm` is told.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Kernels by name; all of them when none is named
    #[arg(value_name = "KERNEL")]
    kernels: Vec<String>,
    /// A shell in a machine with this kernel, on this terminal
    #[arg(long, value_name = "KERNEL", conflicts_with_all = ["kernels", "run", "test_args"])]
    shell: Option<String>,
    /// Run this shell command inside instead of the tests
    #[arg(long, value_name = "COMMAND", conflicts_with = "test_args")]
    run: Option<String>,
    /// Only this test target (repeatable); all of trapline's integration tests when none is named
    #[arg(long = "test", value_name = "NAME")]
    tests: Vec<String>,
    /// Test the optimized build
    #[arg(long)]
    pub release: bool,
    /// Add this to the kernel's command line, for example lockdown=integrity
    #[arg(long, value_name = "ARGUMENTS", default_value = "", hide_default_value = true)]
    append: String,
    /// Memory of a machine, MiB
    #[arg(long, value_name = "MIB", default_value_t = MEMORY)]
    pub memory: u32,
    /// What executes the guest
    #[arg(long, value_enum, default_value_t = Accel::Auto)]
    accel: Accel,
    /// Machines at a time; as many as this one has processors if not given
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// Seconds after which a kernel has failed
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT)]
    pub timeout: u64,
    /// Look for newer packages even when the cache has what is needed
    #[arg(long)]
    update: bool,
    /// Handed to every test executable: a filter, or options of the test harness
    #[arg(last = true, value_name = "TEST FILTER")]
    test_args: Vec<String>,
}

impl Args {
    /// Runs a shell command in these kernels; all else is as if nothing was said.
    pub fn command<'a>(command: String, kernels: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            kernels: kernels.into_iter().map(str::to_owned).collect(),
            shell: None,
            run: Some(command),
            tests: vec![],
            release: false,
            append: String::new(),
            memory: MEMORY,
            accel: Accel::Auto,
            jobs: None,
            timeout: TIMEOUT,
            update: false,
            test_args: vec![],
        }
    }
}

/// One kernel's line of the summary.
#[derive(Debug)]
struct Report {
    name: &'static str,
    booted: Option<Duration>,
    took: Duration,
    tally: Tally,
    code: i32,
    problem: Option<String>,
}

/// Does what the arguments say; fails when anything failed inside.
pub fn run(args: &Args) -> Result<ExitCode> {
    let names = args.shell.as_ref().map_or_else(|| args.kernels.clone(), |name| vec![name.clone()]);
    let chosen = kernels::choose(&names)?;
    ensure!(args.shell.is_none() || std::io::stdin().is_terminal(), "--shell needs a terminal");
    let mut archive = Archive::new(args.update);
    let kernel = *chosen.first().context("there is no kernel")?;
    let files = prepare(kernel, &mut archive)?;
    let Args { append, memory, .. } = args;
    let emulator = emulator::decide(args.accel, &mut archive, |kvm| boots(kvm, *memory, kernel, &files))?;
    if args.shell.is_some() {
        let machine = Machine { emulator: &emulator, kernel, files: &files, append, memory: *memory };
        eprintln!("xtask: booting {}; leave the shell to shut it down", kernel.name);
        machine.shell(&(environment(&files, kernel, args) + &terminal() + "exec bash\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let built = if args.run.is_some() { None } else { Some(harness::build(&args.tests, args.release)?) };
    let stage = Stage { args, emulator, built };
    let results = stage.all(&chosen, &mut archive);
    Ok(summary(&results, args.run.is_some()))
}

/// Sees to it that there is what a machine needs. The module is built outside: inside it would take as long as everything
/// else.
fn prepare(kernel: &Kernel, archive: &mut Archive) -> Result<Files> {
    let files = Files::get(kernel, archive)?;
    double::build(&files, archive)?;
    Ok(files)
}

/// What every machine of this run shares.
#[derive(Debug)]
struct Stage<'a> {
    args: &'a Args,
    emulator: Emulator,
    /// The tests, unless a command is to be run.
    built: Option<Built>,
}

impl Stage<'_> {
    /// Runs every machine, `jobs` at a time; the reports are in the order of the machines.
    fn all(&self, kernels: &[&'static Kernel], archive: &mut Archive) -> Vec<Report> {
        // Each keeps a processor busy: with more of them, what a user has seconds for comes too late in all.
        let usual = || thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let room = Room::new(self.args.jobs.unwrap_or_else(usual).get());
        thread::scope(|scope| {
            // A machine dies with the thread that started it, and each of these threads waits for its machine.
            let run = |&kernel: &&'static Kernel| {
                // While those before it run.
                let files = prepare(kernel, archive);
                let place = room.enter();
                scope.spawn(move || {
                    let report = self.one(kernel, files);
                    drop(place);
                    report
                })
            };
            let running: Vec<_> = kernels.iter().map(run).collect();
            running.into_iter().map(|it| it.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        })
    }

    /// Runs one machine. Whatever goes wrong is in the report: the other kernels are still to be run.
    fn one(&self, kernel: &'static Kernel, files: Result<Files>) -> Report {
        let started = Instant::now();
        let mut report = Report {
            name: kernel.name,
            booted: None,
            took: Duration::ZERO,
            tally: Tally::default(),
            code: 0,
            problem: None,
        };
        if let Err(error) = files.and_then(|files| self.watch(kernel, &files, &mut report)) {
            report.problem = Some(format!("{error:#}"));
        }
        if report.problem.is_some() && report.tally.failed == 0 {
            report.tally.failed = 1;
        }
        report.took = started.elapsed();
        report
    }

    fn watch(&self, kernel: &'static Kernel, files: &Files, report: &mut Report) -> Result<()> {
        let path = system::directory("logs")?.join(format!("{}.log", kernel.name));
        let mut log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let Args { append, memory, .. } = self.args;
        let machine = Machine { emulator: &self.emulator, kernel, files, append, memory: *memory };
        let limit = Duration::from_secs(self.args.timeout);
        let end = machine.run(&self.work(files, kernel), limit, |line| {
            report.tally.read(line);
            show(kernel, line);
            // What cannot be logged was at least shown.
            let _ = writeln!(log, "{line}");
        })?;
        report.booted = end.booted;
        report.code = end.codes.iter().copied().find(|code| *code != 0).unwrap_or(0);
        report.problem = end.died.or_else(|| self.complaint(kernel, report));
        if end.booted.is_none() || report.problem.as_deref() == Some(boot::DIED) {
            let kernel_log = boot::kernel_log(kernel)?;
            for line in last_words(&fs::read_to_string(&kernel_log).unwrap_or_default()) {
                show(kernel, &format!("kernel: {line}"));
            }
            show(kernel, &format!("all of it is in {}", kernel_log.display()));
        }
        Ok(())
    }

    /// What is wrong with a machine that came to its end.
    fn complaint(&self, kernel: &Kernel, report: &Report) -> Option<String> {
        let Report { tally, code, .. } = report;
        if self.args.run.is_some() {
            return (*code != 0).then(|| format!("the command exited with {code}"));
        }
        let started = self.built.iter().flat_map(Built::tests).count() * self.rounds(kernel).len();
        let silent = started.saturating_sub(tally.results);
        if silent > 0 {
            return Some(format!(
                "{silent} runs of test executables ended without a result (exit code {code})"
            ));
        }
        if tally.failed > 0 {
            return Some("tests failed".to_owned());
        }
        if *code != 0 {
            return Some(format!("a test executable exited with {code}"));
        }
        (tally.passed == 0 && self.args.test_args.is_empty()).then(|| "no test ran".to_owned())
    }

    /// The script that the machine runs.
    fn work(&self, files: &Files, kernel: &Kernel) -> String {
        let mut work = environment(files, kernel, self.args);
        if let Some(command) = &self.args.run {
            return work + &boot::step(&["sh".to_owned(), "-c".to_owned(), command.clone()]);
        }
        let Some(built) = &self.built else { return work };
        for (copy, place) in built.copies() {
            let [copy, place] = [&*copy, place].map(|path| quote(&path.display().to_string()));
            work += &format!("mkdir -p \"$(dirname {place})\" && cp {copy} {place} || exit\n");
        }
        let programs = quote(&built.programs().display().to_string());
        work += &format!("export TRAPLINE_PROGRAMS={programs}\n");
        for test in built.tests() {
            for arguments in self.rounds(kernel) {
                work += &format!("echo; echo {}\n", quote(&format!("tests of {}", test.name)));
                let program = test.place.display().to_string();
                work += &boot::step(&[vec![program], arguments].concat());
            }
        }
        work
    }

    /// What every test executable is told, each time that it runs in that machine.
    fn rounds(&self, kernel: &Kernel) -> Vec<Vec<String>> {
        if !self.args.test_args.is_empty() {
            return vec![self.args.test_args.clone()];
        }
        kernel.tests.iter().map(|words| words.iter().map(|word| (*word).to_owned()).collect()).collect()
    }
}

/// Room for so many machines.
#[derive(Debug)]
struct Room {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Room {
    fn new(machines: usize) -> Self {
        Self { free: Mutex::new(machines), freed: Condvar::new() }
    }

    /// Waits until there is a place, and takes it.
    fn enter(&self) -> Place<'_> {
        let free = self.freed.wait_while(self.lock(), |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Place(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the room, until it is dropped.
#[derive(Debug)]
struct Place<'a>(&'a Room);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.freed.notify_one();
    }
}

fn show(kernel: &Kernel, line: &str) {
    // Nobody may be reading any more; the log has it.
    let _ = writeln!(std::io::stdout(), "[{}] {line}", kernel.name);
}

/// Whether the first of the kernels boots on this machine's KVM.
fn boots(kvm: &Emulator, memory: u32, kernel: &Kernel, files: &Files) -> Result<()> {
    let end =
        Machine { emulator: kvm, kernel, files, append: "", memory }.run("true\n", KVM_LIMIT, |_| ())?;
    end.died.map_or(Ok(()), |reason| {
        let reason = reason.lines().next().unwrap_or_default().to_owned();
        Err(anyhow::Error::msg(reason))
    })
}

/// The start of every script: where we are, and what tests may rely on.
fn environment(files: &Files, kernel: &Kernel, args: &Args) -> String {
    let root = system::repository();
    let built = system::target().join(if args.release { "release" } else { "debug" });
    let mut script = format!("cd {} || exit\n", quote(&root.display().to_string()));
    let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", built.display());
    let mut variables = vec![
        ("PATH".to_owned(), path),
        ("CARGO_MANIFEST_DIR".to_owned(), root.display().to_string()),
        ("TRAPLINE_PLACE".to_owned(), format!("vm:{}", kernel.name)),
        ("TRAPLINE_SCRATCH".to_owned(), "/mnt/scratch".to_owned()),
        ("TRAPLINE_RESULTS".to_owned(), "/run/trapline/results".to_owned()),
        ("TRAPLINE_SGX_DOUBLE".to_owned(), double::module(files).display().to_string()),
    ];
    if !args.test_args.is_empty() {
        variables.push(("TRAPLINE_ASKED".to_owned(), "1".to_owned()));
    }
    let ours = |name: &str| variables.iter().any(|(known, _)| known == name);
    let handed: Vec<_> = env::vars()
        .filter(|(name, _)| name.starts_with("TRAPLINE_") || name == "RUST_BACKTRACE")
        .filter(|(name, _)| !ours(name))
        .collect();
    variables.extend(handed);
    for (name, value) in variables {
        script += &format!("export {name}={}\n", quote(&value));
    }
    script
}

/// Tells the shell inside what our terminal is like: a console does not carry its size.
fn terminal() -> String {
    let size = Command::new("stty").arg("size").stdin(Stdio::inherit()).output();
    let size = size.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let resize = match size.split_whitespace().collect::<Vec<_>>()[..] {
        [rows, columns] => format!("stty rows {rows} columns {columns}\n"),
        _ => String::new(),
    };
    let kind = env::var("TERM").unwrap_or_else(|_| "linux".to_owned());
    format!("export TERM={}\n{resize}", quote(&kind))
}

/// The part of a kernel's log that tells why it died.
fn last_words(log: &str) -> Vec<&str> {
    let lines: Vec<_> = log.lines().collect();
    let trouble =
        |line: &&str| ["Oops", "BUG:", "Kernel panic", "trapline: "].iter().any(|word| line.contains(word));
    let from = lines
        .iter()
        .position(trouble)
        .map_or(lines.len().saturating_sub(25), |first| first.saturating_sub(3));
    lines.into_iter().skip(from).take(40).collect()
}

/// Prints a line for each kernel and the plain count of all, and gives the exit code.
fn summary(reports: &[Report], command: bool) -> ExitCode {
    println!();
    println!("{:<20} {:>7} {:>7} {:>7} {:>7} {:>7}", "kernel", "boot", "all", "passed", "failed", "skipped");
    for Report { name, booted, took, tally, problem, .. } in reports {
        let boot = booted.map_or("-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
        let took = format!("{:.0} s", took.as_secs_f64());
        let Tally { passed, failed, skipped, .. } = tally;
        let problem = problem.as_ref().map(|problem| format!("  {problem}")).unwrap_or_default();
        println!("{name:<20} {boot:>7} {took:>7} {passed:>7} {failed:>7} {skipped:>7}{problem}");
    }
    if command {
        let code = reports.iter().map(|report| report.code).find(|code| *code != 0);
        let died = reports.iter().any(|report| report.problem.is_some());
        return match code {
            Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
            None if died => ExitCode::FAILURE,
            None => ExitCode::SUCCESS,
        };
    }
    println!();
    for Report { name, tally, .. } in reports {
        for test in &tally.second_tries {
            println!("{name}: {test} failed first, and was run a second time");
        }
        for test in &tally.failures {
            println!("{name}: {test} FAILED");
        }
    }
    let all = reports.iter().fold(Tally::default(), |sum, report| sum.and(report.tally.clone()));
    let tries = all.second_tries.len();
    println!("{} passed, {} failed, {} skipped, {tries} run twice", all.passed, all.failed, all.skipped);
    if all.failed == 0 && tries <= SECOND_TRIES { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_to_one_after_the_other() {
        let room = Room::new(1);
        let first = room.enter();
        let (entered, next) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _place = room.enter();
                entered.send(()).unwrap();
            });
            assert!(next.recv_timeout(Duration::from_millis(50)).is_err(), "the place is taken");
            drop(first);
            next.recv().unwrap();
        });
        assert_eq!(*room.lock(), 1);
    }

    #[test]
    fn last_words_start_shortly_before_the_trouble() {
        let log: String =
            (0..100).map(|n| if n == 60 { "Oops: int3\n".to_owned() } else { format!("{n}\n") }).collect();
        let words = last_words(&log);
        assert_eq!((words[0], words[3], words.len()), ("57", "Oops: int3", 40));
    }

    #[test]
    fn a_log_without_trouble_shows_its_end() {
        let log: String = (0..100).map(|n| format!("{n}\n")).collect();
        assert_eq!(last_words(&log).first(), Some(&"75"));
    }
}
