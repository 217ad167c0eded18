//! A file on a device that takes a known time for each page: a FUSE server in this process.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::fixture::{Memory, PAGE, map_of};

/// include/uapi/linux/fuse.h
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const RELEASE: u32 = 18;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const ASYNC_READ: u32 = 1;

fn words(of: &[u32]) -> Vec<u8> {
    of.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// What is said to a request, or an errno; nothing if nobody waits for it.
fn answer(opcode: u32, pages: usize, after: Duration) -> Option<Result<Vec<u8>, i32>> {
    Some(Ok(match opcode {
        FORGET | INTERRUPT => return None,
        // The version, a page to read ahead, and the rest as it is without us.
        INIT => words(&[7, 31, PAGE as u32, ASYNC_READ, 0, PAGE as u32, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
        GETATTR => {
            let mut attributes = words(&[3600, 0, 0, 0, 1, 0, (pages * PAGE) as u32, 0]);
            // Blocks, three times with their nanoseconds; then the mode, a link, and whose it is.
            attributes.extend(words(&[0; 8 + 3]));
            attributes.extend(words(&[libc::S_IFREG | 0o444, 1, 0, 0, 0, PAGE as u32, 0]));
            attributes
        }
        OPEN => words(&[0; 4]),
        READ => {
            std::thread::sleep(after);
            vec![7; PAGE]
        }
        RELEASE => vec![],
        _ => return Some(Err(libc::ENOSYS)),
    }))
}

/// Answers until the file is mapped no more.
fn serve(mut device: &File, pages: usize, after: Duration) {
    let mut request = vec![0u8; PAGE * 4];
    loop {
        let Ok(n) = device.read(&mut request) else { return };
        let word = |at: usize| u32::from_ne_bytes(request[at..at + 4].try_into().unwrap());
        let Some(answer) = answer(word(4), pages, after) else { continue };
        assert!(n >= 40);
        let (error, body) = answer.map_or_else(|errno| (-errno, vec![]), |body| (0, body));
        let mut reply = words(&[16 + body.len() as u32, error as u32, word(8), word(12)]);
        reply.extend(body);
        // Who asked may have been killed.
        let _ = device.write_all(&reply);
    }
}

/// Such a file, until this is dropped; what is mapped then stays.
pub struct SlowFile(NamedTempFile);

impl SlowFile {
    /// Of so many pages, each of which takes this time. It is read when it is touched, and no other with it.
    pub fn mount(pages: usize, after: Duration) -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let place = NamedTempFile::new().unwrap();
        let options =
            format!("fd={},rootmode=100444,user_id=0,group_id=0,max_read={PAGE}", device.as_raw_fd());
        let (target, options) = (name_of(&place), CString::new(options).unwrap());
        // SAFETY: strings that live that long.
        let mounted = unsafe {
            let flags = libc::MS_NOSUID | libc::MS_NODEV;
            libc::mount(c"fuse".as_ptr(), target.as_ptr(), c"fuse".as_ptr(), flags, options.as_ptr().cast())
        };
        assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
        std::thread::spawn(move || serve(&device, pages, after));
        Self(place)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SlowFile {
    fn drop(&mut self) {
        // SAFETY: a string that lives that long.
        unsafe { libc::umount2(name_of(&self.0).as_ptr(), libc::MNT_DETACH) };
    }
}

fn name_of(place: &NamedTempFile) -> CString {
    CString::new(place.path().as_os_str().as_bytes()).unwrap()
}

/// All of a file.
pub fn map_whole(path: &Path) -> Memory {
    let file = File::open(path).unwrap();
    // The kernel asks for the size then.
    let len = file.metadata().unwrap().len() as usize;
    map_of(len, libc::MAP_SHARED, file.as_raw_fd(), libc::PROT_READ)
}

/// Pages of such a file.
pub fn map_slow_file(pages: usize, after: Duration) -> Memory {
    let memory = map_whole(SlowFile::mount(pages, after).path());
    assert_eq!(memory.len(), pages * PAGE);
    memory
}
