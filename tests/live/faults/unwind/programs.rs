//! Programs as the distribution builds them: at each of a program's page faults the chain is the debugger's, frame by frame.
//!
//! Such programs have no symbols of their functions, so frames are compared as offsets in files. trapline prints those of code
//! that has no name: it traces the program with the names taken out of all its files. The debugger has the files as they are.
//! Where neither has its addresses chosen at random, the same instructions fault in both.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use object::read::elf::{FileHeader as _, SectionHeader as _};
use object::{LittleEndian, elf};
use serde_json::Value;

use crate::run::{faults, lines, trapline, u};

/// Instructions of each program at which the debugger stops, and how often it does at one before that is left out.
const INSTRUCTIONS: usize = 50;
const STOPS: &str = "300";

/// What is compared of a program: chains that are at least this deep, and so many that differ.
const DEEP: usize = 10;
const LEAST: usize = 5;

/// How a chain begins that ends before the start of the thread.
const CUT: &str = "[no unwind information]";

/// Faults by chain.
type Chains = BTreeMap<String, u64>;

struct Program {
    file: PathBuf,
    arguments: Vec<String>,
    /// What it reads.
    input: Option<PathBuf>,
    user: Option<&'static str>,
    /// What a shell does before each of its runs.
    before: String,
}

impl Program {
    fn new(file: impl AsRef<Path>, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
        let file = file.as_ref().canonicalize().unwrap();
        Self { file, arguments, input: None, user: None, before: ":".into() }
    }

    fn name(&self) -> &str {
        self.file.file_name().unwrap().to_str().unwrap()
    }

