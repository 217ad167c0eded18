//! Against programs whose functions are known.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::unwind::Made;
use super::*;

mod hostile;

const PROGRAM: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static inline __attribute__((always_inline)) unsigned long inlined(void)
{
	unsigned long at;
	__asm__ volatile("lea 0(%%rip), %0" : "=r"(at)); /* line 10 */
	return at;
}

__attribute__((noinline)) unsigned long outer_one(void)
{
	unsigned long at = inlined(); /* line 16 */
	__asm__ volatile("" : "+r"(at));
	return at;
}

int main(void)
{
	char path[64], *made = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FILE *map;

	printf("%lx %lx %lx\n", (unsigned long)outer_one, outer_one(), (unsigned long)made);
	fflush(stdout);
	if (getchar() == EOF)
		return 0;
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	map = fopen(path, "w");
	fprintf(map, "%lx 20 made(at run time)\n", (unsigned long)made);
	fclose(map);
	puts(path);
	fflush(stdout);
	getchar();
	unlink(path);
	return 0;
}
"#;

/// The program, running; what it said of itself.
struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    outer: u64,
    /// Where it goes on after the inlined instruction.
    inlined: u64,
    made: u64,
}

impl Running {
    fn start(path: &Path) -> Self {
        let mut child =
            Command::new(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let addrs: Vec<u64> =
            line.split_whitespace().map(|hex| u64::from_str_radix(hex, 16).unwrap()).collect();
        let [outer, inlined, made] = addrs[..] else { panic!("it said {line}") };
        Self { child, out, outer, inlined, made }
    }

    fn image(&self) -> Image {
        Process { pid: self.child.id(), start_ns: 0 }.into()
    }

    /// Lets it go on, and gives what it says.
    fn go_on(&mut self) -> String {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn compile(dir: &Path, name: &str, options: &[&str]) -> std::path::PathBuf {
    let path = dir.join(name);
    // Whoever links Rust has a C compiler.
    let mut cc = Command::new("cc")
        .args(["-O2", "-x", "c", "-", "-o"])
        .arg(&path)
        .args(options)
        .stdin(Stdio::piped())
        .spawn()
        .expect("cc runs");
    cc.stdin.take().unwrap().write_all(PROGRAM.as_bytes()).unwrap();
    assert!(cc.wait().unwrap().success());
    path
}

fn one(symbols: &mut Symbols, image: Image, addr: u64) -> Rc<Name> {
    symbols.resolve(image, &[addr]).pop().expect("a name for each")
}

fn own() -> Image {
    Process { pid: std::process::id(), start_ns: 0 }.into()
}

#[inline(never)]
fn a_known_function() -> u32 {
    line!()
}

#[test]
fn our_own_functions() {
    let body = a_known_function();
    let name = one(&mut Symbols::new(), own(), a_known_function as fn() -> u32 as usize as u64);
    assert_eq!(name.to_string(), "trapline_symbols::tests::a_known_function");
    let at = name.function().unwrap().line.clone().expect("there is debug information");
    assert!(at.file.ends_with("symbols/src/tests.rs"), "{at:?}");
    // The head, the body or the end, as the compiler likes it.
    assert!(at.line.abs_diff(body) <= 1, "{at:?}");
    assert_eq!(name.module.as_deref(), std::env::current_exe().unwrap().to_str());
}

#[test]
fn functions_inlined_with_their_lines() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(&compile(dir.path(), "debug", &["-g"]));
    let mut symbols = Symbols::new();
    let name = one(&mut symbols, running.image(), running.inlined - 1);
    let seen: Vec<_> =
        name.functions.iter().flatten().map(|f| (f.name.as_str(), f.line.as_ref().map(|l| l.line))).collect();
    assert_eq!(seen, [("outer_one", Some(16)), ("inlined", Some(10))], "{name:?}");
    running.end();
}

#[test]
fn without_debug_information_and_without_symbols() {
    let dir = tempfile::tempdir().unwrap();
    let mut plain = Running::start(&compile(dir.path(), "plain", &[]));
    let mut stripped = Running::start(&compile(dir.path(), "stripped", &["-s"]));
    let mut symbols = Symbols::new();
    let name = one(&mut symbols, plain.image(), plain.inlined);
    assert_eq!((name.to_string().as_str(), &name.function().unwrap().line), ("outer_one", &None));

    let name = one(&mut symbols, stripped.image(), stripped.outer);
    assert_eq!(name.functions, Err(Why::Stripped));
    assert_eq!(name.to_string(), format!("stripped+{:#x}", name.offset.unwrap()));
    assert_eq!(name.module.as_deref(), dir.path().join("stripped").to_str());
    // The same code is at the same place, whether it has a name or not.
    assert_eq!(name.offset, one(&mut symbols, plain.image(), plain.outer).offset);
    plain.end();
    stripped.end();
}

#[test]
fn a_process_that_ended_and_a_file_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "short", &[]);
    let mut known = Running::start(&path);
    let mut unknown = Running::start(&path);
    let mut symbols = Symbols::new();
    symbols.know(known.image());
    known.end();
    unknown.end();
    fs::remove_file(&path).unwrap();
    assert_eq!(one(&mut symbols, known.image(), known.outer).to_string(), "outer_one");
    let name = one(&mut symbols, unknown.image(), unknown.outer);
    assert_eq!((&name.functions, name.to_string()), (&Err(Why::Gone), format!("{:#x}", unknown.outer)));
}

