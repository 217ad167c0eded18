//! The symbolizer's loop: one request, one answer.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::confine::ADDRESSES;
use super::function;
use super::perf_map::PerfMap;
use super::program::{self, Program};
use super::wire::{self, Frame, Id, LARGEST, Miss, Point, Reply, Request};

/// Files open at a time.
const FILES: usize = 128;
/// Of all of them, bytes of addresses.
const MAPPED: u64 = ADDRESSES / 2;
/// Memory beyond which files are closed, bytes: half of what may be had, so that no file has less than the other half.
const MEMORY: u64 = super::confine::MEMORY / 2;
/// Of what an answer may hold of functions, bytes: the rest of a packet is for what stands beside them.
const ANSWER: usize = LARGEST * 3 / 4;
/// Of a row of an unwind table, at most: two numbers of 32 bits, and what is before all of them.
const ROW: usize = 11;
/// Of one address.
const ONE: usize = ANSWER / 2;

enum Open {
    Program(Box<Program>),
    Map(Box<PerfMap>),
}

impl Open {
    fn size(&self) -> u64 {
        match self {
            Self::Program(program) => program.size,
            Self::Map(map) => map.size(),
        }
    }
}

/// All that is open, with the time at which it was last used.
struct Files {
    open: HashMap<Id, (u64, Open)>,
    clock: u64,
    /// /proc/self/statm, opened before the filter was set.
    memory: Option<File>,
}

/// Answers until trapline closes the socket.
///
/// # Errors
/// When the socket cannot be read or written.
pub(super) fn serve(socket: BorrowedFd<'_>, memory: Option<File>) -> io::Result<()> {
    let mut files = Files { open: HashMap::new(), clock: 0, memory };
    let mut buffer = Vec::new();
    while let Some((request, file)) = wire::receive::<Request>(socket, &mut buffer)? {
        let id = request.id();
        // What the parsers have not thought of: the file is at fault, and nothing of it is used any more.
        let reply = catch_unwind(AssertUnwindSafe(|| files.answer(request, file))).unwrap_or_else(|_| {
            files.open.remove(&id);
            Reply::Bad("it is malformed".into())
        });
        wire::send(socket, &reply, None)?;
    }
    Ok(())
}

impl Request {
    fn id(&self) -> Id {
        match self {
            Self::Open { id, .. }
            | Self::Debug { id, .. }
            | Self::Map { id, .. }
            | Self::Find { id, .. }
            | Self::Function { id, .. }
            | Self::Points { id, .. }
            | Self::Unwind { id, .. }
            | Self::Needs { id } => *id,
            #[cfg(test)]
            Self::Misbehave(_) => 0,
        }
    }
}

impl Files {
    fn answer(&mut self, request: Request, file: Option<OwnedFd>) -> Reply {
        let id = request.id();
        let reply = match (request, file) {
            (Request::Open { id, size, lines }, Some(file)) => self.program(id, &file, size, lines),
            (Request::Debug { id, size }, Some(file)) => self.debug(id, &file, size),
            (Request::Map { id, size }, Some(file)) => self.map(id, file, size),
            (Request::Find { id, at }, _) => self.find(id, &at),
            (Request::Function { id, wanted, shown }, _) => self.function(id, &wanted, &shown),
            (Request::Points { id, from }, _) => self.points(id, from as usize),
            (Request::Needs { id }, _) => self.needs(id),
            (Request::Unwind { id, from }, _) => self.unwind(id, from as usize),
            #[cfg(test)]
            (Request::Misbehave(misdeed), _) => Ok(super::misbehave::misbehave(misdeed)),
            (Request::Open { .. } | Request::Debug { .. } | Request::Map { .. }, None) => {
                Err("no descriptor came with it".into())
            }
        };
        self.shrink(id);
        reply.unwrap_or_else(Reply::Bad)
    }

    fn keep(&mut self, id: Id, open: Open) {
        self.open.insert(id, (self.clock, open));
    }

    fn program(&mut self, id: Id, file: &OwnedFd, size: u64, lines: bool) -> Result<Reply, String> {
        self.open.remove(&id);
        let program = Program::open(program::map(file, size)?, lines)?;
        let (build_id, debug_link) = program.elsewhere();
        self.keep(id, Open::Program(Box::new(program)));
        Ok(Reply::Opened { build_id: limited(build_id), debug_link: limited(debug_link) })
    }

    fn debug(&mut self, id: Id, file: &OwnedFd, size: u64) -> Result<Reply, String> {
        let Some((_, Open::Program(program))) = self.open.get_mut(&id) else { return Ok(Reply::NotOpen) };
        program.add(program::map(file, size)?)?;
        Ok(Reply::Done)
    }

