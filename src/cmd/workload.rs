//! `trapline workload`: makes data, page faults and exits of virtual machines whose number is known.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use trapline_workload::faults::{Amount, Kind};
#[cfg(target_arch = "x86_64")]
use trapline_workload::guest;
use trapline_workload::map::Advice;
use trapline_workload::pattern::Pattern;
use trapline_workload::touch::{Access, On};
use trapline_workload::{Control, data, faults, mmap, touch};

use crate::format::Format;
use crate::status::{Usage, refuse};
use crate::values;

const MIB: u64 = 1024 * 1024;

/// Make data, page faults, and exits of virtual machines whose number is known.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline workload data --file data.bin --size 128 --cold
  trapline faults -- trapline workload mmap --file data.bin --threads 4 --cold
  trapline faults -- trapline workload faults 100000")]
pub struct Args {
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Write a file to map
    Data(Data),
    /// Read a file through a memory mapping
    Mmap(Mmap),
    /// Make an exact number of page faults
    Faults(Faults),
    /// Run a virtual machine that takes an exact number of exits
    #[cfg(target_arch = "x86_64")]
    Guest(Guest),
    /// Touch given pages in a given order, and print each touch as JSON lines
    Touch(Touch),
}

#[derive(Debug, clap::Args)]
struct Data {
    /// Write this file; an existing one is replaced
    #[arg(short, long, value_name = "PATH", default_value = "test_data.bin")]
    file: PathBuf,
    /// Size in MB (1 MB = 1048576 bytes)
    #[arg(short, long, value_name = "MB", default_value_t = 512)]
    size: u64,
    /// Fill it with random bytes, numbers counting up, or 4 KiB of random bytes every 64 KiB and holes between
    #[arg(short, long, default_value = "random", value_parser = named::<data::Contents>(&data::Contents::NAMES))]
    pattern: data::Contents,
    /// Seed of the random bytes [default: drawn]
    #[arg(long)]
    seed: Option<u64>,
    /// Drop the file from the page cache afterwards, so that reading it has to wait for the disk
    #[arg(long, visible_alias = "cold")]
    drop: bool,
    /// Set the output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct Mmap {
    /// File to map
    #[arg(short, long, value_name = "PATH", default_value = "test_data.bin")]
    file: PathBuf,
    /// Order of the accesses; mixed is 70 % random and 30 % sequential
    #[arg(short, long, default_value = "random", value_parser = named::<Pattern>(&Pattern::NAMES))]
    pattern: Pattern,
    /// Accesses of each thread
    #[arg(short, long, default_value_t = 10_000)]
    count: u64,
    /// Threads (1 to 1024); in the ordered patterns they begin evenly spread over the file
    #[arg(short, long, default_value_t = 1)]
    threads: usize,
    /// Pages from one access of the stride pattern to the next [default: 64]
    #[arg(short, long, value_name = "PAGES")]
    stride: Option<usize>,
    /// Pause after each access: milliseconds, or with a unit (500us, 2ms)
    #[arg(short, long, value_name = "MS", default_value = "0", value_parser = values::duration_in_ms)]
    delay: Duration,
    /// Drop the file from the page cache first, so that accesses have to wait for the disk
    #[arg(long)]
    cold: bool,
    /// Advise the kernel about the order: with `random` it does not read ahead, and each page that is not
    /// cached is a major fault; else one major fault may read megabytes [default: random for the random and
    /// mixed patterns, else normal]
    #[arg(long, value_parser = named::<Advice>(&Advice::NAMES))]
    advice: Option<Advice>,
    /// Seed of the random pages [default: drawn]
    #[arg(long)]
    seed: Option<u64>,
    /// Set the output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct Faults {
    /// Number of page faults
    #[arg(value_name = "N", required_unless_present = "storm")]
    count: Option<u64>,
    /// Cause faults in fresh memory (minor), or in a file that is not cached (major)
    #[arg(long, default_value = "anon", value_parser = named::<Kind>(&Kind::NAMES))]
    kind: Kind,
    /// File of `--kind file`; it is dropped from the page cache first [default: test_data.bin]
    #[arg(short, long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// Threads that share the faults (1 to 1024)
    #[arg(short, long, default_value_t = 1)]
    threads: usize,
    /// Faults per second of all threads together [default: as fast as possible]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<u64>,
    /// Fault flat out for this time instead, as in 10s
    #[arg(long, value_name = "TIME", conflicts_with_all = ["count", "rate"], value_parser = values::positive_duration)]
    storm: Option<Duration>,
    /// Set the output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[cfg(target_arch = "x86_64")]
#[derive(Debug, clap::Args)]
struct Guest {
    /// Port writes of each vCPU; one more ends it
    #[arg(long, value_name = "N", default_value_t = 0)]
    io: u32,
    /// CPUID instructions of each vCPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    cpuid: u32,
    /// HLT instructions of each vCPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    hlt: u32,
    /// Writes of each vCPU to the memory of a device
    #[arg(long, value_name = "N", default_value_t = 0)]
    mmio: u32,
    /// Reads of a model-specific register of each vCPU
    #[arg(long, value_name = "N", default_value_t = 0)]
    msr: u32,
    /// First touches of each vCPU of pages that the host has to find memory for
    #[arg(long, value_name = "N", default_value_t = 0)]
    touch: u32,
    /// Runs of a guest within the guest, of each vCPU (AMD only): each makes the guest leave for VMRUN, CPUID and a port
    /// write, and its own guest for CPUID and VMMCALL
    #[arg(long, value_name = "N", default_value_t = 0, num_args = 0..=1, default_missing_value = "100")]
    nested: u32,
    /// In each nested run, have the inner guest write to a port, and answer with an SMI
    #[arg(long, requires = "nested")]
    smi: bool,
    /// vCPUs (1 to 256)
    #[arg(long, value_name = "N", default_value_t = 1)]
    vcpus: usize,
    /// Pause of the VMM at each HLT: milliseconds, or with a unit (500us, 2ms)
    #[arg(long, value_name = "MS", value_parser = values::duration_in_ms)]
    pause: Option<Duration>,
    /// Have KVM handle HLT: the vCPU is halted in KVM, which may poll, until the VMM wakes it up after --pause
    #[arg(long)]
    halts_in_kvm: bool,
    /// Name the guest, where monitors look for names
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Set the output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct Touch {
    /// Memory: anon, file (mapped shared), private (a file mapped privately), shared, stack
    #[arg(long, default_value = "anon", value_parser = named::<On>(&On::NAMES))]
    on: On,
    /// Pages of each thread
    #[arg(long, default_value_t = 256)]
    pages: usize,
    /// Number of times that each thread goes over its pages
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// Order of the touches
    #[arg(long, default_value = "seq", value_parser = named::<Pattern>(&Pattern::NAMES))]
    pattern: Pattern,
    /// Write, read, or both: read even pages and write odd ones
    #[arg(long, default_value = "write", value_parser = named::<Access>(&Access::NAMES))]
    access: Access,
    /// Threads (1 to 1024)
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Let all threads touch the same pages
    #[arg(long)]
    together: bool,
    /// Touch every page once before the rounds
    #[arg(long)]
    warm: bool,
    /// Wait before the first round: milliseconds, or with a unit
    #[arg(long, value_name = "MS", default_value = "0", value_parser = values::duration_in_ms)]
    delay: Duration,
    /// Wait between rounds: milliseconds, or with a unit
    #[arg(long, value_name = "MS", default_value = "10ms", value_parser = values::duration_in_ms)]
    pause: Duration,
    /// Let each thread begin so much later than the one before it: milliseconds, or with a unit
    #[arg(long, value_name = "MS", value_parser = values::duration_in_ms)]
    stagger: Option<Duration>,
    /// Begin each round when each of its pages has been reset (by a tracer, with writes or rwp) since it was touched;
    /// threads that share pages take turns
    #[arg(long)]
    after_resets: bool,
    /// Compute for as much CPU time instead of sleeping: some engines follow that
    #[arg(long)]
    busy: bool,
    /// Seed of random orders [default: drawn]
    #[arg(long)]
    seed: Option<u64>,
}

impl Args {
    /// Refuses options that have no effect.
    pub(crate) fn check(&self) -> Result<()> {
        let is_drawn = |pattern| matches!(pattern, Pattern::Random | Pattern::Mixed);
        let seed = "this pattern is not random: leave out --seed";
        match &self.work {
            Work::Data(args) => {
                refuse(&[(args.seed.is_some() && args.pattern == data::Contents::Sequential, seed)])
            }
            Work::Mmap(args) => refuse(&[
                (args.seed.is_some() && !is_drawn(args.pattern), seed),
                (
                    args.stride.is_some() && args.pattern != Pattern::Stride,
                    "--stride needs --pattern stride: add it, or leave out --stride",
                ),
            ]),
            Work::Faults(args) => refuse(&[(
                args.file.is_some() && args.kind != Kind::File,
                "--file needs --kind file: add it, or leave out --file",
            )]),
            #[cfg(target_arch = "x86_64")]
            Work::Guest(args) => refuse(&[
                (
                    args.pause.is_some() && args.hlt == 0,
                    "--pause needs HLT exits: add --hlt N, or leave it out",
                ),
                (
                    args.halts_in_kvm && args.pause.is_none_or(|pause| pause.is_zero()),
                    "--halts-in-kvm needs the time after which a vCPU is woken up: add --hlt N and --pause MS, or leave it out",
                ),
                (args.smi && args.nested == 0, "--smi needs nested runs: add --nested, or leave it out"),
            ]),
            Work::Touch(args) => refuse(&[
                (args.seed.is_some() && !is_drawn(args.pattern), seed),
                (
                    args.together && args.threads == 1,
                    "--together needs several threads: add --threads N, or leave it out",
                ),
                (
                    args.stagger.is_some() && args.threads == 1,
                    "--stagger needs several threads: add --threads N, or leave it out",
                ),
                (
                    args.busy && args.pause.is_zero() && args.delay.is_zero(),
                    "--busy computes instead of waiting: add --pause MS, or leave it out",
                ),
            ]),
        }
    }
}

/// Does the work and prints what it did.
///
/// # Errors
/// When an argument is out of its range, the work cannot be done, the faults made are not exactly those asked
/// for, or stdout takes no more.
pub fn run(args: &Args) -> Result<()> {
    args.check()?;
    let format = match &args.work {
        Work::Data(args) => args.format,
        Work::Mmap(args) => args.format,
        Work::Faults(args) => args.format,
        #[cfg(target_arch = "x86_64")]
        Work::Guest(args) => args.format,
        Work::Touch(_) => Format::Jsonl,
    };
    let ready: Option<fn(usize)> = if format == Format::Table { Some(announce) } else { None };
    let control = Control { progress: true, ready, ..Control::default() };
    for signal in [SIGINT, SIGTERM] {
        // The first ends the work with its report, the second ends the process.
        flag::register_conditional_default(signal, control.stop.clone())
            .and_then(|_| flag::register(signal, control.stop.clone()))
            .context("cannot catch Ctrl-C")?;
    }
    match &args.work {
        Work::Data(args) => make_data(args, &control),
        Work::Mmap(args) => read_mapped(args, &control),
        Work::Faults(args) => make_faults(args, &control),
        #[cfg(target_arch = "x86_64")]
        Work::Guest(args) => run_guest(args, &control),
        Work::Touch(args) => touch_pages(args, &control),
    }
}

fn touch_pages(args: &Touch, control: &Control) -> Result<()> {
    let options = touch::Options {
        on: args.on,
        pages: args.pages,
        rounds: args.rounds,
        pattern: args.pattern,
        access: args.access,
        threads: args.threads,
        together: args.together,
        warm: args.warm,
        delay: args.delay,
        pause: args.pause,
        stagger: args.stagger.unwrap_or_default(),
        after_resets: args.after_resets,
        busy: args.busy,
        seed: args.seed.unwrap_or_else(drawn_seed),
    };
    touch::run(&options, &mut BufWriter::new(io::stdout()), control)
}

fn make_data(args: &Data, control: &Control) -> Result<()> {
    let bytes = args.size.checked_mul(MIB).filter(|bytes| i64::try_from(*bytes).is_ok());
    let too_large = || Usage::error(format!("a file cannot have {} MB: choose less", args.size));
    let report = data::run(
        &data::Options {
            file: args.file.clone(),
            open: crate::output::open_data,
            bytes: bytes.ok_or_else(too_large)?,
            contents: args.pattern,
            seed: args.seed.unwrap_or_else(drawn_seed),
            drop: args.drop,
        },
        control,
    )?;
    print(|out| match args.format {
        Format::Table => report.write_text(out),
        _ => report.write_jsonl(out),
    })
}

fn read_mapped(args: &Mmap, control: &Control) -> Result<()> {
    let report = mmap::run(
        &mmap::Options {
            file: args.file.clone(),
            pattern: args.pattern,
            count: args.count,
            threads: args.threads,
            stride: args.stride.unwrap_or(64),
            delay: args.delay,
            advice: args.advice,
            cold: args.cold,
            seed: args.seed.unwrap_or_else(drawn_seed),
        },
        control,
    )?;
    print(|out| match args.format {
        Format::Table => report.write_text(out),
        _ => report.write_jsonl(out),
    })
}

fn make_faults(args: &Faults, control: &Control) -> Result<()> {
    let amount = args.storm.map_or_else(|| Amount::Count(args.count.unwrap_or(0)), Amount::Storm);
    let report = faults::run(
        &faults::Options {
            amount,
            kind: args.kind,
            file: args.file.clone().unwrap_or_else(|| "test_data.bin".into()),
            threads: args.threads,
            rate: args.rate,
        },
        control,
    )?;
    print(|out| match args.format {
        Format::Table => report.write_text(out),
        _ => report.write_jsonl(out),
    })?;
    let made = report.crew.done();
    ensure!(!report.interrupted, "interrupted after {made} faults");
    let counted = report.crew.work();
    ensure!(
        report.exact(),
        "not exact: {made} faults were made, but the kernel counted {} major and {} minor; huge pages, locked \
         memory, read-ahead or too little memory can do this",
        counted.major,
        counted.minor
    );
    Ok(())
}

#[cfg(target_arch = "x86_64")]
fn run_guest(args: &Guest, control: &Control) -> Result<()> {
    let each = guest::Exits {
        io: args.io,
        cpuid: args.cpuid,
        hlt: args.hlt,
        mmio: args.mmio,
        msr: args.msr,
        touch: args.touch,
        nested: args.nested,
        smi: args.smi,
    };
    let report = guest::run(
        &guest::Options {
            each,
            vcpus: args.vcpus,
            pause: args.pause.unwrap_or_default(),
            halts_in_kvm: args.halts_in_kvm,
        },
        control,
    )?;
    print(|out| match args.format {
        Format::Table => report.write_text(out),
        _ => report.write_jsonl(out),
    })?;
    ensure!(
        report.exact(),
        "not exact: the guest left for its VMM {:?} times (ports, HLT, device)",
        report.seen
    );
    Ok(())
}

/// Says which process is about to work, so that a monitor can be pointed at it. If stdout is closed, the
/// report that follows will say so.
fn announce(threads: usize) {
    let (pid, plural) = (std::process::id(), if threads == 1 { "" } else { "s" });
    let _ = print(|out| writeln!(out, "process {pid}: {threads} thread{plural}"));
}

/// Writes to stdout through a buffer, so that a report comes out whole.
fn print(write: impl FnOnce(&mut BufWriter<io::StdoutLock<'static>>) -> io::Result<()>) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).context("cannot write to stdout")
}

/// A seed that is short to type again.
fn drawn_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos() ^ std::process::id())
}

/// Reads one of a set of names, and lists them in help and errors.
pub(super) fn named<T>(names: &'static [&'static str]) -> impl TypedValueParser<Value = T>
where
    T: FromStr<Err = String> + Clone + Send + Sync + 'static,
{
    PossibleValuesParser::new(names).try_map(|name| name.parse::<T>())
}