#[test]
fn a_file_that_was_replaced_is_not_the_one_that_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = compile(dir.path(), "old", &["-D", "outer_one=old_one"]);
    let mut running = Running::start(&path);
    fs::rename(compile(dir.path(), "new", &[]), &path).unwrap();
    let name = one(&mut Symbols::new(), running.image(), running.outer);
    running.end();
    // Without privilege the file itself cannot be reached any more: then it has no name, rather than a wrong one.
    match &name.functions {
        Ok(functions) => assert_eq!(functions[0].name, "old_one"),
        Err(why) => assert!(matches!(why, Why::Unreadable(_)), "{why}"),
    }
}

#[test]
fn a_number_that_is_another_process_now() {
    let long_ago = Process { pid: std::process::id(), start_ns: 1 };
    let name = one(&mut Symbols::new(), long_ago.into(), a_known_function as fn() -> u32 as usize as u64);
    assert_eq!(name.functions, Err(Why::Gone));
}

#[test]
fn code_made_at_run_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = Running::start(&compile(dir.path(), "jit", &[]));
    let (image, made) = (running.image(), running.made);
    let mut symbols = Symbols::new();
    assert_eq!(one(&mut symbols, image, made).functions, Err(Why::NoPerfMap));
    let path = running.go_on();
    assert_eq!(one(&mut symbols, image, made + 0x1f).to_string(), "made(at run time)");
    assert_eq!(one(&mut symbols, image, made + 0x20).functions, Err(Why::NoPerfMap));
    assert_eq!(one(&mut symbols, image, 0x1000).functions, Err(Why::Unmapped));
    running.end();
    fs::remove_file(path).unwrap();
    assert_eq!(one(&mut symbols, image, made).to_string(), "made(at run time)");
}

#[test]
#[allow(unsafe_code)]
fn the_code_that_the_kernel_lends() {
    // SAFETY: both strings end in NUL; the object is always loaded, and the handle is not used after this.
    let addr = unsafe {
        let vdso = libc::dlopen(c"linux-vdso.so.1".as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_NOW);
        libc::dlsym(vdso, c"__vdso_clock_gettime".as_ptr()) as u64
    };
    let name = one(&mut Symbols::new(), own(), addr);
    assert!(name.to_string().ends_with("clock_gettime"), "{name:?}");
    assert_eq!(name.module.as_deref(), Some("[vdso]"));
}

