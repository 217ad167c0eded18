//! Compiles the kernel half: an object is a file, `bpf/NAME.bpf.c`, which the crate embeds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::{env, fs, thread};

use anyhow::{Context, Result, anyhow};
use libbpf_cargo::SkeletonBuilder;

fn main() -> Result<()> {
    // Of this run: what was compiled elsewhere may be run here.
    let here = env::var_os("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR is not set")?;
    let bpf = Path::new(&here).join("../../bpf").canonicalize().context("there is no folder bpf")?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let arch = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "x86",
        other => anyhow::bail!("the kernel half is not written for {other} yet"),
    };
    let clang = clang()?;
    let compile = |name: &str| {
        SkeletonBuilder::new()
            .source(bpf.join(format!("{name}.bpf.c")))
            .obj(out.join(format!("{name}.bpf.o")))
            .clang(&clang)
            .clang_args([
                format!("-D__TARGET_ARCH_{arch}"),
                format!("-I{}", bpf.display()),
                format!("-ffile-prefix-map={}=bpf", bpf.display()),
                "-mcpu=v3".into(),
                "-Wall".into(),
                "-Wextra".into(),
                "-Wno-unused-parameter".into(),
                "-Werror".into(),
            ])
            .build()
            .with_context(|| format!("cannot compile bpf/{name}.bpf.c with {clang}"))
    };
    let objects = Mutex::new(objects(&bpf)?);
    let next = || objects.lock().ok().and_then(|mut objects| objects.pop());
    thread::scope(|scope| {
        let work = || std::iter::from_fn(next).try_for_each(|name| compile(&name));
        let workers: Vec<_> =
            (0..thread::available_parallelism()?.get()).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|it| it.join().map_err(|_| anyhow!("a compilation panicked"))?)
    })?;
    println!("cargo:rerun-if-changed={}", bpf.display());
    println!("cargo:rerun-if-env-changed=CLANG");
    Ok(())
}

/// The names of the objects.
fn objects(bpf: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for file in fs::read_dir(bpf)? {
        let file = file?.file_name();
        names.extend(file.to_string_lossy().strip_suffix(".bpf.c").map(str::to_owned));
    }
    Ok(names)
}

/// `$CLANG`, or the newest clang of those that Debian packages.
fn clang() -> Result<String> {
    if let Ok(clang) = env::var("CLANG") {
        return Ok(clang);
    }
    ["clang-19", "clang"]
        .iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success()))
        .map(ToString::to_string)
        .context("no clang found: install clang (Debian: apt-get install clang-19), or name one in CLANG")
}
