//! Which file a span's name means, and where in it the span begins and ends.

use std::collections::BTreeSet;
use std::env;
use std::io;
use std::path::Path;

use trapline_symbols::maps::Maps;
use trapline_symbols::{Binaries, Binary, Point, listed};

use crate::variant::OpenError;

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
    pub(super) binary: Binary,
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
pub(super) fn find(binaries: &mut Binaries, name: &str, pids: &[u32]) -> Result<Places, OpenError> {
    if let Some(rest) = name.strip_prefix("usdt:") {
        let mut parts = rest.rsplitn(3, ':');
        let (Some(point), Some(provider), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(OpenError::Usage(format!("`{name}` is not a span: use usdt:BINARY:PROVIDER:NAME")));
        };
        return points(binaries, file, provider, point, pids);
    }
    let Some((file, wanted)) =
        name.split_once(':').filter(|(file, wanted)| !file.is_empty() && !wanted.is_empty())
    else {
        return Err(OpenError::Usage(format!(
            "`{name}` is not a span: use BINARY:FUNCTION or usdt:BINARY:PROVIDER:NAME"
        )));
    };
    let mut unwinds = false;
    let places = files(binaries, file, pids)?.into_iter().map(|binary| {
        let (offset, may_unwind) = binaries.function(&binary, wanted, file).map_err(OpenError::Usage)?;
        unwinds |= may_unwind;
        Ok::<_, OpenError>(Place { binary, offset, semaphore: 0 })
    });
    let at = places.collect::<Result<_, _>>()?;
    Ok(Places::Function { at, unwinds })
}

fn points(
    binaries: &mut Binaries,
    file: &str,
    provider: &str,
    name: &str,
    pids: &[u32],
) -> Result<Places, OpenError> {
    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    for binary in files(binaries, file, pids)? {
        let all = binaries.points(&binary, file).map_err(OpenError::Usage)?;
        let called = |full: &str| -> Vec<Place> {
            let points = all.iter().filter(|p| p.provider == provider && p.name == full);
            let place =
                |p: &Point| Place { binary: binary.clone(), offset: p.offset, semaphore: p.semaphore };
            points.map(place).collect()
        };
        let mut pairs = PAIRS
            .iter()
            .map(|(start, end)| (called(&format!("{name}{start}")), called(&format!("{name}{end}"))));
        let pair = pairs.find(|(start, end)| !start.is_empty() && !end.is_empty());
        let (start, end) = pair.ok_or_else(|| OpenError::Usage(no_pair(&all, file, provider, name)))?;
        starts.extend(start);
        ends.extend(end);
    }
    Ok(Places::Points(starts, ends))
}

fn no_pair(points: &[Point], file: &str, provider: &str, name: &str) -> String {
    let wanted: Vec<String> = PAIRS[..2].iter().map(|(s, e)| format!("{name}{s}/{name}{e}")).collect();
    let wanted = wanted.join(" or ");
    if points.is_empty() {
        return format!("{file} has no USDT probes, so no {wanted}: it was built without them");
    }
    let has = |end: &str, other: &str| {
        points
            .iter()
            .filter_map(|p| Some((&p.provider, p.name.strip_suffix(end)?)))
            .filter(|&(of, name)| {
                points.iter().any(|p| p.provider == *of && p.name == format!("{name}{other}"))
            })
            .map(|(of, name)| format!("`{of}:{name}`"))
            .collect::<Vec<_>>()
    };
    let there: BTreeSet<String> = PAIRS.iter().flat_map(|(start, end)| has(start, end)).collect();
    let there = if there.is_empty() { "no pairs".into() } else { listed(there.into_iter()) };
    format!("{file} has no pair of USDT probes {wanted} of provider {provider}; it has {there}")
}