#[test]
fn the_kernels_functions() {
    let list = fs::read_to_string("/proc/kallsyms").unwrap();
    let wanted = " T schedule\n";
    let line = list.split_inclusive('\n').find(|line| line.ends_with(wanted)).expect("every kernel has it");
    let addr = u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap();
    let mut symbols = Symbols::new();
    if addr == 0 {
        assert_eq!(one(&mut symbols, own(), KERNEL + 1).functions, Err(Why::Hidden));
    } else {
        assert_eq!(one(&mut symbols, own(), addr + 1).to_string(), "schedule");
    }
}

/// What is to be asked soon is read before: then only the question is left.
#[test]
fn the_executable_of_a_followed_process_is_read_ahead() {
    let own = std::process::id();
    for (whose, is_followed) in [(Scope::These([own].into()), true), (Scope::These([].into()), false)] {
        let mut symbols = Symbols::new();
        Lives::told(whose).adopt(&mut symbols);
        assert_eq!(symbols.reads_ahead(), is_followed);
        symbols.read_ahead();
        assert!(!symbols.reads_ahead(), "there is time for all");
        let asked = symbols.asked();
        assert_eq!(asked > 0, is_followed);
        let here = the_executable_of_a_followed_process_is_read_ahead as fn() as usize as u64;
        let names = symbols.resolve(Image::from(Process { pid: own, start_ns: 0 }), &[here]);
        assert!(names[0].functions.is_ok(), "{names:?}");
        assert_eq!(symbols.asked() == asked + 1, is_followed);
    }
}

/// As in the layers of containers: copies are other files, with one table.
#[test]
fn copies_of_a_program_share_an_unwind_table() {
    let directory = tempfile::tempdir().unwrap();
    let source = directory.path().join("program.c");
    fs::write(&source, "int main(void) { return 0; }").unwrap();
    let path = |name: &str| directory.path().join(name);
    let made = |name: &str, id: &str| {
        let id = format!("-Wl,--build-id={id}");
        let gcc = Command::new("gcc")
            .args(["-nostdlib", "-static", "-Wl,-emain", &id, "-o"])
            .arg(path(name))
            .arg(&source)
            .status();
        assert!(gcc.unwrap().success());
    };
    made("first", "sha1");
    fs::copy(path("first"), path("copy")).unwrap();
    // The same build id, and not the same in it; another build id; one that is too short; none.
    let mut longer = fs::read(path("first")).unwrap();
    longer.push(0);
    fs::write(path("longer"), longer).unwrap();
    made("other", "0x00112233445566778899aabbccddeeff");
    made("short", "0x0011");
    fs::copy(path("short"), path("short-copy")).unwrap();
    made("none", "none");
    fs::copy(path("none"), path("none-copy")).unwrap();
    let mut symbols = Symbols::new();
    symbols.want_tables();
    let names = ["first", "copy", "longer", "other", "short", "short-copy", "none", "none-copy"];
    names.iter().for_each(|name| symbols.want_tables_of(&path(name)));
    let mut tables = vec![];
    while symbols.has_tables_to_make() {
        symbols.wait_until(None);
        tables.extend(symbols.next_table());
    }
    assert_eq!(tables.len(), names.len() + 1, "and that of the vDSO");
    let of = |name: &&str| {
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(path(name)).unwrap());
        tables.iter().find(|table| table.file.1 == inode).unwrap()
    };
    let tables: Vec<_> = names.iter().map(of).collect();
    for (name, table) in names.iter().zip(&tables) {
        assert_eq!(matches!(table.rows, Made::Before), *name == "copy", "{name}: {table:?}");
    }
    assert_eq!(tables[1].program, tables[0].program);
    assert!(matches!(&tables[0].rows, Made::Rows(rows) if !rows.is_empty()));
    assert_ne!(tables[0].file, tables[1].file);
}
