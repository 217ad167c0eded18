//! Makes a file to map: incompressible, counting up, or full of holes.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::statvfs::statvfs;

use crate::report::{Line, nanoseconds, per_second, shown, size};
use crate::{Control, Unfit, cache, progress};

/// Bytes written at a time.
const CHUNK: u64 = 64 * 1024;
/// Bytes of data at the start of each chunk of a sparse file; the rest of the chunk is a hole.
const SPARSE_DATA: u64 = 4096;
/// What may wait in memory before it is brought to disk: keeps progress honest and memory free.
const WRITE_BACK: u64 = 64 * 1024 * 1024;

/// What a file is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Contents {
    /// Pseudo-random bytes, which nothing can compress.
    #[default]
    Random,
    /// 64-bit numbers in the machine's byte order, counting up from 0.
    Sequential,
    /// 4 KiB of random bytes every 64 KiB, holes between.
    Sparse,
}

impl Contents {
    /// Every kind's name, as it is written on the command line.
    pub const NAMES: [&'static str; 3] = ["random", "sequential", "sparse"];

    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Sequential => "sequential",
            Self::Sparse => "sparse",
        }
    }
}

impl FromStr for Contents {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "random" => Ok(Self::Random),
            "sequential" | "seq" => Ok(Self::Sequential),
            "sparse" => Ok(Self::Sparse),
            _ => Err(format!("unknown pattern {text:?}: one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// What file to make.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where; a file that is there is replaced.
    pub file: PathBuf,
    /// Opens it to write and read, without contents.
    pub open: fn(&Path) -> Result<File>,
    /// Its size in bytes, at least 1.
    pub bytes: u64,
    /// What is in it.
    pub contents: Contents,
    /// Equal seeds give equal files.
    pub seed: u64,
    /// Whether the file is dropped from the page cache afterwards.
    pub drop: bool,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataReport {
    /// Where.
    pub file: PathBuf,
    /// Its size in bytes, holes included.
    pub bytes: u64,
    /// Bytes written: all of them, except for a sparse file.
    pub written: u64,
    /// Bytes that the file takes on disk.
    pub allocated: u64,
    /// What is in it.
    pub contents: Contents,
    /// The seed of the random bytes.
    pub seed: u64,
    /// From the first byte until all was on disk.
    pub wall: Duration,
    /// Whether it was dropped from the page cache.
    pub dropped: bool,
    /// Pages left in the page cache after dropping it; `None` if it was not dropped, or nobody may know.
    pub resident: Option<usize>,
}

/// Makes a file and brings it to disk.
///
/// # Errors
/// When the size is 0, the path is no regular file, there is too little space, writing fails or is
/// interrupted. A file that was begun is then removed.
pub fn run(options: &Options, control: &Control) -> Result<DataReport> {
    let name = shown(&options.file);
    ensure!(
        options.bytes > 0,
        Unfit::new(format!("cannot create {name} with 0 bytes: use a size of at least 1"))
    );
    cache::check_target(&options.file)?;
    if options.contents != Contents::Sequential {
        check_space(&options.file, bytes_to_write(options))?;
    }
    let file = (options.open)(&options.file).with_context(|| format!("cannot create {name}"))?;
    let begun = Instant::now();
    let written = AtomicU64::new(0);
    let filled = progress::watch(
        control,
        "writing",
        bytes_to_write(options),
        &|| written.load(Ordering::Relaxed),
        || fill(&file, options, control, &written),
    );
    if let Err(error) = filled {
        // What is half made would be taken for whole by the next reader.
        let fate = match std::fs::remove_file(&options.file) {
            Ok(()) => "the unfinished file was removed",
            Err(_) => "the unfinished file is still there",
        };
        let written = size(written.into_inner());
        return Err(error).with_context(|| format!("cannot write {name} after {written}, {fate}"));
    }
    let wall = begun.elapsed();
    let metadata = file.metadata().with_context(|| format!("cannot stat {name}"))?;
    let resident = if options.drop { cache::drop_cached(&file, &options.file, options.bytes)? } else { None };
    Ok(DataReport {
        file: options.file.clone(),
        bytes: metadata.len(),
        written: written.into_inner(),
        allocated: cache::allocated_bytes(&metadata),
        contents: options.contents,
        seed: options.seed,
        wall,
        dropped: options.drop,
        resident,
    })
}

fn fill(mut file: &File, options: &Options, control: &Control, written: &AtomicU64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let mut chunk = vec![0u8; usize::try_from(CHUNK)?];
    let mut counter = 0u64;
    let mut waiting = 0;
    let mut position = 0;
    while position < options.bytes {
        if control.stopped() {
            bail!("interrupted");
        }
        let length = chunk_data(options.contents).min(options.bytes - position);
        let data = chunk.get_mut(..usize::try_from(length)?).unwrap_or_default();
        match options.contents {
            Contents::Random => {
                random.fill(data);
                file.write_all(data)?;
            }
            Contents::Sequential => {
                for word in data.chunks_mut(8) {
                    word.copy_from_slice(counter.to_ne_bytes().get(..word.len()).unwrap_or_default());
                    counter += 1;
                }
                file.write_all(data)?;
            }
            Contents::Sparse => {
                random.fill(data);
                file.write_all_at(data, position)?;
            }
        }
        position += CHUNK;
        written.fetch_add(length, Ordering::Relaxed);
        waiting += length;
        if waiting >= WRITE_BACK {
            file.sync_data()?;
            waiting = 0;
        }
    }
    if options.contents == Contents::Sparse {
        file.set_len(options.bytes)?;
    }
    Ok(file.sync_all()?)
}

/// How much of each chunk is data.
fn chunk_data(contents: Contents) -> u64 {
    if contents == Contents::Sparse { SPARSE_DATA } else { CHUNK }
}

fn bytes_to_write(options: &Options) -> u64 {
    let data = chunk_data(options.contents);
    options.bytes / CHUNK * data + (options.bytes % CHUNK).min(data)
}

/// Refuses before the start what cannot fit, rather than fill a disk to its end and then say so.
///
/// # Errors
/// When fewer bytes than `needed` are free where the file is to be.
pub fn check_space(path: &Path, needed: u64) -> Result<()> {
    let replaced = std::fs::metadata(path).map_or(0, |metadata| cache::allocated_bytes(&metadata));
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // If the space is not known, writing will tell.
    let Ok(space) = statvfs(folder) else { return Ok(()) };
    let free = space.blocks_free().saturating_mul(space.fragment_size()).saturating_add(replaced);
    ensure!(
        needed <= free,
        "not enough space for {}: it needs {}, {} are free; choose a smaller --size or another --file",
        shown(path),
        size(needed),
        size(free)
    );
    Ok(())
}

impl DataReport {
    /// Writes the report for people.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let seconds = self.wall.as_secs_f64();
        writeln!(
            out,
            "{}: {} bytes ({}), {}{}",
            shown(&self.file),
            self.bytes,
            size(self.bytes),
            self.contents.name(),
            match self.contents {
                Contents::Sequential => String::new(),
                Contents::Random | Contents::Sparse => format!(", seed {}", self.seed),
            }
        )?;
        writeln!(
            out,
            "wrote {} in {seconds:.3} s, to disk: {:.1} MB/s; allocated {} ({} blocks of 512 bytes)",
            size(self.written),
            per_second(self.written, self.wall) / 1e6,
            size(self.allocated),
            self.allocated / 512
        )?;
        match self.resident {
            None if !self.dropped => Ok(()),
            None | Some(0) => writeln!(out, "dropped from the page cache"),
            Some(pages) => writeln!(
                out,
                "dropped from the page cache, but {pages} pages stay: a process maps them, or the file system is in memory"
            ),
        }
    }

    /// Writes the report as one JSON line.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write_jsonl(&self, out: &mut impl Write) -> io::Result<()> {
        Line::new("total")
            .with("workload", "data")
            .with("file", self.file.to_string_lossy().as_ref())
            .with("bytes", self.bytes)
            .with("written", self.written)
            .with("allocated", self.allocated)
            .with("pattern", self.contents.name())
            .with("seed", self.seed)
            .with("wall_ns", nanoseconds(self.wall))
            .with("dropped", self.dropped)
            .with("resident", self.resident)
            .write(out)
    }
}
