//! Variants: ways to watch the same thing, tried in order. Try, keep, report: nothing is guessed from version numbers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, anyhow};
use bytemuck::{NoUninit, Pod, bytes_of, pod_read_unaligned};
use libbpf_rs::query::ProgInfoIter;
use libbpf_rs::{Link, Map, MapCore, MapFlags, MapHandle, Object, OpenObject, Program};
use nix::errno::Errno;
use thiserror::Error;
use trapline_model::doctor::Refusal;

use crate::abi::maps::MapName;
use crate::compiled::Compiled;
use crate::refusal::{errno, explain};
use crate::system;

/// One way to watch: programs that load and attach together.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) name: &'static str,
    /// The programs, by the names of their functions; if the first set is refused the next is tried.
    pub(crate) ways: &'static [&'static [&'static str]],
}

/// A variant that cannot be used here, and why.
#[derive(Debug)]
pub struct Refused {
    /// The variant.
    pub variant: &'static str,
    /// The reason.
    pub refusal: Refusal,
}

/// Why a tool could not be started.
#[derive(Debug, Error)]
pub enum OpenError {
    /// None of its variants can be used, or not the one that was asked for.
    #[error("{}", in_one_line(.0))]
    Refused(Vec<Refused>),
    /// There is no such variant.
    #[error("there is no variant `{name}`; there are {}", known.join(", "))]
    NoSuchVariant {
        /// The name that was asked for.
        name: String,
        /// The names there are.
        known: Vec<&'static str>,
    },
    /// A variant that cannot do what is asked for, anywhere.
    #[error("variant {variant} cannot do this: {why}")]
    Unfit {
        /// The variant.
        variant: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// What was asked for means nothing here, such as a span that is in no file: in words that say what would.
    #[error("{0}")]
    Usage(String),
    /// A variant that would work, and a poorer one is not taken instead: descriptors or memory are used up.
    #[error("cannot attach {variant}: {error}; {remedy}")]
    Short {
        /// The variant.
        variant: &'static str,
        /// The kernel's error.
        error: String,
        /// What to do about it.
        remedy: String,
    },
    /// What the tool watches is not on this machine.
    #[error("{0:#}")]
    Unavailable(anyhow::Error),
    /// Something else went wrong.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

fn in_one_line(refused: &[Refused]) -> String {
    let mut errors: Vec<(Vec<&str>, &str)> = Vec::new();
    for Refused { variant, refusal } in refused {
        match errors.iter_mut().find(|(_, error)| *error == refusal.error) {
            Some((variants, _)) => variants.push(variant),
            None => errors.push((vec![variant], &refusal.error)),
        }
    }
    let why: Vec<String> =
        errors.iter().map(|(variants, error)| format!("{}: {error}", variants.join(", "))).collect();
    let what_to_do = match refused {
        [one] => &one.refusal.remedy,
        [first, rest @ ..] if rest.iter().all(|r| r.refusal.remedy == first.refusal.remedy) => {
            &first.refusal.remedy
        }
        _ => "see `trapline doctor`",
    };
    format!("cannot attach {}; {what_to_do}", why.join("; "))
}

/// A loaded object with the links that keep its programs attached.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) variant: &'static str,
    /// Drop these to stop the events; the rest of the programs stays.
    pub(crate) events: Vec<Link>,
    pub(crate) rest: Vec<Link>,
    pub(crate) object: Object,
}

impl Attached {
    fn map(&self, name: MapName<'_>) -> anyhow::Result<Map<'_>> {
        let map = self.object.maps().find(|map| map.name() == name.0);
        map.ok_or_else(|| anyhow!("the BPF object has no map {name}"))
    }

    /// A map, to keep.
    pub(crate) fn handle(&self, name: MapName<'_>) -> anyhow::Result<MapHandle> {
        MapHandle::try_from(&self.map(name)?).with_context(|| format!("cannot open the map {name}"))
    }

    /// Whether that program was loaded.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.object.progs().any(|program| program.name() == name && program.autoload())
    }

    /// Sets the variable that a data section consists of.
    pub(crate) fn write(&self, section: MapName<'_>, value: &impl Pod) -> anyhow::Result<()> {
        let map = self.map(section)?;
        // Such a call keeps programs off like those of `Elements`.
        system::undisturbed(|| map.update(&0u32.to_ne_bytes(), bytes_of(value), MapFlags::ANY))
            .with_context(|| format!("cannot write {section}"))
    }

