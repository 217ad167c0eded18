//! What `access` may do while it watches.

use crate::privilege::{ACCESS, BY_NAMES, NUMA, SOFT_DIRTY, TOOLS, listed, watched};
use crate::run::{lines, version};

/// Its injector has a process of its own.
pub fn access_keeps_what_its_engine_takes(engine: &'static str) {
    let options = ["access", "--reset", engine, "--format", "jsonl"];
    let engine = match engine {
        "numa" => &[NUMA][..],
        // By userfaultfd from 6.7 on.
        "writes" if version() < (6, 7) => &[SOFT_DIRTY],
        _ => &[],
    };
    let text = watched(&options, listed(&[&[TOOLS, ACCESS], engine].concat()));
    let end = lines(text.as_bytes()).pop().unwrap();
    assert!(end["type"] == "end" && end["events"].as_u64() > Some(50), "{text}");
    let text = watched(
        &[&options[..], &["--symbols"]].concat(),
        listed(&[&[TOOLS, ACCESS, BY_NAMES], engine].concat()),
    );
    let named = lines(text.as_bytes()).iter().filter(|line| line["symbol"].is_string()).count();
    assert!(named > 10, "{text}");
}
