//! Targets that do what they can against their tracer, and users who would stand in root's way.

#![allow(unsafe_code)]

use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::access::{access, tracer};
use crate::run::{Place, as_nobody, fixture, lines, one_line, place, trapline, u};
use crate::running::{Running, Worker, until};

/// A fixture that has said that it is ready, and goes on when it is told to.
fn ready(name: &str, argument: &str) -> Worker {
    let mut words = fixture(name);
    words.push(argument.into());
    let mut target = Worker::start(&words);
    assert_eq!(target.line(), "ready");
    target
}

/// Tells it to go on to its end: what it prints until then.
fn finish(mut target: Worker) -> String {
    target.tell("");
    target.end().trim().to_owned()
}

/// A program that makes a userfaultfd of its own while it is traced, or has one, works as it does without us.
pub fn a_userfaultfd_of_its_own(engine: &'static str) {
    for before in ["0", "0", "0", "1"] {
        let target = ready("own-uffd", before);
        let tracer = tracer(engine, &["-p", &target.id().to_string()]).begun();
        assert_eq!(finish(target), "sum 56");
        let said = tracer.wait();
        let notes: Vec<_> = said.iter().filter_map(|line| line["note"].as_str()).collect();
        let end = said.last().unwrap();
        if has_userfaultfd(engine) {
            assert!(notes.iter().any(|note| note.contains("a userfaultfd of its own")), "{notes:?}");
            assert_eq!((u(&end["unreset_processes"]), u(&end["conflicting_registrations"])), (1, 0), "{end}");
        }
    }
}

/// Whether an engine puts a userfaultfd over memory here: on older kernels `writes` clears soft-dirty bits.
fn has_userfaultfd(engine: &str) -> bool {
    engine == "rwp" || engine == "writes" && place() == Place::Here
}

/// The words of a process's status behind `name`.
fn status_of(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().to_owned()
}

/// A target that changed its code under the thread that is led over it: it is refused or traced, never waited for without
/// end, and goes on as if nothing had been.
pub fn code_that_changes(engine: &'static str) {
    // It takes a processor for the thread that changed its code, and one for the tracer.
    if place() == Place::Vm {
        return;
    }
    for (means, why, enough) in [
        ("loop", "does not stop", 2),
        ("int80", "changed its code", 1),
        ("memfd-int80", "changed its code", 1),
    ] {
        let target = ready("changes-code", means);
        let pid = target.id();
        let mut refusals = 0;
        for turn in 0..15 {
            let (mut tracer, _file) = access(engine, &["-p", &pid.to_string(), "-d", "50ms"]);
            let mut tracer = Running::start(tracer.stderr(Stdio::piped()));
            if means == "loop" && turn % 2 == 1 {
                // Killed in the middle, it leaves nobody stopped or traced either.
                std::thread::sleep(Duration::from_millis(400));
                let signal = if turn % 4 == 1 { Signal::SIGKILL } else { Signal::SIGINT };
                let _ = kill(Pid::from_raw(tracer.id() as i32), signal);
            }
            until("its end", || tracer.try_wait().unwrap().is_some());
            let output = tracer.output();
            let error = String::from_utf8_lossy(&output.stderr);
            until("nobody traces it", || status_of(pid, "TracerPid:") == "0");
            if output.status.code() == Some(1) {
                assert!(error.contains(why) && error.trim_end().lines().count() == 1, "{error}");
                refusals += 1;
            }
            if refusals == enough {
                break;
            }
        }
        println!("{engine}, {means}: refused {refusals} times");
        assert!(refusals > 0, "its code never changed in time");
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let made: Vec<_> = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
        assert!(!made.iter().any(|to| to.to_string_lossy().contains("eventfd")), "{made:?}");
        assert_eq!(finish(target), "done");
    }
}

/// The process's own code that the kernel gave it: the whole mapping.
fn vdso() -> (u64, u64) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
    let (start, end) = line.split(' ').next().unwrap().split_once('-').unwrap();
    let hex = |text| u64::from_str_radix(text, 16).unwrap();
    (hex(start), hex(end))
}

