//! Many faults, many processes: nothing is lost, or it is said.

use crate::run::{Beside, Place, Said, faults, fixture, missed, place, sum, u};
use crate::running::Worker;

fn words(name: &str, numbers: &[usize]) -> Vec<String> {
    let mut words = fixture(name);
    words.extend(numbers.iter().map(ToString::to_string));
    words
}

/// How long a storm is. Under emulation, where there are fewer faults a second, each takes longer to tell.
fn storm(here_ms: usize, vm_ms: usize) -> Vec<String> {
    words("storm", &[2, if place() == Place::Vm { vm_ms } else { here_ms }])
}

pub fn a_storm_loses_nothing(variant: &'static str) {
    let said = Said::by(faults(variant, &[]).arg("--").args(storm(5000, 1000)));
    assert_eq!(said.end["lost_events"], 0);
    assert_eq!(said.end["unlisted_faults"], 0);
    assert_eq!(said.truth.len(), 2);
    for truth in &said.truth {
        let counted = sum(&said.totals, |t| t["tid"] == truth["tid"]);
        assert_eq!(counted, (u(&truth["major"]), u(&truth["minor"])));
        assert!(counted.1 > if place() == Place::Vm { 1_000 } else { 100_000 }, "{counted:?} is no storm");
    }
}

pub fn a_storm_overruns_the_ring(variant: &'static str) {
    let mut worker = Worker::start(&fixture("on-demand"));
    worker.touch(10);
    let before = worker.touch(10);
    let pid = worker.id().to_string();
    let trapline = Beside::start(faults(variant, &["-v", "--ring-size", "1", "-p", &pid]));
    // Nobody reads meanwhile; each event is 64 bytes at least.
    trapline.stop();
    let after = worker.touch(20_000);
    trapline.go_on();
    let said = trapline.interrupt();
    let faults = sum(&said.totals, |_| true);
    assert_eq!(faults, (after.0 - before.0, after.1 - before.1));
    assert_eq!(u(&said.end["events"]) + u(&said.end["lost_events"]), faults.0 + faults.1);
    assert_eq!(said.events.len() as u64, u(&said.end["events"]));
    assert!(!said.events.is_empty() && u(&said.end["lost_events"]) > 0, "{}", said.end);
}

pub fn short_processes(variant: &'static str) {
    let (n, pages) = if place() == Place::Vm { (250, 7) } else { (20_000, 7) };
    let said = Said::by(faults(variant, &[]).arg("--").args(words("processes", &[n, pages])));
    let truth = &said.truth[0];
    let parent = said.totals.iter().map(|t| u(&t["start_ns"])).min().unwrap();
    let children = |t: &serde_json::Value| u(&t["start_ns"]) > parent;
    let all = sum(&said.totals, children);
    let rows = said.totals.iter().filter(|t| children(t)).count();
    let lacking = (n - rows) as u64;
    if lacking > 0 && place() == Place::Vm {
        // Where the kernel preempts programs (7.0 on), a process whose birth or end was skipped each time may have no
        // row; then it is said, and all that have rows are exact: each did the same.
        assert!(lacking <= missed(&said.end), "{lacking} lack, {}", said.end);
        let each = (u(&truth["major"]) + u(&truth["minor"])) as f64 / n as f64;
        let expected = u(&truth["major"]) + u(&truth["minor"]) - all.0 - all.1;
        assert!(
            (expected as f64 - lacking as f64 * each).abs() <= lacking as f64 * 2.0,
            "{expected} of {lacking}"
        );
    } else {
        assert_eq!(all, (u(&truth["major"]), u(&truth["minor"])), "{}", said.end);
        assert_eq!(rows, n, "a row for each, reused ids apart");
    }
    assert_eq!(said.end["unlisted_faults"], 0);
}
