//! What must hold of a perf.data file before its reader is given it: the reader takes the sizes in it for true, and sets
//! memory aside for them.

use std::io::{self, Read, Seek, SeekFrom};

/// The size of the header, and of that of what was written to a pipe.
const HEADER: u64 = 104;
const PIPE: u64 = 16;

/// The sizes of `perf_event_attr` that there can be.
const ATTRIBUTE: std::ops::RangeInclusive<u64> = 64..=4096;

/// Bits of features: descriptions of events; and from here on those of another tool.
const EVENT_DESC: usize = 12;
const OTHERS: usize = 128;

/// Types of records.
const AUXTRACE: u32 = 71;
const COMPRESSED: [u32; 2] = [81, 83];

/// Whether bytes begin as such a file does.
pub fn is_perf_data(bytes: &[u8]) -> bool {
    matches!(bytes.get(..8), Some(b"PERFILE2" | b"2ELIFREP"))
}

/// A part of the file.
#[derive(Debug, Clone, Copy)]
struct Section {
    offset: u64,
    size: u64,
}

impl Section {
    fn end(self) -> Option<u64> {
        self.offset.checked_add(self.size)
    }
}

/// Reads numbers in the file's byte order.
struct Numbers<R> {
    input: R,
    big: bool,
}

impl<R: Read> Numbers<R> {
    fn u32(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.input.read_exact(&mut bytes)?;
        Ok(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn u64(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.input.read_exact(&mut bytes)?;
        Ok(if self.big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    fn section(&mut self) -> io::Result<Section> {
        Ok(Section { offset: self.u64()?, size: self.u64()? })
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.input.by_ref().take(bytes), &mut io::sink())?;
        if skipped < bytes { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// Why a file cannot be given to the reader.
#[derive(Debug)]
pub(super) enum Unfit {
    Io(io::Error),
    Why(String),
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Why("it is cut off".into()),
            _ => Self::Io(error),
        }
    }
}

fn unless(holds: bool, why: &str) -> Result<(), Unfit> {
    if holds { Ok(()) } else { Err(Unfit::Why(why.to_owned())) }
}

/// Goes over the file, and leaves it at its beginning.
pub(super) fn inspect(input: &mut (impl Read + Seek)) -> Result<(), Unfit> {
    let length = input.seek(SeekFrom::End(0))?;
    input.rewind()?;
    let mut magic = [0; 8];
    input.read_exact(&mut magic)?;
    unless(is_perf_data(&magic), "it is no perf.data file")?;
    let mut numbers = Numbers { input: &mut *input, big: &magic == b"2ELIFREP" };
    let size = numbers.u64()?;
    unless(size != PIPE, "perf wrote it to a pipe: use `perf record -o FILE`")?;
    unless(size == HEADER, "its header has another size than that of this version")?;
    let attribute = numbers.u64()?;
    let [attributes, data, old] = [numbers.section()?, numbers.section()?, numbers.section()?];
    unless(ATTRIBUTE.contains(&attribute), "the size of its event attributes is out of range")?;
    unless(old.size == 0, "its version is too old")?;
    unless(data.size > 0, "it has no data: perf was killed, or is still recording")?;
    let within = |section: Section| section.end().is_some_and(|end| end <= length);
    unless(within(attributes) && within(data), "it is cut off")?;
    let mut features = vec![];
    for word in 0..4 {
        let bits = numbers.u64()?;
        features.extend((0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| word * 64 + bit));
    }
    unless(features.iter().all(|bit| *bit < OTHERS), "it is of another tool than perf")?;
    numbers.input.seek(SeekFrom::Start(data.offset + data.size))?;
    let sections: io::Result<Vec<_>> = features.iter().map(|bit| Ok((*bit, numbers.section()?))).collect();
    let sections = sections?;
    let sum = sections.iter().try_fold(0u64, |sum, (_, section)| sum.checked_add(section.size));
    let are_within = sections.iter().all(|(_, section)| within(*section));
    unless(are_within && sum.is_some_and(|sum| sum <= length), "it is cut off")?;
    if let Some((_, section)) = sections.iter().find(|(bit, _)| *bit == EVENT_DESC) {
        events(&mut numbers, *section)?;
    }
    records(&mut numbers, data)?;
    input.rewind()?;
    Ok(())
}

/// The descriptions of events fit into their section.
fn events(numbers: &mut Numbers<impl Read + Seek>, section: Section) -> Result<(), Unfit> {
    numbers.input.seek(SeekFrom::Start(section.offset))?;
    let mut numbers = Numbers { input: numbers.input.by_ref().take(section.size), big: numbers.big };
    let (count, size) = (numbers.u32()?, u64::from(numbers.u32()?));
    let least = u64::from(count).saturating_mul(size);
    unless(ATTRIBUTE.contains(&size) && least <= section.size, "the descriptions of its events are damaged")?;
    for _ in 0..count {
        numbers.skip(size)?;
        let ids = u64::from(numbers.u32()?);
        let name = u64::from(numbers.u32()?);
        numbers.skip(name)?;
        numbers.skip(ids * 8)?;
    }
    Ok(())
}

/// Records follow each other up to the end of the data, and the reader can read each.
fn records(numbers: &mut Numbers<impl Read + Seek>, data: Section) -> Result<(), Unfit> {
    numbers.input.seek(SeekFrom::Start(data.offset))?;
    let mut left = data.size;
    while left > 0 {
        let kind = numbers.u32()?;
        let sizes = numbers.u32()?;
        let size = u64::from(if numbers.big { sizes & 0xffff } else { sizes >> 16 });
        unless((8..=left).contains(&size), "the size of a record is out of range")?;
        unless(!COMPRESSED.contains(&kind), "it is compressed: record without -z")?;
        unless(kind != AUXTRACE, "it is a trace of a processor's branches")?;
        numbers.skip(size - 8)?;
        left -= size;
    }
    Ok(())
}