/// Makes the vDSO writable: the addresses of its `syscall` instructions.
fn writable_vdso() -> Vec<usize> {
    let (start, end) = vdso();
    let len = (end - start) as usize;
    let at = std::ptr::with_exposed_provenance_mut::<u8>(start as usize);
    // SAFETY: the whole mapping, whose code stays what it is until somebody makes this thread execute it.
    let text = unsafe {
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        assert_eq!(libc::mprotect(at.cast(), len, all), 0, "the vDSO is sealed");
        std::slice::from_raw_parts(at, len)
    };
    let places: Vec<usize> =
        (0..len - 1).filter(|&i| text[i..i + 2] == [0x0f, 0x05]).map(|i| at as usize + i).collect();
    assert!(!places.is_empty());
    places
}

/// Has a `syscall` instruction in a file in memory only, before all other code and with a second mapping that can be
/// written to: the address there. The vDSO is gone.
fn mapped_twice() -> usize {
    let file = nix::sys::memfd::memfd_create(c"code", nix::sys::memfd::MFdFlags::empty()).unwrap();
    let file = std::fs::File::from(file);
    file.write_all_at(&[0x0f, 0x05, 0xc3], 0).unwrap();
    file.set_len(4096).unwrap();
    let map = |at: usize, protection, flags| {
        let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(at);
        // SAFETY: new mappings; nothing is at the low address.
        let at = unsafe {
            libc::mmap(
                at,
                4096,
                protection,
                libc::MAP_SHARED | flags,
                std::os::fd::AsRawFd::as_raw_fd(&file),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED);
        at as usize
    };
    map(1 << 20, libc::PROT_READ | libc::PROT_EXEC, libc::MAP_FIXED_NOREPLACE);
    let (start, end) = vdso();
    let vdso = std::ptr::with_exposed_provenance_mut::<libc::c_void>(start as usize);
    // SAFETY: nothing here asks for the time any more.
    assert_eq!(unsafe { libc::munmap(vdso, (end - start) as usize) }, 0);
    map(0, libc::PROT_READ | libc::PROT_WRITE, 0)
}

/// Puts other instructions in the place of each `syscall` of the vDSO while this thread has every signal blocked, which is
/// what a tracer does to it.
pub fn changes_code(means: &str) {
    let bytes: [u8; 2] = match means {
        "loop" => [0xeb, 0xfe],
        _ => [0xcd, 0x80],
    };
    let places = if means == "memfd-int80" { vec![mapped_twice()] } else { writable_vdso() };
    let write = move |bytes: [u8; 2]| {
        for &place in &places {
            // SAFETY: within the mapping, which is writable; nothing else writes to it.
            unsafe { std::ptr::with_exposed_provenance_mut::<[u8; 2]>(place).write_volatile(bytes) };
        }
    };
    let status = std::fs::File::open(format!("/proc/self/task/{}/status", std::process::id())).unwrap();
    std::thread::spawn(move || {
        let mut text = [0; 4096];
        let mut changed = false;
        loop {
            let read = status.read_at(&mut text, 0).unwrap_or(0);
            let blocked = text[..read].windows(14).any(|bytes| bytes == b"SigBlk:\tffffff");
            if blocked != changed {
                write(if blocked { bytes } else { [0x0f, 0x05] });
                changed = blocked;
            }
        }
    });
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    println!("done");
}

/// A sandboxed process without a vDSO.
pub fn no_vdso() {
    let (start, end) = vdso();
    let at = std::ptr::with_exposed_provenance_mut::<libc::c_void>(start as usize);
    // SAFETY: nothing here asks for the time any more.
    assert_eq!(unsafe { libc::munmap(at, (end - start) as usize) }, 0);
    crate::access::reach::confine();
    println!("ready");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    println!("done");
}

/// Where a sandboxed program could have written the instruction, nothing is called in it.
pub fn sandboxed_without_a_vdso(engine: &'static str) {
    if !has_userfaultfd(engine) {
        return;
    }
    let target = ready("no-vdso", "");
    let (mut tracer, _file) = access(engine, &["-p", &target.id().to_string(), "-d", "100ms"]);
    let output = tracer.output().unwrap();
    one_line(&output, 1, "has no vDSO");
    assert_eq!(finish(target), "done");
}

/// What trapline does after a shell command, in a mount namespace of its own.
fn after(command: &str, words: &str) -> Output {
    let script = format!("{command}\nexec {} {words}", env!("CARGO_BIN_EXE_trapline"));
    Command::new("unshare").args(["--mount", "sh", "-ec", &script]).output().unwrap()
}

/// The lock is root's: others cannot take it, nor make trapline take another one.
pub fn the_lock_is_roots(engine: &'static str) {
    let (mut tracer, _file) = access(engine, &["--", "true"]);
    assert!(tracer.status().unwrap().success());
    for (path, mode) in [("/run/trapline", 0o700), ("/run/trapline/access.lock", 0o600)] {
        let metadata = std::fs::symlink_metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (0, mode), "{path}");
    }
    assert!(!as_nobody(Command::new("cat").arg("/run/trapline/access.lock")).status.success());
    let access = "access --reset none -- true";
    let refused = |made: &str, holds: &str| {
        let output = after(&format!("mount -t tmpfs none /run\n{made}"), access);
        one_line(&output, 1, holds);
    };
    refused("mkdir /run/trapline; chown 65534 /run/trapline", "belongs to user 65534");
    refused("ln -s /tmp /run/trapline", "cannot open /run/trapline");
    refused("mkdir -m 700 /run/trapline; ln -s /etc/hostname /run/trapline/access.lock", "access.lock");
    refused("mkdir -m 700 /run/trapline; mkfifo -m 600 /run/trapline/access.lock", "is not a file");
    // One that others could lock until now is replaced.
    let lax = "mkdir /run/trapline; touch /run/trapline/access.lock; chmod 666 /run/trapline/access.lock";
    let output = after(&format!("mount -t tmpfs none /run\n{lax}"), access);
    assert!(output.status.success(), "{output:?}");
}

