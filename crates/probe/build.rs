//! Compiles the kernel half: each `bpf/TOOL.bpf.c` into an object that the crate embeds.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, anyhow};
use libbpf_cargo::SkeletonBuilder;

/// The kernel halves: one per tool, and of faults more that are each for a part of what it does (`faults/recipe.rs`
/// chooses). The name, the source in `bpf/`, and what it is compiled without.
const OBJECTS: &[(&str, &str, &[&str])] = &[
    ("access", "access", &[]),
    ("faults", "faults", &[]),
    ("faults_bare", "faults", &["EVENTS", "FILES", "CAUSES", "STACKS", "NAMES"]),
    ("faults_events", "faults", &["FILES", "CAUSES", "STACKS"]),
    ("faults_files", "faults", &["EVENTS", "CAUSES", "STACKS", "NAMES"]),
    ("faults_causes", "faults", &["EVENTS", "FILES", "STACKS", "NAMES"]),
    ("faults_stacks", "faults", &["EVENTS", "FILES", "CAUSES", "NAMES"]),
    ("faults_accesses", "faults", &["CAUSES", "STACKS", "NAMES"]),
    ("faults_lines", "faults", &["STACKS"]),
    ("kvm", "kvm", &[]),
    ("sgx", "sgx", &[]),
];

fn main() -> Result<()> {
    let bpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bpf").canonicalize()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let arch = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "x86",
        other => anyhow::bail!("the kernel half is not written for {other} yet"),
    };
    let clang = clang()?;
    let compile = |(name, source, without): &(&str, &str, &[&str])| {
        SkeletonBuilder::new()
            .source(bpf.join(format!("{source}.bpf.c")))
            .obj(out.join(format!("{name}.bpf.o")))
            .clang(&clang)
            .clang_args(without.iter().map(|what| format!("-DWITH_{what}=0")).chain([
                format!("-D__TARGET_ARCH_{arch}"),
                format!("-I{}", bpf.display()),
                format!("-ffile-prefix-map={}=bpf", bpf.display()),
                "-mcpu=v3".into(),
                "-Wall".into(),
                "-Wextra".into(),
                "-Wno-unused-parameter".into(),
                "-Werror".into(),
            ]))
            .build()
            .with_context(|| format!("cannot compile bpf/{source}.bpf.c into {name} with {clang}"))
    };
    thread::scope(|scope| {
        let compiling: Vec<_> = OBJECTS.iter().map(|object| scope.spawn(|| compile(object))).collect();
        compiling.into_iter().try_for_each(|it| it.join().map_err(|_| anyhow!("a compilation panicked"))?)
    })?;
    println!("cargo:rerun-if-changed={}", bpf.display());
    println!("cargo:rerun-if-env-changed=CLANG");
    Ok(())
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
