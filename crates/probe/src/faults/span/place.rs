//! Which file a span's name means, and where in it the span begins and ends.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::SpanError;
use super::binary::{Binary, Point};
use super::function::{self, listed};
use crate::maps::Maps;

/// Where libraries are looked for that are named without a path, as the dynamic linker does by itself.
const LIBRARIES: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/usr/lib",
];

/// The ends of names that make a pair of points.
const PAIRS: &[(&str, &str)] = &[("__start", "__done"), ("-entry", "-return"), ("__entry", "__return")];

/// One instruction in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    /// Of the USDT semaphore; 0 if there is none.
    pub(super) semaphore: u64,
}

/// What a span consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Places {
    /// A function of each of these files: from its entry to its return.
    Function {
        at: Vec<Place>,
        /// An exception or a panic may pass through it.
        unwinds: bool,
    },
    /// From any of some points to any of others.
    Points(Vec<Place>, Vec<Place>),
}

impl Places {
    /// Where it begins.
    pub(super) fn starts(&self) -> &[Place] {
        match self {
            Self::Function { at: places, .. } | Self::Points(places, _) => places,
        }
    }
}

/// Finds what `BINARY:FUNCTION` or `usdt:BINARY:PROVIDER:NAME` means in these processes, or on this machine if there are
/// none.
pub(super) fn find(name: &str, pids: &[u32]) -> Result<Places, SpanError> {
    if let Some(rest) = name.strip_prefix("usdt:") {
        let mut parts = rest.rsplitn(3, ':');
        let (Some(point), Some(provider), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SpanError::new(format!("`{name}` is no span: write usdt:BINARY:PROVIDER:NAME")));
        };
        return points(file, provider, point, pids);
    }
    let Some((file, wanted)) =
        name.split_once(':').filter(|(file, wanted)| !file.is_empty() && !wanted.is_empty())
    else {
        return Err(SpanError::new(format!(
            "`{name}` is no span: write BINARY:FUNCTION or usdt:BINARY:PROVIDER:NAME"
        )));
    };
    let mut unwinds = false;
    let places = files(file, pids)?.into_iter().map(|path| {
        let binary = Binary::read(&path, file)?;
        let function::Found { address, unwinds: may_unwind } = function::find(&binary, wanted, file)?;
        unwinds |= may_unwind;
        let offset = binary.code_at(address);
        let offset = offset.ok_or_else(|| SpanError::new(format!("{file} has no code at {address:#x}")))?;
        Ok(Place { path, offset, semaphore: 0 })
    });
    let at = places.collect::<Result<_, _>>()?;
    Ok(Places::Function { at, unwinds })
}

fn points(file: &str, provider: &str, name: &str, pids: &[u32]) -> Result<Places, SpanError> {
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for path in files(file, pids)? {
        let binary = Binary::read(&path, file)?;
        let called = |full: &str| -> Vec<Place> {
            let points = binary.points.iter().filter(|p| p.provider == provider && p.name == full);
            let place = |p: &Point| Place { path: path.clone(), offset: p.offset, semaphore: p.semaphore };
            points.map(place).collect()
        };
        let mut pairs = PAIRS
            .iter()
            .map(|(start, end)| (called(&format!("{name}{start}")), called(&format!("{name}{end}"))));
        let pair = pairs.find(|(start, end)| !start.is_empty() && !end.is_empty());
        let (start, end) = pair.ok_or_else(|| SpanError::new(no_pair(&binary, file, provider, name)))?;
        starts.extend(start);
        ends.extend(end);
    }
    Ok(Places::Points(starts, ends))
}

fn no_pair(binary: &Binary, file: &str, provider: &str, name: &str) -> String {
    let wanted: Vec<String> = PAIRS[..2].iter().map(|(s, e)| format!("{name}{s}/{name}{e}")).collect();
    let wanted = wanted.join(" or ");
    if binary.points.is_empty() {
        return format!("{file} has no USDT points, so no {wanted}: it was built without them");
    }
    let has = |end: &str, other: &str| {
        binary
            .points
            .iter()
            .filter_map(|p| Some((&p.provider, p.name.strip_suffix(end)?)))
            .filter(|&(of, name)| {
                binary.points.iter().any(|p| p.provider == *of && p.name == format!("{name}{other}"))
            })
            .map(|(of, name)| format!("`{of}:{name}`"))
            .collect::<Vec<_>>()
    };
    let there: BTreeSet<String> = PAIRS.iter().flat_map(|(start, end)| has(start, end)).collect();
    let there = if there.is_empty() { "no pairs at all".into() } else { listed(there.into_iter()) };
    format!("{file} has no pair of points {wanted} of the provider {provider}; it has {there}")
}

