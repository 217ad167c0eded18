//! Tables that all processes share are finite: one that fills them leaves something to the others, and what is taken out
//! of them is counted to the last fault.

#![allow(unsafe_code)]

use std::arch::global_asm;
use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::fixture::{PAGE, map, rusage};
use crate::run::{Beside, Said, faults, fixture, in_full, lines, missed, sum, u};
use crate::running::Worker;

/// Files that one process maps: more than `--by file` has a place for, which is 32,768.
const FILES: usize = 34_000;
/// Stacks that one process has: more than `--by stack` has a place for, which is 16,384.
const STACKS: usize = 17_000;
/// What comes after that.
const FEW: usize = 64;

global_asm!(
    r#"
    # rdi: a page, rsi: bits, each of which decides which of the two is called, rdx: how many
    .macro fair_way name
    .globl \name
    .type \name, @function
    \name:
        push rbp
        mov rbp, rsp
        test rdx, rdx
        jz 2f
        dec rdx
        shr rsi, 1
        jc 1f
        call fair_left
        pop rbp
        ret
    1:  call fair_right
        pop rbp
        ret
    2:  mov byte ptr [rdi], 1
        pop rbp
        ret
    .size \name, . - \name
    .endm

    .text
    fair_way fair_left
    fair_way fair_right
    "#
);

unsafe extern "C" {
    fn fair_left(page: *mut u8, bits: u64, depth: u64);
}

/// Maps this many files one after the other and writes to each, which is one fault; then as many stacks fault.
pub fn flood(name: &str, files: usize, stacks: usize) {
    let faults = || rusage(libc::RUSAGE_THREAD).1;
    let mut written = 0;
    for number in 0..files {
        let text = CString::new(format!("{name}-{number}")).unwrap();
        // SAFETY: the name outlives the call; what is mapped is ours alone until it is unmapped.
        unsafe {
            let fd = libc::memfd_create(text.as_ptr(), 0);
            assert!(fd >= 0 && libc::ftruncate(fd, PAGE as i64) == 0);
            let flags = libc::MAP_SHARED;
            let at = libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_WRITE, flags, fd, 0);
            assert_ne!(at, libc::MAP_FAILED);
            let before = faults();
            at.cast::<u8>().write_volatile(1);
            written += faults() - before;
            libc::munmap(at, PAGE);
            libc::close(fd);
        }
    }
    let memory = map(stacks.max(1) * PAGE, 0);
    let before = faults();
    for number in 0..stacks {
        // SAFETY: the page is within what was mapped.
        unsafe { fair_left(memory.0.add(number * PAGE), number as u64, 15) };
    }
    let walked = faults() - before;
    let rest = faults() - written - walked;
    println!(
        "{}",
        serde_json::json!({"type": "truth", "pid": std::process::id(), "written": written, "walked": walked, "rest": rest})
    );
}

/// The fixture that does that, to its end; gives what it says.
pub fn flooded(name: &str, files: usize, stacks: usize) -> serde_json::Value {
    flooded_by(Command::new(&fixture("flood")[0]), name, files, stacks)
}