    /// As its user, with nothing in its environment but what is said here.
    fn around(&self, words: &[&str]) -> Vec<String> {
        let user = self.user.map(|user| ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"]);
        let clean = ["env", "-i", "PATH=/usr/bin:/bin", "PYTHONHASHSEED=0"];
        let words = user.iter().flatten().chain(&clean).chain(words).map(|&word| word.to_owned());
        words.chain([self.file.to_str().unwrap().to_owned()]).chain(self.arguments.iter().cloned()).collect()
    }

    fn input(&self) -> Stdio {
        self.input.as_ref().map_or_else(Stdio::null, |path| File::open(path).unwrap().into())
    }

    /// Prepares a run, and runs a command that does it; nothing of what it prints is of interest.
    fn run(&self, command: &mut Command) {
        assert!(Command::new("sh").args(["-c", &self.before]).status().unwrap().success());
        let output = command.stdin(self.input()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
    }
}

/// A copy of an ELF file in which nothing has a name, and which no debug file is of. Its code and its unwind information are
/// the same, at the same places.
fn nameless(from: &Path, to: &Path) {
    let mut bytes = fs::read(from).unwrap();
    let data = bytes.clone();
    let header = elf::FileHeader64::<LittleEndian>::parse(&*data).unwrap();
    let endian = header.endian().unwrap();
    let sections = header.sections(endian, &*data).unwrap();
    for (index, section) in sections.iter().enumerate() {
        let name = sections.section_name(endian, section).unwrap();
        let names = [elf::SHT_SYMTAB, elf::SHT_DYNSYM].contains(&section.sh_type(endian));
        if names || name.starts_with(b".gnu_debug") {
            // Its name and its type.
            let at = header.e_shoff(endian) as usize + index * usize::from(header.e_shentsize(endian));
            bytes[at..at + 4].fill(0);
            bytes[at + 4..at + 8].copy_from_slice(&elf::SHT_PROGBITS.0.to_le_bytes());
        }
        if name == b".note.gnu.build-id" {
            bytes[section.sh_offset(endian) as usize + 16] ^= 0xff;
        }
    }
    fs::write(to, bytes).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The ELF files that a program maps, each with a nameless copy.
fn copies(program: &Program, directory: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut command = faults("auto", &["--by", "file", "--"]);
    let output = command.args(program.around(&[])).stdin(program.input()).output().unwrap();
    let rows = lines(&output.stdout);
    let paths: BTreeSet<_> =
        rows.iter().filter_map(|row| Path::new(row["file"].as_str()?).canonicalize().ok()).collect();
    let is_elf =
        |path: &PathBuf| path.is_file() && fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"));
    let files = paths.into_iter().filter(is_elf).enumerate();
    let copied = files.map(|(number, path)| {
        let copy = directory.join(format!("nameless-{number}"));
        nameless(&path, &copy);
        (path, copy)
    });
    copied.collect()
}

/// A recording of the program, and the number of its process.
fn record(variant: &str, program: &Program, directory: &Path) -> (PathBuf, String) {
    let recording = directory.join("x.trapline");
    let mut command = Command::new("unshare");
    let mounts =
        "while [ \"$1\" != -- ]; do mount --bind \"$2\" \"$1\" || exit 1; shift 2; done; shift; exec \"$@\"";
    command.args(["--mount", "sh", "-c", mounts, "sh"]);
    for (path, copy) in copies(program, directory) {
        command.arg(path).arg(copy);
    }
    command.args(["--", env!("CARGO_BIN_EXE_trapline"), "faults", "--by", "stack", "--variant", variant]);
    // Once before, so that all its files have their tables.
    let twice = "eval \"$0\"; \"$@\"; sleep 1; eval \"$0\"; exec \"$@\"";
    command.arg("-o").arg(&recording).args(["--", "sh", "-c", twice, &program.before]);
    program.run(command.args(program.around(&["setarch", "-R"])));
    let all = replayed(&recording, &["-v"]);
    let last = all.iter().rfind(|event| event["comm"] == program.name()).expect("it faults");
    (recording, last["pid"].to_string())
}

fn replayed(recording: &Path, options: &[&str]) -> Vec<Value> {
    let output =
        trapline().arg("replay").arg(recording).args(options).args(["--format", "jsonl"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    lines(&output.stdout)
}

/// Instructions that fault at nothing but memory that the program writes to for the first time: who maps a file, and what else
/// of it is mapped then, is for the kernel to say.
fn instructions(events: &[Value], name: &str) -> Vec<u64> {
    let mut all: Vec<(u64, bool)> = vec![];
    for event in events.iter().filter(|event| event["comm"] == name) {
        let Some(ip) = event["ip"].as_u64().filter(|ip| ip >> 47 == 0) else { continue };
        let writes = event["rw"] == "W"
            && ["zero-fill", "copy-on-write"].contains(&event["cause"].as_str().unwrap_or_default());
        match all.iter_mut().find(|(known, _)| *known == ip) {
            Some((_, all_write)) => *all_write &= writes,
            None => all.push((ip, writes)),
        }
    }
    let writing: Vec<u64> = all.into_iter().filter(|(_, writes)| *writes).map(|(ip, _)| ip).collect();
    writing.iter().step_by(writing.len().div_ceil(INSTRUCTIONS).max(1)).copied().collect()
}

/// What the debugger says of each instruction that it did not give up: where it is, and the chains at its faults.
fn by_debugger(program: &Program, instructions: &[u64], directory: &Path) -> BTreeMap<String, Chains> {
    let [wanted, frames, script] =
        ["instructions", "frames", "at_faults.py"].map(|name| directory.join(name));
    let text: String = instructions.iter().map(|ip| format!("{ip:x}\n")).collect();
    fs::write(&wanted, text).unwrap();
    fs::write(&script, include_str!("at_faults.py")).unwrap();
    File::create(&frames).unwrap().set_permissions(fs::Permissions::from_mode(0o666)).unwrap();
    let variables =
        [("INSTRUCTIONS", wanted.to_str()), ("PATIENCE", Some(STOPS)), ("FRAMES", frames.to_str())];
    let variables = variables.map(|(name, value)| format!("TRAPLINE_{name}={}", value.unwrap()));
    let gdb = ["gdb", "-nx", "-batch", "-x", script.to_str().unwrap(), "--args"];
    let words = program.around(&variables.iter().map(String::as_str).chain(gdb).collect::<Vec<_>>());
    program.run(Command::new(&words[0]).args(&words[1..]));
    let (mut places, mut found, mut given_up) =
        (BTreeMap::new(), BTreeMap::<_, Chains>::new(), BTreeSet::new());
    for line in fs::read_to_string(&frames).unwrap().lines() {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match words[..] {
            ["is", ip, place] => drop(places.insert(ip.to_owned(), place.to_owned())),
            ["fault", ip, chain] => {
                *found.entry(ip.to_owned()).or_default().entry(chain.to_owned()).or_default() += 1;
            }
            ["given-up", ip] => drop(given_up.insert(ip.to_owned())),
            _ => panic!("{line}"),
        }
    }
    places.retain(|ip, _| !given_up.contains(ip));
    places.into_iter().map(|(ip, place)| (place, found.remove(&ip).unwrap_or_default())).collect()
}

/// Where functions of the dynamic linker keep their frame in another register than those that the tables follow, as readelf has it:
/// what looks up a function when it is called for the first time.
fn kept_elsewhere() -> Vec<Range<u64>> {
    let mut readelf = Command::new("readelf");
    let output =
        readelf.args(["--debug-dump=frames-interp", "/lib64/ld-linux-x86-64.so.2"]).output().unwrap();
    let (mut found, mut range) = (vec![], 0..0);
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some((_, pcs)) = line.split_once(" FDE ").and_then(|(_, fde)| fde.split_once("pc=")) {
            let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
            let (from, to) = pcs.trim().split_once("..").unwrap();
            range = number(from)..number(to);
        } else if line.split_whitespace().nth(1).is_some_and(|cfa| cfa.starts_with("rbx+")) {
            found.push(range.clone());
        }
    }
    assert!(!found.is_empty());
    found
}

/// The part of a chain that the tables can follow, which says that it is a part.
fn as_far_as_tables_go(chain: &str, kept_elsewhere: &[Range<u64>]) -> String {
    let frames: Vec<&str> = chain.split(';').collect();
    let is_such = |frame: &&str| {
        let offset =
            frame.strip_prefix("ld-linux-x86-64.so.2+0x").and_then(|at| u64::from_str_radix(at, 16).ok());
        offset.is_some_and(|at| kept_elsewhere.iter().any(|range| range.contains(&at)))
    };
    match frames.iter().rposition(is_such) {
        Some(at) if at + 1 < frames.len() => [&[CUT], &frames[at..]].concat().join(";"),
        _ => chain.to_owned(),
    }
}

/// The chains of a recorded process that begin where the program does, by the place of their instruction. What the dynamic linker
/// does before that is not compared: the debugger does not know yet what it has mapped.
fn by_tables(rows: &[Value], name: &str) -> BTreeMap<String, Chains> {
    let mut found = BTreeMap::<_, Chains>::new();
    for row in rows.iter().filter(|row| row["type"] == "total") {
        let Some((_, chain)) = row["stack"].as_str().and_then(|stack| stack.split_once(';')) else {
            continue;
        };
        if chain.starts_with(&format!("{name}+0x")) || chain.starts_with(CUT) {
            let place = chain.rsplit(';').next().unwrap().to_owned();
            *found.entry(place).or_default().entry(chain.to_owned()).or_default() +=
                u(&row["major"]) + u(&row["minor"]);
        }
    }
    found
}

fn compare(variant: &str, program: &Program) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (recording, pid) = record(variant, program, directory.path());
    let events = replayed(&recording, &["-v", "-p", &pid]);
    let theirs = by_debugger(program, &instructions(&events, program.name()), directory.path());
    let mut ours = by_tables(&replayed(&recording, &["--by", "stack", "-p", &pid]), program.name());
    let mut deep = BTreeSet::new();
    let mut faults = 0;
    let kept_elsewhere = kept_elsewhere();
    for (place, whole) in &theirs {
        let ours = ours.remove(place).unwrap_or_default();
        let mut theirs = Chains::new();
        for (chain, faults) in whole {
            *theirs.entry(as_far_as_tables_go(chain, &kept_elsewhere)).or_default() += faults;
        }
        assert_eq!(ours, theirs, "{}: at {place}", program.name());
        faults += ours.values().sum::<u64>();
        let is_deep = |chain: &String| !chain.starts_with(CUT) && chain.split(';').count() >= DEEP;
        deep.extend(ours.into_keys().filter(is_deep));
    }
    let deepest = deep.iter().map(|chain| chain.split(';').count()).max().unwrap_or(0);
    println!(
        "{}: {faults} faults at {} instructions have the debugger's chains; {} chains of {DEEP} frames and more, up to {deepest}",
        program.name(),
        theirs.len(),
        deep.len()
    );
    assert!(deep.len() >= LEAST, "{}: {deep:#?}", program.name());
}

/// Statements that use indexes and sort, for both databases.
const STATEMENTS: &str = "create table t (a int, b int);\n\
    insert into t with recursive c (n) as (select 1 union all select n + 1 from c where n < 3000) select n, n * 7 from c;\n\
    create index i on t (b);\nselect count(*), sum(b) from t group by a % 7 order by 2;\n";

pub fn sqlite_has_the_chains_of_the_debugger(variant: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script.sql");
    fs::write(&script, STATEMENTS).unwrap();
    compare(
        variant,
        &Program::new("/usr/bin/sqlite3", &["-batch", "-init", script.to_str().unwrap(), ":memory:"]),
    );
}

pub fn python_has_the_chains_of_the_debugger(variant: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script.py");
    let text = "import json, re, decimal, sqlite3\nx = [json.dumps({'a': [i] * 50}) for i in range(300)]\n\
                y = [re.findall('[0-4]+', s) for s in x]\n\
                z = sum(decimal.Decimal(i) / 7 for i in range(500))\n";
    fs::write(&script, text).unwrap();
    compare(variant, &Program::new("/usr/bin/python3", &[script.to_str().unwrap()]));
}

pub fn gcc_has_the_chains_of_the_debugger(variant: &'static str) {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("functions.c");
    let function =
        |n: u32| format!("int f{n}(int x) {{ int s = {n}; while (x--) s += s * x + {n}; return s; }}\n");
    fs::write(&source, (0..20).map(function).collect::<String>()).unwrap();
    let output = Command::new("gcc").arg("-print-prog-name=cc1").output().unwrap();
    let compiler = String::from_utf8(output.stdout).unwrap();
    let arguments = ["-quiet", "-O2", source.to_str().unwrap(), "-o", "/dev/null"];
    compare(variant, &Program::new(compiler.trim(), &arguments));
}

/// The server, as the distribution has it.
pub fn postgresql() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    versions.map(|version| version.path().join("bin/postgres")).find(|path| path.exists())
}

/// One process that does all: nobody has to connect to it.
pub fn postgresql_has_the_chains_of_the_debugger(variant: &'static str) {
    let server = postgresql().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let user = nix::unistd::User::from_name("postgres").unwrap().expect("the package makes it");
    std::os::unix::fs::chown(directory.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    let [made, data, script] = ["made", "data", "script.sql"].map(|name| directory.path().join(name));
    let [made, data] = [made, data].map(|path| path.to_str().unwrap().to_owned());
    fs::write(&script, STATEMENTS).unwrap();
    let as_user = Program { user: Some("postgres"), ..Program::new(server.with_file_name("initdb"), &[]) };
    let words =
        [as_user.around(&[]), ["-D", &made, "--no-sync", "--locale=C"].map(str::to_owned).to_vec()].concat();
    as_user.run(Command::new(&words[0]).args(&words[1..]));
    let arguments = ["--single", "-D", &data, "-F", "postgres"];
    let before = format!("rm -rf {data} && cp -a {made} {data}");
    let (user, input) = (Some("postgres"), Some(script));
    compare(variant, &Program { user, input, before, ..Program::new(server, &arguments) });
}