    /// Reads the variable that a data section consists of.
    pub(crate) fn read<T: Pod>(&self, section: MapName<'_>) -> anyhow::Result<T> {
        let bytes = self.map(section)?.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)?;
        Ok(bytes.map_or_else(T::zeroed, |bytes| pod_read_unaligned(&bytes)))
    }

    /// How often the kernel did not run those of our programs: it was busy with the same one, or with a system call that
    /// keeps programs off, in a thread that was preempted on that processor. Kernels tell since 5.12; of classic
    /// tracepoints since 6.7.
    pub(crate) fn missed(&self, which: impl Fn(&str) -> bool) -> anyhow::Result<u64> {
        // A program that was not loaded missed nothing.
        let programs = self
            .object
            .progs()
            .filter(|program| program.autoload() && which(&program.name().to_string_lossy()));
        let missed =
            |program: Program<'_>| system::program_info(program.as_fd()).map(|info| info.recursion_misses);
        Ok(programs.map(missed).sum::<io::Result<u64>>()?)
    }

    /// Puts keys into a map that is a set.
    pub(crate) fn put<K: NoUninit>(
        &self,
        set: MapName<'_>,
        keys: impl IntoIterator<Item = K>,
    ) -> anyhow::Result<()> {
        let map = self.map(set)?;
        for key in keys {
            map.update(bytes_of(&key), &[1], MapFlags::ANY)
                .with_context(|| format!("cannot fill the map {set}"))?;
        }
        Ok(())
    }

    /// The program that goes through a map's elements, ready to be run by opening it.
    pub(crate) fn map_iterator(&self, map: MapName<'_>) -> anyhow::Result<Link> {
        let name = map.reader();
        let map = self.map(map)?;
        let program = self.object.progs_mut().find(|p| p.name() == name.as_str());
        let program = program.ok_or_else(|| anyhow!("the BPF object has no program {name}"))?;
        Ok(program.attach_iter(map.as_fd())?)
    }

    /// An iterator program, ready to be run by opening it.
    pub(crate) fn iterator(&self, name: &str) -> anyhow::Result<Link> {
        let program = self.object.progs_mut().find(|p| p.name() == name);
        Ok(program.ok_or_else(|| anyhow!("the BPF object has no program {name}"))?.attach()?)
    }
}

/// What a tool does with its object before it is loaded, and how it attaches what libbpf cannot attach by itself.
pub(crate) trait Recipe {
    /// The compiled kernel half.
    fn object(&self) -> Compiled;
    /// All ways to watch, best first.
    fn variants(&self) -> &'static [Variant];
    /// Programs that every variant needs beside its own.
    fn always(&self) -> Vec<&'static str> {
        vec![]
    }
    /// Maps that programs go through, for [`Elements`](crate::elements::Elements), where the kernel allows such programs.
    fn readers(&self) -> Vec<MapName<'static>> {
        vec![]
    }
    /// Programs used beside one way of a variant, where the kernel has what they attach to.
    fn optional(&self, _way: &[&str]) -> Vec<&'static str> {
        vec![]
    }
    /// Whether the kernel may have what one way of a variant needs: to try takes as long as a start.
    fn is_worth_trying(&self, _way: &[&str]) -> bool {
        true
    }
    /// Sets configuration and map sizes.
    fn configure(&self, object: &mut OpenObject) -> anyhow::Result<()>;
    /// Attaches one program; nothing if it is not to be attached.
    fn attach(&self, program: &libbpf_rs::ProgramMut<'_>) -> anyhow::Result<Vec<Link>> {
        Ok(vec![program.attach()?])
    }
    /// Shows that what is attached is called, too: there are kernels that attach a program and never run it.
    fn prove(&self, _attached: &Attached) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Errors that say nothing of a variant, but of what is left of something on the machine.
const SHORT: [&str; 3] = ["EMFILE", "ENFILE", "ENOMEM"];

/// What the kernel refused (EPERM, EACCES) as an error of that kind, for whoever turns errors into statuses.
#[must_use]
pub fn refused(error: anyhow::Error) -> anyhow::Error {
    let is_refusal = matches!(errno(&error), Some(Errno::EPERM | Errno::EACCES));
    if !is_refusal || !matches!(error.downcast_ref(), None | Some(OpenError::Other(_))) {
        return error;
    }
    let text = format!("{error:#}");
    let remedy = if text.contains("as root") { "" } else { "; run as root" };
    OpenError::Unavailable(anyhow!("{text}{remedy}")).into()
}