/// The list of targets is used only where nobody else can have made it.
pub fn the_list_is_roots(_: &'static str) {
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    let list = "/sys/fs/bpf/trapline";
    for (made, holds) in [
        (format!("{nobody} mkdir {list}"), "belongs to user 65534"),
        (format!("mkdir -m 777 {list}"), "other users can write to"),
        (format!("mkdir -m 700 {list}; ln -s /sys/fs/bpf/other {list}/targets"), "is a link"),
        (format!("ln -s /sys/fs/bpf/other {list}"), "is not a directory"),
    ] {
        let mounted = format!("mount -t bpf -o mode=1777 none /sys/fs/bpf\n{made}");
        for words in ["targets add x", "targets clear", "access --exec x -d 100ms"] {
            one_line(&after(&mounted, words), 1, holds);
        }
    }
}

/// The doctor says to an ordinary user what that user would be told by the tool.
pub fn an_ordinary_user(engine: &'static str) {
    let own = std::process::id().to_string();
    one_line(
        &as_nobody(trapline().args(["access", "--reset", engine, "-p", &own, "-d", "1s"])),
        3,
        "run as root",
    );
    one_line(&as_nobody(trapline().args(["targets", "list"])), 3, "");
    let doctor = as_nobody(trapline().args(["doctor", "--format", "jsonl"]));
    let rows = lines(&doctor.stdout);
    let engines: Vec<_> = rows.iter().filter(|row| row["tool"] == "access").collect();
    assert!(engines.len() == 4 && engines.iter().all(|row| row["attaches"] == "no"), "{engines:?}");
    // What may not be read is there all the same.
    let denied = |e: std::io::Error| e.kind() == std::io::ErrorKind::PermissionDenied;
    if std::fs::read("/proc/1/maps").is_err_and(denied) {
        let output = trapline().args(["access", "-p", "1", "-d", "1s"]).output().unwrap();
        one_line(&output, 3, "EACCES");
    }
}
