//! What cannot be done is said in one line, with the right status.

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::run::{
    Beside, Place, as_nobody, doctor, faults, fixture, is_younger, lines, one_line, place, spawn, sum,
    trapline,
};
use crate::running::{Running, Worker, state, until};

pub fn without_privileges(_: &'static str) {
    one_line(&as_nobody(&mut faults("auto", &["-d", "1s"])), 3, "run as root");
    for arguments in ["doctor", "doctor --programs"] {
        let output = as_nobody(trapline().args(arguments.split(' ')));
        assert_eq!(output.status.code(), Some(3), "{arguments}");
    }
    for arguments in [
        "faults --by cause -- true",
        "faults --by cgroup -- true",
        "kvm count -d 1ms",
        "sgx -d 1ms",
        "access -- true",
        "access --exec true -d 1ms",
        "targets list",
        "targets add true",
        "doctor --repair",
        "workload guest --io 1",
    ] {
        one_line(&as_nobody(trapline().args(arguments.split(' '))), 3, "");
    }
}

/// A variant that lacks descriptors is not replaced by a poorer one; and the command keeps the limit that it was given.
pub fn few_descriptors(_: &'static str) {
    let limited = |limit: &str, inside: &str| {
        let line = format!("ulimit {limit} 20; exec \"$@\"");
        let own = env!("CARGO_BIN_EXE_trapline");
        let words = ["-c", &line, "sh", own, "faults", "--format", "jsonl", "--", "sh", "-c", inside];
        Command::new("sh").args(words).stdin(Stdio::null()).output().unwrap()
    };
    one_line(&limited("-n", "exit 9"), 1, "the limit of open files is 20");
    let output = limited("-Sn", "test $(ulimit -Sn) -eq 20");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_ne!(lines(&output.stdout)[0]["variant"], "rootless");
}

/// One that has ended, and that nobody has waited for.
pub fn a_zombie(_: &'static str) {
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id().to_string();
    until("it has ended", || state(child.id()) == 'Z');
    for variant in ["auto", "rootless"] {
        one_line(&faults(variant, &["-p", &pid]).output().unwrap(), 1, "a zombie");
    }
    child.wait().unwrap();
}

/// A process whose first thread has ended goes on.
pub fn a_process_without_its_first_thread(variant: &'static str) {
    let program = r#"
import ctypes, threading, mmap, sys
def work():
    sys.stdin.read()
    memory = mmap.mmap(-1, 4096 * 500)
    for page in range(500): memory[page * 4096] = 1
threading.Thread(target=work).start()
ctypes.CDLL(None).pthread_exit(None)
"#;
    let worker = Worker::by(Command::new("python3").args(["-c", program]));
    until("its first thread has ended", || state(worker.id()) == 'Z');
    let trapline = Beside::start(faults(variant, &["-p", &worker.id().to_string()]));
    worker.end();
    let said = trapline.wait();
    assert!((500..2000).contains(&sum(&said.totals, |_| true).1), "{:?}", said.totals);
}

