//! Rows as stacks, for formats that know nothing else: the frames of a call chain, or what the row is one of.

use trapline_model::faults::IN_KERNEL;
use trapline_model::{Block, Field, Kind, Record, Type, Unit, Value};

use crate::escape::{name, visible};

/// What rows without a stack have in its place.
pub(crate) const NONE: &str = "[no stack taken]";

/// The module of its functions.
pub(crate) const KERNEL: &str = "[kernel.kallsyms]";

/// One level of a stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Frame {
    /// The function, or what stands for it.
    pub(crate) name: String,
    /// The file of source text, if it is known.
    pub(crate) file: String,
    /// The line in it.
    pub(crate) line: i64,
    /// The executable, library or kernel, if it is known: its path or its name.
    pub(crate) module: Option<String>,
    /// The build id of that, if it is known.
    pub(crate) build_id: String,
    /// The offset in the module of a function without a name.
    pub(crate) offset: u64,
}

/// The frames of a row, outermost first: at least one.
pub(crate) fn frames(row: &Record) -> Vec<Frame> {
    match row.get("stack") {
        Some(Value::Str(stack)) => calls(stack, row.text("lines"), row.text("binaries")),
        Some(_) => vec![named(NONE)],
        None => keys(row),
    }
}

fn named(text: &str) -> Frame {
    Frame { name: name(text), ..Frame::default() }
}

/// The frames of a call chain with the lines of each, and the files of those without a name.
fn calls(stack: &str, lines: Option<&str>, binaries: Option<&str>) -> Vec<Frame> {
    let [mut lines, mut binaries] = [lines, binaries].map(|texts| texts.unwrap_or_default().split(';'));
    let mut next = || (lines.next().unwrap_or_default(), binaries.next().unwrap_or_default());
    let call = |function| {
        let (line, binary) = next();
        call(function, line, binary)
    };
    stack.split(';').map(call).collect()
}

fn call(function: &str, line: &str, binary: &str) -> Frame {
    let mut frame = named(function);
    // In brackets is why it has no name.
    if line.starts_with('[') {
        let place = function.rsplit_once("+0x");
        if let Some((module, offset)) = place.and_then(|(m, o)| Some((m, u64::from_str_radix(o, 16).ok()?))) {
            (frame.module, frame.offset) = (Some(name(module)), offset);
            if let Some((path, build_id)) = binary.rsplit_once('@') {
                (frame.module, frame.build_id) = (Some(name(path)), visible(build_id));
            }
        }
    } else if let Some((file, line)) = line.rsplit_once(':') {
        (frame.file, frame.line) = (visible(file), line.parse().unwrap_or(0));
    }
    if let Some(function) = frame.name.strip_suffix(IN_KERNEL) {
        (frame.name, frame.module) = (name(function), Some(KERNEL.into()));
    }
    frame
}

/// What a row is one of, from its process inwards.
fn keys(row: &Record) -> Vec<Frame> {
    let mut frames = vec![];
    let label = row.text("comm").or(row.text("vm")).map(name);
    match (row.number("pid"), row.number("tid")) {
        (Some(pid), Some(tid)) => {
            frames.push(format!("process {pid}"));
            frames.push(format!("{} [{tid}]", label.unwrap_or_else(|| "thread".into())));
        }
        (Some(pid), None) => frames.push(format!("{} [{pid}]", label.unwrap_or_else(|| "process".into()))),
        // A row of what is in no other.
        (None, _) => frames.extend(label),
    }
    // These were shown, or are another key in numbers.
    const SHOWN: [&str; 9] =
        ["pid", "tid", "comm", "start_ns", "dev", "inode", "isa", "reason", "generation"];
    for (field, value) in row.iter().filter(|(field, _)| field.kind == Kind::Key) {
        match value {
            _ if SHOWN.contains(&field.name) => {}
            Value::Str(text) => frames.push(name(text)),
            Value::U64(n) if field.unit == Unit::Address => frames.push(format!("{} {n:#x}", field.name)),
            Value::U64(n) => frames.push(format!("{} {n}", field.name)),
            _ => {}
        }
    }
    if frames.is_empty() {
        frames.push(row.schema().tool().to_owned());
    }
    frames.into_iter().map(|name| Frame { name, ..Frame::default() }).collect()
}