/// The files that a name means: a path, the name of a file that the processes have mapped, a program in PATH, a library.
fn files(binaries: &mut Binaries, name: &str, pids: &[u32]) -> Result<Vec<Binary>, OpenError> {
    let nothing = |why: &str| OpenError::Usage(format!("cannot find {name}: {why}"));
    let mut found = Vec::new();
    if name.contains('/') {
        // A process in a container may have another file under that path than we have.
        let opened: Vec<io::Result<Binary>> = if pids.is_empty() || !name.starts_with('/') {
            vec![binaries.open(Path::new(name))]
        } else {
            pids.iter().map(|&pid| binaries.inside(pid, Path::new(name))).collect()
        };
        let mut error = None;
        for opened in opened {
            match opened {
                Ok(binary) => found.push(binary),
                Err(why) => error = Some(why),
            }
        }
        distinct(&mut found);
        return match error.filter(|_| found.is_empty()) {
            None => Ok(found),
            Some(error) if error.kind() == io::ErrorKind::NotFound => Err(nothing("no such file")),
            Some(error) => Err(OpenError::Usage(format!("cannot read {name}: {error}"))),
        };
    }
    for &pid in pids {
        found.extend(mapped(binaries, name, pid)?);
    }
    if found.is_empty() {
        let path = env::var_os("PATH").unwrap_or_default();
        let programs = env::split_paths(&path).collect::<Vec<_>>().into_iter().map(|dir| dir.join(name));
        let libraries = LIBRARIES.iter().map(|dir| Path::new(dir).join(name));
        found.extend(programs.chain(libraries).find_map(|path| binaries.open(&path).ok()));
    }
    distinct(&mut found);
    match (found.is_empty(), pids.is_empty()) {
        (false, _) => Ok(found),
        (true, true) => Err(nothing("no executable in PATH and no library has this name; use its path")),
        (true, false) => Err(nothing(
            "the process has not mapped it, and no executable in PATH has this name; use its path",
        )),
    }
}

/// The file of that name that a process runs code from: `libc.so.6`, or the beginning of its name up to a dot
/// (`libsqlite3` for libsqlite3.so.0.8.6), even if it was replaced or is in a container.
fn mapped(binaries: &mut Binaries, name: &str, pid: u32) -> Result<Option<Binary>, OpenError> {
    let maps = Maps::read(pid).unwrap_or_default();
    let mut found = Vec::new();
    for mapping in maps.iter().filter(|m| m.executable && m.inode != 0) {
        let path = mapping.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        if file == name || file.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')) {
            found.push((path, mapping));
        }
    }
    found.dedup_by_key(|(path, _)| *path);
    match found.as_slice() {
        [] => Ok(None),
        [(path, mapping)] => match binaries.mapped(pid, mapping) {
            Ok(binary) => Ok(Some(binary)),
            Err(error) => {
                Err(OpenError::Usage(format!("cannot read {} of process {pid}: {error}", path.display())))
            }
        },
        several => Err(OpenError::Usage(format!(
            "`{name}` matches several files of process {pid}: {}; use the path of one",
            listed(several.iter().map(|(path, _)| path.display().to_string()))
        ))),
    }
}

/// Leaves out a file that is there already under another path.
fn distinct(found: &mut Vec<Binary>) {
    let mut seen = BTreeSet::new();
    found.retain(|binary| seen.insert(binary.identity));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(name: &str) -> String {
        find(&mut Binaries::default(), name, &[]).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_a_span_is_refused() {
        assert!(why("sqlite3_step").starts_with("`sqlite3_step` is not a span: use BINARY:FUNCTION"));
        assert!(why(":f").starts_with("`:f` is not a span"));
        assert!(why("usdt:a:b").ends_with("use usdt:BINARY:PROVIDER:NAME"));
        assert!(why("/nowhere/app:f").starts_with("cannot find /nowhere/app: no such file"));
        assert!(why("no-such-program:f").contains("no executable in PATH"));
        assert!(why("/etc/passwd:f").contains("it is not an ELF file"));
    }

    #[test]
    fn libraries_of_a_process_by_the_beginning_of_their_names() {
        let own = std::process::id();
        let mut all = Binaries::default();
        let whole = files(&mut all, "libc.so.6", &[own]).unwrap();
        assert_eq!(whole, files(&mut all, "libc", &[own]).unwrap());
        assert!(
            find(&mut all, "libc:fopen", &[own]).is_ok() && find(&mut all, "libc.so.6:fopen", &[]).is_ok()
        );
        assert!(why("libc.so.6:fopenn").contains("similar names: `fopen`"));
    }
}
