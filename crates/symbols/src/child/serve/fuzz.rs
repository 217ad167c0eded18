//! The symbolizer's answers to everything that can be asked of a hostile file.

use std::io::{Seek, Write};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::*;

/// A symbolizer in this process, which has one file.
struct Asked {
    files: Files,
    file: File,
}

impl Asked {
    fn new() -> Option<Self> {
        let file = File::from(memfd_create(c"fuzz", MFdFlags::MFD_CLOEXEC).ok()?);
        Some(Self { files: Files { open: HashMap::new(), clock: 0, memory: None }, file })
    }

    fn write(&mut self, bytes: &[u8]) -> Option<u64> {
        self.file.rewind().and_then(|()| self.file.write_all(bytes)).ok()?;
        Some(bytes.len() as u64)
    }

    /// What does not fit into a packet would end the symbolizer.
    fn ask(&mut self, request: Request) -> Option<Reply> {
        let reply = self.files.answer(request, Some(self.file.try_clone().ok()?.into()));
        let packet = postcard::to_stdvec(&reply).map_or(usize::MAX, |packet| packet.len());
        assert!(packet <= LARGEST, "an answer of {packet} bytes");
        Some(reply)
    }
}

/// The symbols and USDT points of an ELF file, which is its own debug file, too.
pub fn elf(bytes: &[u8]) {
    let _ = program(bytes, false);
}

/// The same with its debug information.
pub fn dwarf(bytes: &[u8]) {
    let _ = program(bytes, true);
}

fn program(bytes: &[u8], lines: bool) -> Option<()> {
    let mut asked = Asked::new()?;
    let (id, size) = (1, asked.write(bytes)?);
    asked.ask(Request::Open { id, size, lines })?;
    find(&mut asked, bytes)?;
    if !lines {
        for wanted in ["g", "Store::query", "quer", "0x400080"] {
            asked.ask(Request::Function { id, wanted: wanted.into(), shown: "x".into() })?;
        }
        asked.ask(Request::Points { id, from: 0 })?;
        asked.ask(Request::Needs { id })?;
        if let Some(Reply::Rows(rows, all)) = asked.ask(Request::Unwind { id, from: 0 }) {
            assert!(rows.len() < all as usize || crate::unwind::are_sound(&rows));
        }
    }
    asked.ask(Request::Debug { id, size })?;
    find(&mut asked, bytes)
}

/// Looks everywhere in the file, and more closely where it begins to run.
fn find(asked: &mut Asked, bytes: &[u8]) -> Option<()> {
    let count = wire::ADDRESSES as u64;
    let step = (bytes.len() as u64 / count).max(1);
    asked.ask(Request::Find { id: 1, at: (0..count).map(|n| n * step).collect() })?;
    let entry = bytes.get(24..32).and_then(|at| at.try_into().ok()).map_or(0, u64::from_le_bytes);
    let around = (entry & 0xffff).saturating_sub(count);
    asked.ask(Request::Find { id: 1, at: (0..count).map(|n| around.saturating_add(2 * n)).collect() })?;
    Some(())
}

/// A perf map that grows between two readings.
pub fn perf_map(bytes: &[u8]) {
    let read = || {
        let mut asked = Asked::new()?;
        for part in [&bytes[..bytes.len() / 2], bytes] {
            let size = asked.write(part)?;
            asked.ask(Request::Map { id: 1, size })?;
            let at = [0, 0x1000, 0x1010, 0x2005, 0x3000, 0x40_0000, 0x40_0040, 0x40_0080, u64::MAX];
            asked.ask(Request::Find { id: 1, at: at.to_vec() })?;
        }
        Some(())
    };
    let _ = read();
}

/// What a symbolizer answers that a file has taken over.
pub fn reply(bytes: &[u8]) {
    let _ = postcard::from_bytes::<Reply>(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a function of a seed is inlined into, by the seed's debug information.
    #[test]
    fn the_seeds_are_read_as_deep_as_they_go() {
        for (seed, inlined) in
            [("c2", "twice"), ("c5", "twice"), ("zlib", "twice"), ("cpp4", "app::Store<int>::both(int)")]
        {
            let path = format!("{}/../../fuzz/seeds/dwarf/{seed}", env!("CARGO_MANIFEST_DIR"));
            let bytes = std::fs::read(path).unwrap();
            let mut asked = Asked::new().unwrap();
            let size = asked.write(&bytes).unwrap();
            asked.ask(Request::Open { id: 1, size, lines: true }).unwrap();
            let at = (0..size.min(wire::ADDRESSES as u64 * 8)).step_by(8).collect();
            let Some(Reply::Found(found)) = asked.ask(Request::Find { id: 1, at }) else { panic!("{seed}") };
            let names: Vec<_> = found.iter().flatten().flatten().map(|frame| frame.name.as_str()).collect();
            assert!(names.contains(&inlined), "{seed}: {names:?}");
        }
    }
}