/// The files that a name means: a path, the name of a file that the processes have mapped, a program in PATH, a library.
fn files(name: &str, pids: &[u32]) -> Result<Vec<PathBuf>, SpanError> {
    let nothing = |why: &str| SpanError::new(format!("there is no {name}: {why}"));
    if name.contains('/') {
        let inside =
            pids.iter().map(|pid| PathBuf::from(format!("/proc/{pid}/root{name}"))).filter(|p| p.is_file());
        let found = Some(PathBuf::from(name)).filter(|path| path.is_file());
        // A process in a container may have another file under that path than we have.
        let mut found: Vec<PathBuf> = if pids.is_empty() || !name.starts_with('/') {
            found.into_iter().collect()
        } else {
            inside.collect()
        };
        distinct(&mut found);
        return if found.is_empty() { Err(nothing("no such file")) } else { Ok(found) };
    }
    let mut found = Vec::new();
    for &pid in pids {
        found.extend(mapped(name, pid)?);
    }
    if found.is_empty() {
        let path = env::var_os("PATH").unwrap_or_default();
        let programs = env::split_paths(&path).collect::<Vec<_>>().into_iter().map(|dir| dir.join(name));
        let libraries = LIBRARIES.iter().map(|dir| Path::new(dir).join(name));
        found.extend(programs.chain(libraries).find(|path| path.is_file()));
    }
    distinct(&mut found);
    match (found.is_empty(), pids.is_empty()) {
        (false, _) => Ok(found),
        (true, true) => Err(nothing("no program in PATH and no library is called so; give its path")),
        (true, false) => {
            Err(nothing("the process has not mapped it, and no program in PATH is called so; give its path"))
        }
    }
}

/// The file of that name that a process runs code from: `libc.so.6`, or the beginning of its name up to a dot
/// (`libsqlite3` for libsqlite3.so.0.8.6). By a path that reaches it even if it was replaced or is in a container.
fn mapped(name: &str, pid: u32) -> Result<Option<PathBuf>, SpanError> {
    let maps = Maps::read(pid).unwrap_or_default();
    let mut found: Vec<(&str, PathBuf)> = Vec::new();
    for mapping in maps.iter().filter(|m| m.executable && m.inode != 0) {
        let path = mapping.name.strip_suffix(" (deleted)").unwrap_or(&mapping.name);
        let file = path.rsplit('/').next().unwrap_or(path);
        if file == name || file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')) {
            let link = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end));
            let inside = || PathBuf::from(format!("/proc/{pid}/root{path}"));
            found.push((path, if link.is_file() { link } else { inside() }));
        }
    }
    found.dedup_by(|a, b| a.0 == b.0);
    match found.as_mut_slice() {
        [] => Ok(None),
        [(_, path)] => Ok(Some(std::mem::take(path))),
        several => Err(SpanError::new(format!(
            "`{name}` means several files of process {pid}: {}; give one by its path",
            listed(several.iter().map(|(path, _)| (*path).to_owned()))
        ))),
    }
}

/// Leaves out a file that is there already under another path.
fn distinct(paths: &mut Vec<PathBuf>) {
    let mut seen = BTreeSet::new();
    paths.retain(|path| fs::metadata(path).is_ok_and(|meta| seen.insert((meta.dev(), meta.ino()))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(name: &str) -> String {
        find(name, &[]).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_span_is_said() {
        assert!(why("sqlite3_step").starts_with("`sqlite3_step` is no span: write BINARY:FUNCTION"));
        assert!(why(":f").starts_with("`:f` is no span"));
        assert!(why("usdt:a:b").ends_with("write usdt:BINARY:PROVIDER:NAME"));
        assert!(why("/nowhere/app:f").starts_with("there is no /nowhere/app: no such file"));
        assert!(why("no-such-program:f").contains("no program in PATH"));
        assert!(why("/etc/passwd:f").contains("no program of 64 bits"));
    }

    #[test]
    fn libraries_of_a_process_by_the_beginning_of_their_names() {
        let own = std::process::id();
        let (whole, part) = (files("libc.so.6", &[own]).unwrap(), files("libc", &[own]).unwrap());
        assert_eq!(whole, part);
        assert!(find("libc:fopen", &[own]).is_ok() && find("libc.so.6:fopen", &[]).is_ok());
        assert!(why("libc.so.6:fopenn").contains("near it are `fopen`"));
    }
}
