//! What the numbers of stacks in a recording mean. Names come later than the faults, so they are in a table of their own.

use std::collections::HashMap;
use std::rc::Rc;

use trapline_model::faults::{FaultColumns, STACKS};

use super::part::Reader;

/// The columns that have texts of a stack.
pub(super) const TEXTS: [&str; 4] = ["stack", "lines", "binaries", "function"];

/// The column with its number.
pub(super) const ID: &str = "stack_id";

/// What is shown of a stack without names: the run was killed before it had them, or the part is not there.
const UNNAMED: [&str; 4] =
    ["[unknown];[not symbolized]", ";[the recording has no names of this stack]", "", "[not symbolized]"];

/// The names of stacks.
#[derive(Debug, Default)]
pub(super) struct Stacks {
    /// The place of each in the lists.
    places: HashMap<u64, u32>,
    /// Each text column.
    lists: [Vec<Rc<str>>; TEXTS.len()],
    /// The same, to be shared; made when they are asked for.
    shared: Option<Vec<Rc<[Rc<str>]>>>,
}

impl Stacks {
    /// Adds those of a part: of a number that is there twice the last one counts.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn add(&mut self, content: Vec<u8>) -> Result<(), String> {
        let mut reader = Reader::open(STACKS, content, None)?;
        while let Some(item) = reader.item() {
            while let Some((.., record)) = reader.next_of(item)? {
                let Some(id) = record.number(ID) else { continue };
                self.put(id, TEXTS.map(|name| record.text(name).unwrap_or_default()));
            }
        }
        Ok(())
    }

    fn put(&mut self, id: u64, texts: [&str; TEXTS.len()]) {
        self.shared = None;
        self.places.insert(id, self.lists[0].len() as u32);
        for (list, text) in self.lists.iter_mut().zip(texts) {
            // Many stacks have the same function.
            let same = list.last().filter(|last| ***last == *text).cloned();
            list.push(same.unwrap_or_else(|| text.into()));
        }
    }

    /// Puts them into the columns of faults.
    pub(super) fn fill(&mut self, faults: &mut FaultColumns) {
        let lists = self.shared.get_or_insert_with(|| {
            let mut lists: Vec<Rc<[Rc<str>]>> = Vec::new();
            for (list, unnamed) in self.lists.iter().zip(UNNAMED) {
                lists.push(list.iter().cloned().chain([unnamed.into()]).collect());
            }
            lists
        });
        let unnamed = self.lists[0].len() as u32;
        faults.fill(&TEXTS, lists, ID, |id| Some(self.places.get(&id).copied().unwrap_or(unnamed)));
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use trapline_model::faults::{
        Fault, FaultRows, NamedStack, Outcome, STACK_EVENT, Stack, StackRows, Thread,
    };
    use trapline_model::{Event, Facts, Header, Item, Sink, Source, Value};

    use super::super::{FolderRecording, Kept, Recorder};
    use super::*;

    fn fault(n: u64) -> Fault {
        Fault {
            process_start_ns: Some(5),
            stack_id: (n > 0).then_some(n),
            ..Fault::new(1000 + n, Thread { pid: 7, tid: 7, start_ns: 5 }, "x".into(), Outcome::Minor)
        }
    }

    fn named(id: u64) -> NamedStack {
        let mut stack = Stack::default();
        stack.push("x", "");
        stack.push(&format!("f{id}"), "f.c:1");
        NamedStack { id, stack: Rc::new(stack) }
    }

    /// The functions of the recorded faults.
    fn functions(path: &Path) -> (Vec<String>, Option<String>) {
        let mut recording = FolderRecording::open(path, "x", None).unwrap();
        let mut functions = Vec::new();
        loop {
            match Source::next(&mut recording) {
                Ok(Some(Item::Events(events))) => {
                    let function = |event: &Event| match event.record.get("function") {
                        Some(Value::Str(function)) => function.to_string(),
                        _ => "none".into(),
                    };
                    functions.extend(events.iter().map(function));
                }
                Ok(Some(_)) => {}
                Ok(None) => return (functions, None),
                Err(error) => return (functions, Some(error.to_string())),
            }
        }
    }

    /// Two stacks, of which one gets its name two writes after its first fault; of another name nothing is known.
    fn record(path: &Path, kept: Kept) {
        fs::create_dir(path).unwrap();
        let mut recorder = Recorder::new(OwnedFd::from(File::open(path).unwrap()), kept);
        let header = Header { tool: "faults".into(), events: Some(STACK_EVENT), ..Header::default() };
        recorder.take(&Item::Header(header)).unwrap();
        let mut batches = recorder.batches().unwrap();
        for (faults, names) in [(0..4, vec![named(1)]), (1..2, vec![]), (0..3, vec![named(2)])] {
            let faults: Vec<Fault> = faults.map(fault).collect();
            batches.take(&FaultRows::new(&faults, false, true)).unwrap();
            batches.take(&StackRows(2000, &names)).unwrap();
            recorder.settle();
        }
        drop(batches);
        recorder.take(&Item::End(Facts::default())).unwrap();
    }

    #[test]
    fn stacks_have_the_names_that_came_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        record(&path, Kept::All);
        let of_all = ["none", "f1", "f2", "[not symbolized]", "f1", "none", "f1", "f2"].map(str::to_owned);
        assert_eq!(functions(&path), (of_all.to_vec(), None));
        // What is damaged is said, and faults are there all the same.
        let names = path.join("frames-faults.stacks-000003.parquet");
        fs::write(&names, "PAR1").unwrap();
        let (functions, error) = functions(&path);
        assert_eq!((functions.len(), functions[2].as_str()), (8, "[not symbolized]"));
        assert!(error.unwrap().contains("frames-faults.stacks-000003.parquet: it is not as it was written"));
    }

    /// The faults that are kept have names that were written before them.
    #[test]
    fn names_of_parts_that_are_not_kept_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        record(&path, Kept::Bytes(1));
        assert_eq!(functions(&path), (["none", "f1", "f2"].map(str::to_owned).to_vec(), None));
        assert!(!path.join("parts-000001.json").exists());
    }
}
