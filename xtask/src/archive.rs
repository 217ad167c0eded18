//! Debian packages without installing them: found in the archive, downloaded, unpacked into
//! `target/vm/cache`.
//!
//! apt runs with a configuration of its own (sources, lists, cache), so the system's apt keeps its release.
//! The mirror is the one that the system's apt uses. A set of packages is unpacked beside the cache and
//! renamed into it when complete: a run that is killed leaves nothing that looks finished.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::system::{self, Scratch};

/// A repository of the mirror and a suite in it.
type Suite = (Repository, &'static str);

/// Where tools come from that the release of this machine does not have.
const NEXT_RELEASE: &[Suite] = &[(Repository::Main, "trixie")];

/// Where kernels come from.
const SUITES: &[Suite] = &[
    (Repository::Main, "bookworm"),
    (Repository::Security, "bookworm-security"),
    (Repository::Main, "bookworm-backports"),
    (Repository::Main, "trixie-backports"),
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The file in a set that says what it holds. Its first line is what was asked for.
const RECORD: &str = "packages";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Repository {
    Main,
    Security,
}

/// A set of packages, as asked for: names in which `*` stands for a version, with `/SUITE` when only that
/// suite's will do.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// The name of the set in the cache.
    pub name: &'a str,
    /// The packages. `*` is the newest version of the first, and the same in the others.
    pub packages: Vec<&'a str>,
}

/// The archive, asked only when something is not in the cache or an update was ordered.
#[derive(Debug)]
pub struct Archive {
    suites: &'static [Suite],
    update: bool,
    apt: Option<Apt>,
}

impl Archive {
    /// With `update`, sets in the cache are replaced when the archive has newer packages.
    pub fn new(update: bool) -> Self {
        Self { suites: SUITES, update, apt: None }
    }

    /// Of tools newer than this machine's. Not one with the kernels': the newest kernel of a series may be its, too.
    pub fn of_next_release() -> Self {
        Self { suites: NEXT_RELEASE, update: false, apt: None }
    }

    /// The directory in which the set is unpacked; `finish` completes a new one before it is put there.
    pub fn unpacked(&mut self, wanted: &Wanted, finish: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
        let place = system::directory("cache")?.join(wanted.name);
        let asked = wanted.packages.join(" ");
        let record = fs::read_to_string(place.join(RECORD)).unwrap_or_default();
        let cached = record.lines().next() == Some(&asked);
        if cached && !self.update {
            return Ok(place);
        }
        let apt = match self.apt.take() {
            Some(apt) => apt,
            None => Apt::updated(self.suites)?,
        };
        let apt = self.apt.insert(apt);
        let names = apt.resolve(wanted)?;
        if cached && record.lines().nth(1) == Some(&names.join(" ")) {
            return Ok(place);
        }
        eprintln!("xtask: {}: fetching {}", wanted.name, names.join(", "));
        let scratch = Scratch::new(wanted.name)?;
        let fresh = scratch.path().join("set");
        system::make(&fresh)?;
        apt.download(&names, scratch.path())?;
        for package in packages_in(scratch.path())? {
            system::output(system::command("dpkg-deb")?.arg("--extract").args([&package, &fresh]))?;
        }
        finish(&fresh).with_context(|| format!("cannot use the packages of {}", wanted.name))?;
        fs::write(fresh.join(RECORD), format!("{asked}\n{}\n", names.join(" ")))?;
        if place.exists() {
            fs::rename(&place, scratch.path().join("old"))?;
        }
        let renamed = fs::rename(&fresh, &place);
        // Another run may have put the same set there meanwhile: then that one serves.
        if !place.join(RECORD).exists() {
            renamed.with_context(|| format!("cannot put {} into the cache", wanted.name))?;
        }
        Ok(place)
    }
}

fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path()));
    let paths: Vec<_> = paths.collect::<Result<_, _>>()?;
    Ok(paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "deb")).collect())
}

/// apt with a configuration, lists and cache of its own.
#[derive(Debug)]
struct Apt {
    directory: Scratch,
}

impl Apt {
    /// Its lists are brought up to date first.
    fn updated(suites: &[Suite]) -> Result<Self> {
        ensure!(
            Path::new(KEYRING).exists(),
            "the keys of the Debian archive are missing: apt-get install debian-archive-keyring"
        );
        let directory = Scratch::new("apt")?;
        for name in ["lists/partial", "archives/partial"] {
            system::make(&directory.path().join(name))?;
        }
        fs::write(directory.path().join("status"), "")?;
        let mirrors = system::output(system::command("apt-get")?.args(["update", "--print-uris"]))?;
        fs::write(directory.path().join("sources.list"), sources(&mirrors, suites)?)?;
        let apt = Self { directory };
        eprintln!("xtask: asking the Debian archive for its packages");
        system::output(apt.run("apt-get")?.args(["-qq", "update"])).context(
            "cannot read the Debian archive, and not everything is in the cache: is the network up?",
        )?;
        Ok(apt)
    }

