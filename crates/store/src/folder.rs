//! A folder of Parquet parts: a recording that survives a kill, and that can be read while it grows.
//!
//! ```text
//! NAME.trapline/
//! ├── header.json                          the header, as JSON lines have it
//! ├── items-000001.parquet                 what came when: the skeleton of the stream
//! ├── events-faults.fault-000001.parquet   rows of a table, each with the number of its item
//! ├── frames-faults.stacks-000001.parquet  what the numbers of stacks in rows mean
//! ├── parts-000001.json                    written last of this number: the names, lengths and checksums of the others
//! └── end.json                             the end, as JSON lines have it; written last
//! ```

mod columns;
mod fault_columns;
mod keep;
mod manifest;
mod part;
mod pending;
mod read;
mod single;
mod stacks;
#[cfg(test)]
mod tests;
mod words;
mod write;

pub use self::keep::Kept;
pub use self::read::FolderRecording;
pub use self::single::SingleTable;
pub use self::write::Recorder;

#[cfg(any(test, fuzzing))]
pub(crate) use self::part::read_all as read_part;

const HEADER: &str = "header.json";
const END: &str = "end.json";

/// What comes before the checksum of a line.
const SEAL: &str = ",\"crc32\":";

/// An object on a line, with the checksum of what comes before it.
fn seal(line: &str) -> String {
    let object = line.trim_end().trim_end_matches('}');
    format!("{object}{SEAL}{}}}\n", crc32fast::hash(object.as_bytes()))
}

/// The object on a line, if it is as it was written.
fn unseal(bytes: &[u8]) -> Result<&[u8], String> {
    let line = bytes.strip_suffix(b"}\n").ok_or("it is cut off")?;
    let at = line.windows(SEAL.len()).rposition(|window| window == SEAL.as_bytes());
    let (object, sum) = line.split_at(at.ok_or("it has no checksum")?);
    let sum = str::from_utf8(&sum[SEAL.len()..]).ok().and_then(|sum| sum.parse().ok());
    if sum == Some(crc32fast::hash(object)) { Ok(bytes) } else { Err("its checksum does not match".into()) }
}