/// Tries the variants in order, or only the one that is asked for. Gives the first that works.
pub(crate) fn open(recipe: &impl Recipe, only: Option<&str>) -> Result<Attached, OpenError> {
    // The limit of a command that is started is its own: it is there already.
    system::raise_descriptors();
    let known = in_order(recipe);
    if let Some(name) = only
        && !known.iter().any(|v| v.name == name)
    {
        let known = recipe.variants().iter().map(|v| v.name).collect();
        return Err(OpenError::NoSuchVariant { name: name.to_owned(), known });
    }
    let mut refused = Vec::new();
    for variant in known.iter().filter(|v| only.is_none_or(|name| name == v.name)) {
        match try_variant(recipe, variant) {
            Ok(attached) => return Ok(attached),
            Err(Refusal { errno: Some(errno), error, .. }) if SHORT.contains(&errno.as_str()) => {
                let remedy = match errno.as_str() {
                    "ENOMEM" => {
                        "too little memory: free some, or raise the limits of locked memory and of the cgroup"
                            .into()
                    }
                    _ => format!(
                        "the limit of open files is {}: raise it with `ulimit -Hn`",
                        system::descriptors()
                    ),
                };
                return Err(OpenError::Short { variant: variant.name, error, remedy });
            }
            Err(mut refusal) => {
                if only.is_some() && known.len() > 1 {
                    refusal.remedy.push_str("; or leave out --variant");
                }
                refused.push(Refused { variant: variant.name, refusal });
            }
        }
    }
    Err(OpenError::Refused(refused))
}

/// A tool's variants, best first on the running kernel: `kprobe` before `fentry` where that preempts itself.
///
/// There a thread can lose its processor in a program of `fentry`, and until it goes on, the kernel leaves that program
/// out for all others on that processor (`bpf_prog_get_recursion_context`). It cannot in one of `kprobe`.
pub(crate) fn in_order(recipe: &impl Recipe) -> Vec<&'static Variant> {
    let mut all: Vec<_> = recipe.variants().iter().collect();
    let at = |name| all.iter().position(|variant| variant.name == name);
    if system::preempts_itself() == Some(true)
        && let (Some(fentry), Some(kprobe)) = (at("fentry"), at("kprobe"))
    {
        all.swap(fentry, kprobe);
    }
    all
}

/// Whether the kernel has refused the programs that go through maps, and not the others: they are not tried again.
static READERS_REFUSED: AtomicBool = AtomicBool::new(false);

/// Loads and attaches a variant by its first way that works. The refusal is that of the last way.
pub(crate) fn try_variant(recipe: &impl Recipe, variant: &Variant) -> Result<Attached, Refusal> {
    let mut refusal = None;
    for way in variant.ways.iter().filter(|way| recipe.is_worth_trying(way)) {
        let readers = if READERS_REFUSED.load(Ordering::Relaxed) { vec![] } else { recipe.readers() };
        let loaded =
            load(recipe, way, &recipe.optional(way), &readers).or_else(|error| match errno(&error) {
                // No such type in the kernel: what an optional program attaches to may be what is missing.
                Some(Errno::ESRCH) => load(recipe, way, &[], &readers),
                Some(Errno::EPERM) if !readers.is_empty() => {
                    let loaded = load(recipe, way, &recipe.optional(way), &[]);
                    READERS_REFUSED.fetch_or(loaded.is_ok(), Ordering::Relaxed);
                    loaded
                }
                _ => Err(error),
            });
        let attached = loaded.and_then(|(object, rest)| attach(recipe, variant.name, object, way, &rest));
        match attached.and_then(|attached| recipe.prove(&attached).map(|()| attached)) {
            Ok(attached) => return Ok(attached),
            Err(error) => refusal = Some(explain(&error)),
        }
    }
    Err(refusal.unwrap_or_else(|| Refusal {
        errno: None,
        error: "it has no programs".into(),
        remedy: "report this as a bug of trapline".into(),
    }))
}

