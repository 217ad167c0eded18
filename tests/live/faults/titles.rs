//! Titles of processes: `--titles`.

#![allow(unsafe_code)]

use std::{fs, slice};

use crate::fixture::on_demand;
use crate::run::{Beside, Said, faults, fixture, u};
use crate::running::Worker;

/// As PostgreSQL's backends have one, with bytes that would clear a screen and one that is no character.
const TITLE: &[u8] = b"postgres: a b [local] SELECT\x1b[2J\xff";

/// Changes its title as setproctitle does, where its arguments are, and then works on demand.
pub fn titled() {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, after) = stat.rsplit_once(')').unwrap();
    // proc_pid_stat(5): arg_start and arg_end are fields 48 and 49, and these begin with the third.
    let [start, end] =
        [45, 46].map(|field| after.split_whitespace().nth(field).unwrap().parse::<usize>().unwrap());
    // SAFETY: the kernel has put the arguments there, and nothing refers to them any more.
    let arguments = unsafe { slice::from_raw_parts_mut(start as *mut u8, end - start) };
    arguments.fill(0);
    arguments[..TITLE.len()].copy_from_slice(TITLE);
    on_demand();
}

/// A row and the total have the title that the process gave itself; nothing is known of one that has ended before its row
/// is made.
pub fn of_a_process(variant: &'static str) {
    let mut worker = Worker::start(&fixture("titled"));
    worker.touch(1);
    let pid = worker.id().to_string();
    let mut trapline =
        Beside::start(faults(variant, &["--by", "process", "--titles", "-p", &pid, "-i", "100ms"]));
    assert_eq!(trapline.header()["tables"], serde_json::json!(["faults.process_title"]));
    worker.touch(500);
    let title = String::from_utf8_lossy(TITLE);
    let is_of = |row: &serde_json::Value| u(&row["pid"]) == u64::from(worker.id());
    loop {
        let row = trapline.next();
        if row["type"] == "row" && is_of(&row) {
            assert_eq!(row["title"], *title);
            break;
        }
    }
    let said = trapline.interrupt();
    let [total] = said.totals.as_slice() else { panic!("{:?}", said.totals) };
    assert_eq!(total["title"], *title);
    assert!(is_of(total) && u(&total["minor"]) >= 500, "{total}");
    let ended = Said::by(faults(variant, &["--by", "process", "--titles"]).args(["--", "/bin/true"]));
    assert!(ended.totals.iter().all(|total| total["title"].is_null()), "{:?}", ended.totals);
}
