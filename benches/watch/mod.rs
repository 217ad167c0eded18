//! The watchers that a benchmark compares: started one at a time, attached before anything is measured, and ended as a
//! person ends them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A command that watches, under the name it has in the table.
pub struct Watcher {
    pub name: &'static str,
    pub command: &'static [&'static str],
    pub ready: Ready,
}

/// How a watcher shows that it is attached.
pub enum Ready {
    /// It prints a line.
    Line,
    /// It does not say; it is given this time.
    After(Duration),
}

/// A watcher at work; it ends when this is dropped.
#[derive(Debug)]
pub struct Running(pub Child);

impl Watcher {
    /// Starts it and waits until it is attached; nothing, and a line that says so, if it is not installed or does not
    /// work here.
    pub fn start(&self) -> Option<Running> {
        let mut command = Command::new(self.command[0]);
        command.args(&self.command[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else {
            eprintln!("left out: {}: it is not installed", self.name);
            return None;
        };
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let said = match self.ready {
            Ready::Line => out.read_line(&mut String::new()).unwrap() > 0,
            Ready::After(time) => {
                std::thread::sleep(time);
                true
            }
        };
        // What it prints is read, so that it is not held up.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let runs = said && child.try_wait().unwrap().is_none();
        let running = Running(child);
        if !runs {
            eprintln!("left out: {}: it does not work on this kernel", self.name);
            return None;
        }
        Some(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        self.0.wait().unwrap();
    }
}

/// The middle one; of an even number, the upper of both.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