    fn map(&mut self, id: Id, file: OwnedFd, size: u64) -> Result<Reply, String> {
        let mut map = match self.open.remove(&id) {
            Some((_, Open::Map(map))) => map,
            _ => Box::default(),
        };
        let read = map.read(file, size);
        // What was read of it holds.
        self.keep(id, Open::Map(map));
        read.map(|()| Reply::Done)
    }

    fn find(&mut self, id: Id, at: &[u64]) -> Result<Reply, String> {
        self.clock += 1;
        let Some((used, open)) = self.open.get_mut(&id) else { return Ok(Reply::NotOpen) };
        *used = self.clock;
        let mut found = Vec::new();
        let mut left = ANSWER;
        for &at in at {
            let functions = match open {
                Open::Program(program) => program.find(at)?,
                Open::Map(map) => map.find(at),
            };
            let (functions, size) = fitting(functions);
            let Some(rest) = left.checked_sub(size) else { break };
            left = rest;
            found.push(functions);
        }
        Ok(Reply::Found(found))
    }

    fn function(&mut self, id: Id, wanted: &str, shown: &str) -> Result<Reply, String> {
        let Some((_, Open::Program(program))) = self.open.get(&id) else { return Ok(Reply::NotOpen) };
        let binary = program.binary()?;
        Ok(Reply::Function(function::find(&binary, wanted, shown).and_then(|found| {
            let offset = binary.code_at(found.address);
            let offset = offset.ok_or_else(|| format!("{shown} has no code at {:#x}", found.address))?;
            Ok((offset, found.unwinds))
        })))
    }

    fn points(&mut self, id: Id, from: usize) -> Result<Reply, String> {
        let Some((_, Open::Program(program))) = self.open.get(&id) else { return Ok(Reply::NotOpen) };
        let mut left = ANSWER;
        let fits = |point: &Point| {
            let size = point.provider.len() + point.name.len() + 32;
            left.checked_sub(size).map(|rest| left = rest).is_some()
        };
        Ok(Reply::Points(program.binary()?.points.into_iter().skip(from).take_while(fits).collect()))
    }

    fn needs(&mut self, id: Id) -> Result<Reply, String> {
        let Some((_, Open::Program(program))) = self.open.get(&id) else { return Ok(Reply::NotOpen) };
        Ok(Reply::Names(program.needs()))
    }

    fn unwind(&mut self, id: Id, from: usize) -> Result<Reply, String> {
        self.clock += 1;
        let Some((used, Open::Program(program))) = self.open.get_mut(&id) else { return Ok(Reply::NotOpen) };
        *used = self.clock;
        let (rows, all) = program.unwind(from, LARGEST / ROW)?;
        Ok(Reply::Rows(rows, all as u32))
    }

    /// Closes what was not used for longest, but not what was asked for last, until the rest is little enough.
    fn shrink(&mut self, last: Id) {
        loop {
            let mapped: u64 = self.open.values().map(|(_, open)| open.size()).sum();
            if self.open.len() <= FILES && mapped <= MAPPED && self.memory() <= MEMORY {
                return;
            }
            let oldest = self.open.iter().filter(|(id, _)| **id != last).min_by_key(|(_, (used, _))| *used);
            let Some(id) = oldest.map(|(id, _)| *id) else { return };
            self.open.remove(&id);
        }
    }

    /// Data and stack, as RLIMIT_DATA counts them, bytes.
    fn memory(&self) -> u64 {
        let mut text = [0; 128];
        let read = self.memory.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let text = text.get(..read).unwrap_or_default();
        let pages = str::from_utf8(text).ok().and_then(|text| text.split_whitespace().nth(5)?.parse().ok());
        // Of the least size, so never more than it is.
        pages.unwrap_or(0_u64) * 4096
    }
}

/// Build ids are 20 bytes, names of files at most 255.
fn limited(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(255);
    bytes
}

/// What fits into an answer, and its size there: of too many functions the innermost are left out.
fn fitting(functions: Result<Vec<Frame>, Miss>) -> (Result<Vec<Frame>, Miss>, usize) {
    /// Lengths, numbers and marks.
    const BESIDE: usize = 32;
    let mut size = BESIDE;
    let functions = functions.map(|mut frames| {
        let mut fits = |frame: &Frame| {
            size += frame.name.len() + frame.file.as_ref().map_or(0, String::len) + BESIDE;
            size <= ONE
        };
        let fitting = frames.iter().take_while(|frame| fits(frame)).count();
        frames.truncate(fitting.max(1));
        frames
    });
    (functions, size.min(ONE + BESIDE))
}
