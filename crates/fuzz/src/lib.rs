//! The bounded half of fuzzing: every test run gives each parser some thousand changed inputs, the same ones each time.
//! `make fuzz` runs the same parsers under libFuzzer, guided by coverage (`fuzz/`).
//!
//! The seeds, and every input that once broke a parser, are files in `fuzz/seeds/TARGET`.

mod mutate;

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fastrand::Rng;

/// Gives a parser all seeds, and then changed ones. `FUZZ_RUNS` is how many, `FUZZ_SEED` the first random number.
///
/// # Panics
/// When the parser does: the message names the seed and a file that holds the input.
#[allow(clippy::panic, reason = "this is how a test fails")]
pub fn bounded(target: &str, runs: u64, parse: impl Fn(&[u8])) {
    let seeds = seeds(target);
    assert!(!seeds.is_empty(), "fuzz/seeds/{target} has no files");
    let try_one = |input: &[u8], what: &dyn Fn() -> String| {
        if let Err(why) = catch_unwind(AssertUnwindSafe(|| parse(input))) {
            let path = std::env::temp_dir().join(format!("trapline-fuzz-{target}"));
            let kept =
                fs::write(&path, input).map_or_else(|e| e.to_string(), |()| path.display().to_string());
            panic!("{target}: {}: {} (the input: {kept})", what(), message(&*why));
        }
    };
    for (path, bytes) in &seeds {
        try_one(bytes, &|| path.display().to_string());
    }
    let runs = number("FUZZ_RUNS").unwrap_or(runs);
    let first = number("FUZZ_SEED").unwrap_or(0);
    for run in 0..runs {
        let mut random = Rng::with_seed(first.wrapping_add(run));
        let input = mutate::mutated(&seeds, &mut random);
        try_one(&input, &|| format!("FUZZ_SEED={} FUZZ_RUNS=1", first.wrapping_add(run)));
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn message(why: &(dyn Any + Send)) -> String {
    let text = why.downcast_ref::<String>().cloned();
    text.or_else(|| why.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// The files of one target, by name.
fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let mut files: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|file| Some((file.path(), fs::read(file.path()).ok()?)))
        .collect();
    files.sort();
    files
}