fn flooded_by(mut command: Command, name: &str, files: usize, stacks: usize) -> serde_json::Value {
    let words = fixture("flood");
    command.args(&words[1..]).arg(name).args([files, stacks].map(|n| n.to_string()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    lines(&output.stdout).remove(0)
}

/// A process that maps more files than there are rows takes nothing from the next one, and is counted exactly itself.
pub fn files(variant: &'static str) {
    let beside = Beside::start(faults(variant, &["--by", "file"]));
    let truth = flooded("flood", FILES, 0);
    let few = flooded("few", FEW, 0);
    let said = beside.interrupt();
    let of = |said: &Said, what: &str| {
        let file = |row: &serde_json::Value| row["file"].as_str().unwrap_or_default().to_owned();
        let rows = said.totals.iter().filter(|row| file(row).starts_with(what)).count();
        (rows, sum(&said.totals, |row| file(row).starts_with(what)).1)
    };
    let (rows, faults) = of(&said, "[shmem] memfd:few-");
    assert!(said.is_but_for_missed(faults, u(&few["written"]), 1), "{faults} of {few}; {}", said.end);
    assert!(said.is_but_for_missed(rows as u64, FEW as u64, 1), "{rows} rows; {}", said.end);
    let (rows, own) = of(&said, "[shmem] memfd:flood-");
    let (others, other) = of(&said, &format!("(other files of {} [{}])", comm(), truth["pid"]));
    // Where trapline is slow to read names, there is no space for a few: these files are shown by their inode.
    let nameless = of(&said, "[inode ").1;
    assert!(nameless < 100, "{nameless} of {truth}");
    let all = own + nameless + other;
    let (least, missed) = (u(&truth["written"]), missed(&said.end));
    // A row that was not used of late makes room, that of the program's own file, too: faults on it are then among those on
    // the process's other files. Some come after the fixture has spoken, as it ends.
    let most = least + u(&truth["rest"]) + 64;
    assert!(all + missed >= least && all <= most, "{own} {nameless} {other} of {truth}");
    assert!(rows > 1000 && others <= 1, "{rows} rows for one process, {others} for its others");
    assert!(other > 1000 && u(&said.end["over_quota_faults"]) >= other, "{}", said.end);
}

/// The ring of events: processes that fill it, of two users, leave a part of it to a third.
pub fn events(variant: &'static str) {
    // It is that user's from its first fault on: the ring may have no place for root's.
    let words = [fixture("flood"), ["few".into(), FEW.to_string(), "0".into()].to_vec()].concat();
    let mut few = Command::new("sh");
    few.args(["-c", "read line; exec \"$@\"", "sh"]).args(words).uid(65533).gid(65533);
    let mut few = Worker::by(&mut few);
    let mut beside = Beside::start(faults(variant, &["-v", "--ring-size", "2"]));
    // Nobody reads meanwhile.
    beside.stop();
    // More than there is room for; each is 200 bytes or so.
    let by = |uid, name, files| {
        let mut command = Command::new(&fixture("flood")[0]);
        command.uid(uid).gid(uid);
        flooded_by(command, name, files, 0)
    };
    let floods = [0, 65534, 65534, 65534].map(|uid| by(uid, "flood", 8000));
    few.tell("");
    let few = lines(few.end().as_bytes()).remove(0);
    beside.go_on();
    // After an interrupt there is no time for what is in the ring: what comes behind it is waited for.
    let behind = by(65532, "behind", 1);
    while beside.next()["pid"] != behind["pid"] {}
    let said = beside.interrupt();
    let of = |pid: &serde_json::Value| {
        let counted = sum(&said.totals, |row| row["pid"] == *pid);
        (said.events.iter().filter(|event| event["pid"] == *pid).count() as u64, counted.0 + counted.1)
    };
    for flood in floods {
        let (shown, counted) = of(&flood["pid"]);
        assert!(shown < counted && counted >= u(&flood["written"]), "{shown} of {counted}: {flood}");
    }
    let (shown, counted) = of(&few["pid"]);
    assert!(said.is_but_for_missed(shown, counted, 1), "{shown} of {counted}: {few} {}", said.end);
    assert!(counted >= u(&few["written"]) && u(&said.end["lost_events"]) > 0, "{few} {}", said.end);
}

/// The same of stacks.
pub fn stacks(variant: &'static str) {
    // Under emulation thousands of rows take seconds.
    let interval = if in_full() { "1s" } else { "4s" };
    let mut beside = Beside::start(faults(variant, &["--by", "stack", "-c", "-i", interval]));
    let truth = flooded("flood", 0, STACKS);
    let few = flooded("few", 0, FEW);
    beside.until_all_is_named(&comm());
    let said = beside.interrupt();
    let stack = |row: &serde_json::Value| row["stack"].as_str().unwrap_or_default().to_owned();
    let walked = |row: &serde_json::Value| stack(row).contains(";fair_left;");
    let other = |row: &serde_json::Value| stack(row) == format!("{};(other stacks)", comm());
    let (own, others) = (sum(&said.totals, walked).1, sum(&said.totals, other).1);
    let all = u(&truth["walked"]) + u(&few["walked"]);
    // Faults of the runtime before and after are in the row of the others, too.
    assert!(own + others >= all - missed(&said.end), "{own} {others} of {all}; {}", said.end);
    assert!(own + others < all + 2000, "{own} {others} of {all}; {}", said.end);
    assert!(others > 1000 && u(&said.end["over_quota_faults"]) >= others, "{}", said.end);
    // While entries are taken out, one that is in use may have no place for a moment; whose it was is not known.
    let no_place = u(&said.end["unattributed_faults"]) + u(&said.end["lost_stacks"]);
    assert!(no_place * 100 <= u(&said.end["events"]), "{}", said.end);
    // All of the later one have their own rows: those of the first numbers are both processes', and the same.
    let firsts = said.totals.iter().filter(|row| walked(row) && row["minor"] == 2).count();
    assert!(said.is_but_for_missed(firsts as u64, FEW as u64, 1), "{firsts} of {FEW}; {}", said.end);
}

/// More files one after the other than the table holds, and than `--memory` has a place for: taken out of the table and
/// folded, and the rows still add up.
pub fn files_come_and_go(variant: &'static str) {
    // Under emulation it takes longer to go over the table.
    let interval = if in_full() { "50ms" } else { "1s" };
    let mut command = faults(variant, &["--by", "file", "--memory", "4M", "-i", interval, "--"]);
    let words = fixture("flood");
    // Twice as many as in the other tests: where a processor is fast, those of the first second have the whole table.
    let said = Said::by(command.args(words).args(["flood", &(2 * FILES).to_string(), "0"]));
    assert_eq!(said.header["memory_mb"], 4);
    let (rows, totals) = (sum(&said.rows, |_| true), sum(&said.totals, |_| true));
    assert_eq!(rows, totals);
    assert_eq!(u(&said.end["events"]), totals.0 + totals.1);
    assert!(totals.1 >= u(&said.truth[0]["written"]), "{totals:?} of {}", said.truth[0]);
    assert!(u(&said.end["folded_rows"]) > 5_000, "{}", said.end);
    assert!(said.totals.iter().any(|row| row["file"] == "(folded files)"));
}

/// What these processes are called.
pub fn comm() -> String {
    let own = std::env::current_exe().unwrap();
    own.file_name().unwrap().to_str().unwrap().chars().take(15).collect()
}
