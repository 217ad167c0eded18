//! A screen in a pseudo terminal, whose other end is here: a child that runs one of these tests has it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};

use super::*;

/// Panics at a key.
struct Fragile;

impl Picture for Fragile {
    fn draw(&mut self, area: Rect) -> Buffer {
        Buffer::with_lines([format!("{:<1$}", "picture", usize::from(area.width))])
    }

    fn press(&mut self, _: &[u8]) -> bool {
        panic!("this key is one too many");
    }

    fn size(&self) -> (u16, u16) {
        USUAL
    }
}

#[test]
#[ignore = "it is the child of another test"]
fn child_that_panics_at_a_key() {
    let screen = Screen::begin(&Arc::new(Mutex::new(Fragile))).unwrap();
    let mut end = [PollFd::new(screen.wake.as_fd(), PollFlags::POLLIN)];
    // The thread that draws has the other end.
    poll(&mut end, PollTimeout::NONE).unwrap();
    assert!(screen.leave().is_err());
}

/// This test in a terminal of its own, and its other end.
fn start(test: &str) -> (Child, File, OwnedFd) {
    let pty = openpty(None, None).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--ignored", "--nocapture"]);
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let child = child.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    (child, pty.master.into(), pty.slave)
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_reported() {
    let (mut child, mut screen, terminal) = start("terminal::tests::child_that_panics_at_a_key");
    let mut seen = String::new();
    let mut shows = |screen: &mut File, text: &str| {
        let mut bytes = [0; 4096];
        while !seen.contains(text) {
            let n = screen.read(&mut bytes).unwrap();
            assert!(n > 0, "no {text} in {seen}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..n]));
        }
        let (before, after) = seen.split_once(text).map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        seen = after;
        before
    };
    shows(&mut screen, "\x1b[?1049h");
    shows(&mut screen, "picture");
    let lines = || tcgetattr(&terminal).unwrap().local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO);
    assert!(!lines());
    screen.write_all(b"x").unwrap();
    shows(&mut screen, "\x1b[?1049l");
    let between = shows(&mut screen, "this key is one too many");
    assert!(between.contains("panicked"), "{between}");
    assert!(child.wait().unwrap().success() && lines());
}