pub fn a_full_disk(_: &'static str) {
    let output = faults("auto", &["-i", "50", "-d", "1s"])
        .stdout(File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    one_line(&output, 1, "No space left on device");
}

pub fn a_closed_pipe(_: &'static str) {
    let mut command = faults("auto", &["-i", "20"]);
    let mut child = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    drop(child.stdout.take());
    let output = child.output();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// Somebody who does not read holds it up; a second interrupt ends it all the same.
pub fn a_stuck_reader(_: &'static str) {
    let mut child = Running::start(faults("auto", &["-v"]).stdout(Stdio::piped()));
    // It is attached when it has begun to speak; no more than that is read.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let mut storm = spawn(&[fixture("touch"), vec!["20000".into()]].concat());
    storm.wait().unwrap();
    assert_eq!(end_of_stuck(&mut child, Signal::SIGINT).code(), Some(130));
}

/// Waits until it cannot write any more, and asks for its end until that comes.
pub fn end_of_stuck(child: &mut Running, signal: Signal) -> ExitStatus {
    let place = format!("/proc/{}/wchan", child.id());
    until("it cannot write", || fs::read_to_string(&place).is_ok_and(|wchan| wchan.contains("pipe_write")));
    let mut status = None;
    until("its end", || {
        child.send(signal);
        // Two within 100 ms are one.
        std::thread::sleep(Duration::from_millis(150));
        status = child.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// Each variant that it calls working works, each that it refuses is refused when asked for, with the same reason.
pub fn the_doctor_tells_the_truth(_: &'static str) {
    let output = doctor();
    let rows: Vec<_> = lines(&output.stdout).into_iter().filter(|line| line["type"] == "row").collect();
    let of = |tool: &str| rows.iter().filter(|row| row["tool"] == tool).cloned().collect::<Vec<_>>();
    let header = &lines(&output.stdout)[0];
    // A tool about something that this machine does not have is named in the header with what is missing.
    let works =
        |tool: &str| header.get(tool).is_some() || of(tool).iter().any(|row| row["attaches"] == "yes");
    let all = rows.iter().all(|row| works(row["tool"].as_str().unwrap()));
    assert_eq!(output.status.code(), Some(if all { 0 } else { 3 }));
    assert_eq!((of("faults").len(), of("kvm").len()), (5, 2));
    for row in rows.iter().filter(|_| place() == Place::Vm) {
        let [tool, variant] = ["tool", "variant"].map(|field| row[field].as_str().unwrap());
        let may_be_missing = header.get(tool).is_some() || is_younger(variant);
        assert!(row["attaches"] == "yes" || may_be_missing, "{row}");
    }
    // Where there is no SGX, no privilege and no other variant helps.
    for row in of("sgx").iter().filter(|row| row["attaches"] == "no" && header.get("sgx").is_some()) {
        assert_eq!(row["remedy"], header["sgx"], "{row}");
    }
    for row in of("faults").into_iter().chain(of("kvm")) {
        let variant = row["variant"].as_str().unwrap();
        let output = match row["tool"].as_str() {
            // It sees one's own processes, which have to be named.
            Some("faults") if variant == "rootless" => faults(variant, &["--", "true"]),
            Some("faults") => faults(variant, &["-d", "100ms"]),
            _ => crate::kvm::run("count", variant, &["-d", "100ms"]),
        };
        let output = { output }.output().unwrap();
        if row["attaches"] == "yes" {
            assert_eq!(output.status.code(), Some(0));
        } else {
            one_line(&output, 3, row["error"].as_str().unwrap());
            assert!(row["errno"].as_str().is_some_and(|name| name.starts_with('E')), "{row}");
        }
    }
}

/// What another user has put into a directory for everybody is not written to, though the kernel would allow it.
pub fn through_what_others_have_put_there(_: &'static str) {
    let folder = tempfile::tempdir().unwrap();
    let (shared, own) = (folder.path().join("shared"), folder.path().join("own"));
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
    fs::write(&own, "root's").unwrap();
    let others = |name: &str| {
        let path = shared.join(name);
        lchown(&path, Some(65534), Some(65534)).unwrap();
        path
    };
    symlink(&own, shared.join("link.jsonl")).unwrap();
    symlink(folder.path(), shared.join("way")).unwrap();
    fs::write(shared.join("file.jsonl"), "theirs").unwrap();
    nix::unistd::mkfifo(&shared.join("pipe.jsonl"), Mode::S_IRWXU).unwrap();
    fs::hard_link(&own, shared.join("second.jsonl")).unwrap();
    fs::create_dir(shared.join("theirs")).unwrap();
    symlink(&own, shared.join("theirs/link.jsonl")).unwrap();
    lchown(shared.join("theirs/link.jsonl"), Some(65534), Some(65534)).unwrap();
    for (path, why) in [
        (others("link.jsonl"), "is a symbolic link of uid 65534"),
        (others("way").join("own.jsonl"), "is a symbolic link of uid 65534"),
        (others("file.jsonl"), "belongs to uid 65534"),
        (others("pipe.jsonl"), "belongs to uid 65534"),
        (shared.join("second.jsonl"), "has 2 hard links"),
        (others("theirs").join("link.jsonl"), "is a symbolic link of uid 65534"),
    ] {
        let path = path.to_str().unwrap();
        for form in ["jsonl", "svg"] {
            let arguments = ["faults", "--by", "stack", "--format", form, "-o", path, "--", "true"];
            one_line(&trapline().args(arguments).output().unwrap(), 1, why);
        }
        let output = trapline().args(["workload", "data", "-s", "1", "-f", path]).output().unwrap();
        assert!(!output.status.success(), "{output:?}");
    }
    assert_eq!(fs::read_to_string(&own).unwrap(), "root's");
    assert_eq!(fs::read_to_string(shared.join("file.jsonl")).unwrap(), "theirs");
}
