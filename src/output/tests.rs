use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};

use tempfile::{TempDir, tempdir};

use super::*;

fn old(folder: &TempDir, name: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, "old").unwrap();
    path
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn entries(folder: &TempDir) -> usize {
    fs::read_dir(folder.path()).unwrap().count()
}

#[test]
fn what_was_there_stays_until_something_is_written() {
    let folder = tempdir().unwrap();
    let (there, new) = (old(&folder, "there"), folder.path().join("new"));
    for when in [When::Meanwhile, When::AtTheEnd] {
        drop((Output::open(&there, when).unwrap(), Output::open(&new, when).unwrap()));
        assert_eq!(fs::read_to_string(&there).unwrap(), "old");
        assert_eq!(entries(&folder), 1, "nothing was written, and nothing is left");
    }
    let mut output = Output::open(&there, When::Meanwhile).unwrap();
    output.write_all(b"1").unwrap();
    assert_eq!(fs::read_to_string(&there).unwrap(), "1", "it is seen while it grows");
    output.write_all(b"2").unwrap();
    drop(output);
    assert_eq!(fs::read_to_string(&there).unwrap(), "12");
}

#[test]
fn what_is_written_at_the_end_replaces_it_whole() {
    let folder = tempdir().unwrap();
    let there = old(&folder, "there");
    fs::set_permissions(&there, fs::Permissions::from_mode(0o640)).unwrap();
    let mut output = Output::open(&there, When::AtTheEnd).unwrap();
    output.write_all(b"half").unwrap();
    assert_eq!(fs::read_to_string(&there).unwrap(), "old");
    drop(output);
    assert_eq!((fs::read_to_string(&there).unwrap().as_str(), entries(&folder)), ("old", 1));
    let mut output = Output::open(&there, When::AtTheEnd).unwrap();
    output.write_all(b"whole").unwrap();
    output.finish().unwrap();
    drop(output);
    assert_eq!((fs::read_to_string(&there).unwrap().as_str(), entries(&folder)), ("whole", 1));
    assert_eq!(mode(&there), 0o640, "who could read it can");
    // One without contents is there, too.
    let empty = folder.path().join("empty");
    Output::open(&empty, When::AtTheEnd).unwrap().finish().unwrap();
    assert_eq!(fs::read_to_string(&empty).unwrap(), "");
}

#[test]
fn new_files_are_private() {
    let folder = tempdir().unwrap();
    for (name, when) in [("a", When::Meanwhile), ("b", When::AtTheEnd)] {
        let path = folder.path().join(name);
        let mut output = Output::open(&path, when).unwrap();
        output.write_all(b"x").unwrap();
        output.finish().unwrap();
        assert_eq!(mode(&path), 0o600);
    }
}

#[test]
fn pipes_devices_and_links_work() {
    let folder = tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read_to_string(pipe).unwrap()
    });
    let (mut read, write) = io::pipe().unwrap();
    let substitution = PathBuf::from(format!("/dev/fd/{}", write.as_raw_fd()));
    for path in [&pipe, &substitution, &"/dev/null".into()] {
        for when in [When::Meanwhile, When::AtTheEnd] {
            let mut output = Output::open(path, when).unwrap();
            output.write_all(b"x").unwrap();
            output.finish().unwrap();
            if path == &pipe {
                break;
            }
        }
    }
    assert_eq!(reader.join().unwrap(), "x");
    drop(write);
    let mut text = String::new();
    read.read_to_string(&mut text).unwrap();
    assert_eq!(text, "xx");

    // One's own links lead on, by relative and absolute paths, also where everybody makes names.
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("../target", shared.join("relative")).unwrap();
    symlink(folder.path().join("shared"), folder.path().join("absolute")).unwrap();
    let mut output = Output::open(&folder.path().join("absolute/relative"), When::AtTheEnd).unwrap();
    output.write_all(b"here").unwrap();
    output.finish().unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("target")).unwrap(), "here");
    symlink("loop", folder.path().join("loop")).unwrap();
    let error = Output::open(&folder.path().join("loop"), When::Meanwhile).unwrap_err();
    assert!(format!("{error:#}").contains("symbolic links"), "{error:#}");
}

#[test]
fn a_second_name_where_everybody_makes_names_is_refused() {
    let folder = tempdir().unwrap();
    let there = old(&folder, "there");
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    fs::hard_link(&there, shared.join("second")).unwrap();
    let error = Output::open(&shared.join("second"), When::Meanwhile).unwrap_err();
    assert!(format!("{error:#}").contains("it has 2 hard links"), "{error:#}");
    // In a directory of one's own, that is one's own affair.
    assert!(Output::open(&there, When::Meanwhile).is_ok());
}

#[test]
fn what_cannot_be_written_is_refused_at_once() {
    for when in [When::Meanwhile, When::AtTheEnd] {
        for (path, why) in [
            ("/nosuchdir/x", "No such file"),
            ("/etc", "Is a directory"),
            ("/etc/", "Is a directory"),
            ("/", "Is a directory"),
            ("/etc/passwd/x", "Not a directory"),
            ("/proc/x", ""),
        ] {
            let error = Output::open(Path::new(path), when).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{path}: {error:#}");
        }
    }
}