/// A counter: its name, its unit, and the fields that it adds up.
pub(crate) type Measure = (&'static str, &'static str, Vec<&'static str>);

/// The counters of a table of which something is known, what the tool counts first: faults as one number.
pub(crate) fn measures(block: &Block) -> Vec<Measure> {
    let counters = block.table.iter().filter(|field| {
        field.kind == Kind::Counter && field.ty == Type::U64 && !field.name.ends_with("timed")
    });
    let counters: Vec<&Field> = counters.collect();
    let has_kinds = ["major", "minor"].iter().all(|kind| counters.iter().any(|f| f.name == *kind));
    let faults = has_kinds.then(|| ("faults", "count", vec!["major", "minor"]));
    let each = counters.iter().map(|field| {
        let name = match field.name {
            "total_ns" if has_kinds => "stall",
            "major_ns" if has_kinds => "major_stall",
            name => name.strip_suffix("_ns").unwrap_or(name),
        };
        (name, unit(field.unit), vec![field.name])
    });
    let is_known = |(.., fields): &Measure| {
        let known = |row: &Record| fields.iter().all(|field| row.number(field).is_some());
        block.rows.is_empty() || block.rows.iter().any(known)
    };
    let mut measures: Vec<Measure> = faults.into_iter().chain(each).filter(is_known).collect();
    measures.sort_by_key(|(name, ..)| !["faults", "count"].contains(name));
    measures
}

/// Units by the names that pprof knows.
pub(crate) fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Nanoseconds => "nanoseconds",
        Unit::Bytes => "bytes",
        Unit::None | Unit::Count | Unit::Address => "count",
    }
}

#[cfg(test)]
mod tests {
    use trapline_model::faults::By;

    use super::*;

    #[test]
    fn frames_have_what_is_known_of_them() {
        let stack = "sh;main;libc.so.6+0x2a1;read 1+0xzz;do_read_[k]";
        let lines = ";/src/a.c:17;[the file has no symbols];[late];";
        let frames = calls(stack, Some(lines), Some(";;/lib/a@b/libc.so.6@0f;;"));
        let names: Vec<&str> = frames.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["sh", "main", "libc.so.6+0x2a1", "read 1+0xzz", "do_read"]);
        assert_eq!((frames[1].file.as_str(), frames[1].line), ("/src/a.c", 17));
        assert_eq!((frames[2].module.as_deref(), frames[2].offset), (Some("/lib/a@b/libc.so.6"), 0x2a1));
        assert_eq!((frames[2].build_id.as_str(), frames[3].build_id.as_str()), ("0f", ""));
        // A recording of before they were known.
        let before = calls(stack, Some(lines), None);
        assert_eq!((before[2].module.as_deref(), before[2].offset), (Some("libc.so.6"), 0x2a1));
        assert_eq!((frames[3].module.as_deref(), frames[3].file.as_str()), (None, ""));
        assert_eq!(frames[4].module.as_deref(), Some("[kernel.kallsyms]"));
    }

    #[test]
    fn a_row_of_a_thread_is_within_its_process() {
        let row = |comm: &str, pid: Value, tid: Value| {
            Record::named(By::Thread.schema(), |field| match field {
                "pid" => pid.clone(),
                "tid" => tid.clone(),
                "comm" => comm.into(),
                _ => Value::Null,
            })
        };
        let names = |row: &Record| frames(row).into_iter().map(|f| f.name).collect::<Vec<_>>();
        assert_eq!(names(&row("w\x1b", 7u64.into(), 8u64.into())), ["process 7", "w\\x1b [8]"]);
        assert_eq!(names(&row("(folded threads)", Value::Null, Value::Null)), ["(folded threads)"]);
    }
}
