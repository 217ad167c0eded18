//! `parts-000001.json`: what was written together, and how a reader sees that it is whole.

use std::io;

use serde_json::{Map, Value as Json, json};
use trapline_model::recorded::EntryKind;

/// The version of the format; it grows when the meaning of a column changes.
const SCHEMA: u64 = 1;

/// The parts of one write, which were there before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) parts: Vec<Part>,
    /// The names of stacks of older writes, which are not kept otherwise.
    pub(super) frames: Vec<Part>,
    /// The oldest of the last writes: of those the parts were kept.
    pub(super) first: u64,
    /// Older writes that were kept, too, for a message in them or beside them.
    pub(super) moments: Vec<u64>,
    /// The number of messages of which the write was not kept.
    pub(super) unkept: u64,
    /// The times of the items in it: the least and the greatest.
    pub(super) times: (u64, u64),
}

/// A part: its name, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) crc32: u32,
}

/// What messages call it, and the name of its file.
pub(super) fn name(number: u64) -> String {
    format!("parts-{number:06}.json")
}

/// The number of the write that a file's name says to be a manifest.
pub(super) fn number(name: &str) -> Option<u64> {
    name.strip_prefix("parts-")?.strip_suffix(".json")?.parse().ok()
}

impl Part {
    pub(super) fn new(name: String, content: &[u8]) -> Self {
        Self { name, bytes: content.len() as u64, crc32: crc32fast::hash(content) }
    }

    /// Whether it has names of stacks.
    pub(super) fn is_of_frames(&self) -> bool {
        self.kind_and_table().is_some_and(|(kind, _)| kind == EntryKind::Frames.name())
    }

    /// The kind of its items and the table of its rows: `events-faults.fault-000001.parquet`.
    pub(super) fn kind_and_table(&self) -> Option<(&str, &str)> {
        let (stem, _) = self.name.strip_suffix(".parquet")?.rsplit_once('-')?;
        Some(stem.split_once('-').unwrap_or((stem, "")))
    }
}

impl Manifest {
    pub(super) fn write(&self) -> String {
        let part = |part: &Part| json!({"name": part.name, "bytes": part.bytes, "crc32": part.crc32});
        let list = |parts: &[Part]| parts.iter().map(part).collect::<Vec<Json>>();
        let (from, to) = self.times;
        let mut json = json!({
            "schema": SCHEMA, "first": self.first, "from_ns": from, "to_ns": to, "parts": list(&self.parts),
        });
        if !self.frames.is_empty() {
            json["frames"] = list(&self.frames).into();
        }
        if !self.moments.is_empty() || self.unkept > 0 {
            json["moments"] = self.moments.clone().into();
            json["unkept_messages"] = self.unkept.into();
        }
        format!("{json}\n")
    }

    /// # Errors
    /// When it is none.
    pub(super) fn read(bytes: &[u8]) -> io::Result<Self> {
        let json: Map<String, Json> = serde_json::from_slice(bytes)?;
        let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let number = |of: &Map<String, Json>, name: &str| {
            let number = of.get(name).and_then(Json::as_u64);
            number.ok_or_else(|| wrong(format!("its `{name}` is missing, or not a whole number")))
        };
        let schema = number(&json, "schema")?;
        if schema != SCHEMA {
            return Err(wrong(format!(
                "it uses schema {schema}, and this version reads schema {SCHEMA}: replay it with the version that wrote it"
            )));
        }
        let read = |part: &Json| {
            let part = part.as_object().ok_or_else(|| wrong("a part is not an object".into()))?;
            let name = part.get("name").and_then(Json::as_str).unwrap_or_default();
            // It stays within the folder.
            if name.is_empty() || name.contains('/') || name.starts_with('.') {
                return Err(wrong(format!("`{}` is not the name of a part", name.escape_debug())));
            }
            let crc32 = u32::try_from(number(part, "crc32")?).map_err(|error| wrong(error.to_string()))?;
            Ok::<_, io::Error>(Part { name: name.into(), bytes: number(part, "bytes")?, crc32 })
        };
        let list = |name: &str| {
            json.get(name)
                .and_then(Json::as_array)
                .into_iter()
                .flatten()
                .map(read)
                .collect::<io::Result<Vec<_>>>()
        };
        let moments = json.get("moments").and_then(Json::as_array).into_iter().flatten();
        Ok(Self {
            parts: list("parts")?,
            frames: list("frames")?,
            first: number(&json, "first")?,
            moments: moments.filter_map(Json::as_u64).collect(),
            unkept: json.get("unkept_messages").and_then(Json::as_u64).unwrap_or(0),
            times: (number(&json, "from_ns")?, number(&json, "to_ns")?),
        })
    }
}