    fn run(&self, program: &str) -> Result<Command> {
        let mut command = system::command(program)?;
        let here = |name: &str| self.directory.path().join(name).display().to_string();
        for option in [
            format!("Dir::Etc::SourceList={}", here("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={}", here("lists")),
            format!("Dir::State::Status={}", here("status")),
            format!("Dir::Cache={}", here("")),
            "APT::Architecture=amd64".to_owned(),
            // The directories are this user's own: apt's own user could not write there.
            "APT::Sandbox::User=".to_owned(),
            "APT::Update::Error-Mode=any".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        Ok(command)
    }

    /// The names with their versions, in the order of the set.
    fn resolve(&self, wanted: &Wanted) -> Result<Vec<String>> {
        let Some(first) = wanted.packages.first() else { return Ok(Vec::new()) };
        let Some((head, tail)) = first.split_once('*') else {
            return Ok(wanted.packages.iter().map(|&name| name.to_owned()).collect());
        };
        let pattern = format!("^{}.*{tail}", head.replace('.', "[.]"));
        let listed = system::output(self.run("apt-cache")?.args(["search", "--names-only", &pattern]))?;
        let names = listed.lines().filter_map(|line| line.split_once(' ')).map(|(name, _)| name);
        let Some((name, version)) = newest(names, head, tail) else {
            bail!(
                "the archive has no package {first}: correct or remove {} in xtask/src/kernels.rs",
                wanted.name
            );
        };
        let others = wanted.packages.iter().skip(1).map(|other| other.replace('*', version));
        Ok(std::iter::once(name.to_owned()).chain(others).collect())
    }

    fn download(&self, names: &[String], into: &Path) -> Result<()> {
        system::output(self.run("apt-get")?.args(["-qq", "download"]).args(names).current_dir(into))
            .context("cannot download from the Debian archive")?;
        Ok(())
    }
}

/// The newest of the packages `head` VERSION `tail`, with its version. Debian signs a kernel some time after
/// it is built, so the unsigned package counts too; signed is preferred when both are there.
fn newest<'a>(names: impl Iterator<Item = &'a str>, head: &str, tail: &str) -> Option<(&'a str, &'a str)> {
    let versions = names.filter_map(|name| {
        let signed = name.strip_suffix("-unsigned").unwrap_or(name);
        let version = signed.strip_prefix(head)?.strip_suffix(tail)?;
        // Flavours (cloud, rt) look like versions that have a word in them.
        let flavour = version.split('-').any(|part| part.starts_with(|first: char| first.is_alphabetic()));
        (!flavour).then_some((name, version))
    });
    versions.max_by_key(|(name, version)| (numbers(version), !name.ends_with("-unsigned")))
}

fn numbers(version: &str) -> Vec<u64> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// The source lines of our suites, on the mirror that the system's apt uses.
fn sources(uris: &str, suites: &[Suite]) -> Result<String> {
    let mirror = |repository| {
        let bases = uris.lines().filter_map(|line| line.strip_prefix('\'')?.split_once("/dists/"));
        bases.map(|(base, _)| base).find(|base| repository_of(base) == Some(repository))
    };
    let Some(main) = mirror(Repository::Main) else {
        bail!(
            "no Debian mirror is among the sources of apt on this machine, and the kernels come from there"
        );
    };
    let security = mirror(Repository::Security).map_or_else(|| format!("{main}-security"), str::to_owned);
    let lines = suites.iter().map(|(repository, suite)| {
        let base = if *repository == Repository::Main { main } else { &security };
        format!("deb [signed-by={KEYRING}] {base} {suite} main\n")
    });
    Ok(lines.collect())
}

fn repository_of(base: &str) -> Option<Repository> {
    let (_, path) = base.split_once("://")?.1.split_once('/')?;
    if path.contains("debian-security") {
        Some(Repository::Security)
    } else if path.contains("debian") {
        Some(Repository::Main)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series_is_neither_a_flavour_nor_the_first_by_letters() {
        let names = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-56-amd64-unsigned",
            "linux-image-6.1.0-60-cloud-amd64",
            "linux-image-6.1.0-60-rt-amd64",
            "linux-image-6.1.0-61-amd64-dbg",
        ];
        let found = newest(names.into_iter(), "linux-image-6.1.", "-amd64");
        assert_eq!(found, Some(("linux-image-6.1.0-56-amd64", "0-56")));
    }

    #[test]
    fn an_unsigned_kernel_serves_until_the_signed_one_is_there() {
        let names = ["linux-image-6.12.9+deb12-amd64", "linux-image-6.12.10+deb12-amd64-unsigned"];
        let found = newest(names.into_iter(), "linux-image-6.12.", "-amd64");
        assert_eq!(found, Some(("linux-image-6.12.10+deb12-amd64-unsigned", "10+deb12")));
    }

    #[test]
    fn the_mirror_is_the_machines_own() {
        let uris = "'http://mirror.example/debian/dists/stable/InRelease' a 0\n\
                    'http://other.example/tools/dists/any/InRelease' b 0\n\
                    'http://safe.example/debian-security/dists/stable-security/InRelease' c 0\n";
        let sources = sources(uris, SUITES).unwrap();
        assert!(sources.contains("] http://mirror.example/debian trixie-backports main\n"), "{sources}");
        assert!(
            sources.contains("] http://safe.example/debian-security bookworm-security main\n"),
            "{sources}"
        );
        assert!(super::sources("'http://other.example/tools/dists/any/InRelease' b 0\n", SUITES).is_err());
    }
}