/// Loads the programs of one way with those that are always needed, and those that read maps; gives the names of what is
/// to be attached beside the way.
pub(crate) fn load(
    recipe: &impl Recipe,
    way: &[&str],
    optional: &[&'static str],
    readers: &[MapName<'_>],
) -> anyhow::Result<(Object, Vec<&'static str>)> {
    let rest: Vec<&str> = recipe.always().into_iter().chain(optional.iter().copied()).collect();
    let mut object = recipe.object().open()?;
    for mut program in object.progs_mut() {
        let name = program.name().to_string_lossy().into_owned();
        let reads = readers.iter().any(|map| map.reader() == name);
        program.set_autoload(reads || [way, &rest].iter().any(|names| names.contains(&name.as_str())));
    }
    recipe.configure(&mut object)?;
    Ok((object.load().context("cannot load the BPF programs")?, rest))
}

/// A program's object, its name, and how many instructions the verifier went through or why it refused.
pub(crate) type Verified = (&'static str, String, Result<u64, Refusal>);

/// Loads each program of an object for itself, but for those of that name that are known from another.
pub(crate) fn load_each(recipe: &impl Recipe, known: &[Verified]) -> anyhow::Result<Vec<Verified>> {
    let object = recipe.object();
    let open = || object.open();
    let names: Vec<String> = open()?.progs().map(|p| p.name().to_string_lossy().into_owned()).collect();
    let insns = |name: &str| -> anyhow::Result<u64> {
        let mut object = open()?;
        object.progs_mut().for_each(|mut program| program.set_autoload(program.name() == name));
        recipe.configure(&mut object)?;
        let object = object.load()?;
        let program =
            object.progs_mut().find(|p| p.name() == name).context("it is not in the loaded object")?;
        let id = Program::id_from_fd(program.as_fd())?;
        let info =
            ProgInfoIter::default().find(|info| info.id == id).context("the kernel does not list it")?;
        Ok(info.verified_insns.into())
    };
    Ok(names
        .into_iter()
        .filter(|name| known.iter().all(|(_, known, _)| known != name))
        .map(|name| {
            let verified = insns(&name).map_err(|error| explain(&error));
            (object.name, name, verified)
        })
        .collect())
}

fn attach(
    recipe: &impl Recipe,
    variant: &'static str,
    object: Object,
    way: &[&str],
    rest: &[&str],
) -> anyhow::Result<Attached> {
    let mut attached = Attached { variant, events: vec![], rest: vec![], object };
    // What follows the threads' lives comes first, so that no event meets a thread that is not followed.
    for (names, links) in [(rest, &mut attached.rest), (way, &mut attached.events)] {
        for name in names {
            let program = attached.object.progs_mut().find(|p| p.name() == *name);
            let program = program.ok_or_else(|| anyhow!("the BPF object has no program {name}"))?;
            let failed = |error: anyhow::Error| error.context(format!("cannot attach {}", event(&program)));
            links.extend(recipe.attach(&program).map_err(failed)?);
        }
    }
    Ok(attached)
}

/// What a program attaches to, as its section has it: `kprobe handle_mm_fault`; else its name.
fn event(program: &libbpf_rs::ProgramMut<'_>) -> String {
    let section = program.section().to_string_lossy();
    match section.trim_start_matches('?').split_once('/') {
        Some((kind, function)) => format!("{kind} {function}"),
        None => program.name().to_string_lossy().into_owned(),
    }
}

/// Attaches a program to events; the links keep the descriptors.
pub(crate) fn attach_to_events(
    program: &libbpf_rs::ProgramMut<'_>,
    events: Vec<OwnedFd>,
) -> anyhow::Result<Vec<Link>> {
    events
        .into_iter()
        .map(|event| {
            let link = program.attach_perf_event(event.as_raw_fd())?;
            // The link owns the descriptor from here on, and closes it.
            let _ = event.into_raw_fd();
            Ok(link)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(variant: &'static str, error: &str, remedy: &str) -> Refused {
        Refused { variant, refusal: Refusal { errno: None, error: error.into(), remedy: remedy.into() } }
    }

    #[test]
    fn a_refusal_names_what_failed_why_and_what_to_do() {
        let alike = [refused("fentry", "EPERM", "run as root"), refused("kprobe", "EPERM", "run as root")];
        assert_eq!(in_one_line(&alike), "cannot attach fentry, kprobe: EPERM; run as root");
        let [first, _] = alike;
        let others = [first, refused("kprobe", "ENOENT", "use another kernel")];
        assert_eq!(
            in_one_line(&others),
            "cannot attach fentry: EPERM; kprobe: ENOENT; see `trapline doctor`"
        );
    }
}
