//! The symbolizer's cage, and what becomes of requests that end it.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;

use super::client::{Client, Lost};
use super::wire::{Misdeed, Reply, Request};

fn misbehave(client: &mut Client, misdeed: Misdeed) -> Result<Reply, Lost> {
    client.call(&Request::Misbehave(misdeed), None)
}

#[test]
fn the_symbolizer_has_no_privilege_and_forbidden_calls_fail() {
    let mut client = Client::default();
    let reply = misbehave(&mut client, Misdeed::Calls).unwrap();
    let Reply::Errors(errors) = reply else { panic!("{reply:?}") };
    assert_eq!(errors, [libc::EPERM; 6]);
    let pid = client.pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line(set), "0000000000000000", "{set}");
    }
    assert_eq!((line("NoNewPrivs:"), line("Seccomp:")), ("1".into(), "2".into()));
    if nix::unistd::Uid::effective().is_root() {
        assert_eq!(line("Uid:"), "65534 65534 65534 65534");
        assert_eq!((line("Gid:"), line("Groups:")), ("65534 65534 65534 65534".into(), String::new()));
    }
    // Nothing but the socket, standard output and error, and the count of its memory.
    if let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) {
        let mut targets: Vec<_> = open
            .flatten()
            .map(|fd| fs::read_link(fd.path()).unwrap().to_string_lossy().into_owned())
            .collect();
        targets.sort();
        assert!(targets[..2] == ["/dev/null", "/dev/null"] && targets.len() == 4, "{targets:?}");
        assert!(targets[2].ends_with("/statm") && targets[3].starts_with("socket:"), "{targets:?}");
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, pid.to_string(), "it has a session of its own");
}

#[test]
fn requests_that_end_the_symbolizer_have_their_reasons_and_others_go_on() {
    let mut client = Client::default();
    for (misdeed, why) in [
        (Misdeed::Swell, "the symbolizer ran out of memory on this file"),
        (Misdeed::Hang, "reading the file takes too long"),
    ] {
        assert_eq!(misbehave(&mut client, misdeed).unwrap_err(), Lost::Fault(why.into()));
    }
    assert!(matches!(misbehave(&mut client, Misdeed::Babble), Ok(Reply::Bad(text)) if text.len() == 10_000));
    let truncated = {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&fs::read("/proc/self/exe").unwrap()).unwrap();
        file
    };
    let size = truncated.metadata().unwrap().len();
    let opened = client.call(&Request::Open { id: 1, size, lines: true }, Some(truncated.as_fd()));
    assert!(matches!(opened, Ok(Reply::Opened { .. })), "{opened:?}");
    truncated.set_len(0).unwrap();
    let found = client.call(&Request::Find { id: 1, at: vec![0x1000] }, None);
    assert_eq!(
        found.unwrap_err(),
        Lost::Fault("the file was truncated or unreadable while the symbolizer read it".into())
    );
    let reply = misbehave(&mut client, Misdeed::Calls);
    assert!(matches!(reply, Ok(Reply::Errors(_))), "{reply:?}");
}
