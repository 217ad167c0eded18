//! Compiles the kernel half: each `bpf/TOOL.bpf.c` into an object that the crate embeds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, thread};

use anyhow::{Context, Result, anyhow};
use libbpf_cargo::SkeletonBuilder;

/// The kernel halves: one per tool, and `namespaces` for all; `src/` has a module of the same name.
const TOOLS: &[&str] = &["access", "faults", "kvm", "namespaces", "sgx"];

/// What the kernel half of faults can do beside counting and timing: each is `WITH_…` in `bpf/`.
const PARTS: &[&str] = &["EVENTS", "FILES", "CAUSES", "STACKS", "NAMES"];

/// More kernel halves of faults, each for some of that, those first that start sooner. `faults/recipe.rs` chooses.
const HALVES: &[&[&str]] = &[
    &[],
    &["EVENTS", "NAMES"],
    &["STACKS"],
    &["CAUSES"],
    &["FILES"],
    &["EVENTS", "FILES"],
    &["EVENTS", "FILES", "CAUSES", "NAMES"],
];

fn main() -> Result<()> {
    let bpf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bpf").canonicalize()?;
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let arch = match env::var("CARGO_CFG_TARGET_ARCH")?.as_str() {
        "x86_64" => "x86",
        other => anyhow::bail!("the kernel half is not written for {other} yet"),
    };
    let clang = clang()?;
    let compile = |name: &str, source: &str, parts: &[&str]| {
        let without = PARTS.iter().filter(|part| !parts.contains(part));
        SkeletonBuilder::new()
            .source(bpf.join(format!("{source}.bpf.c")))
            .obj(out.join(format!("{name}.bpf.o")))
            .clang(&clang)
            .clang_args(without.map(|part| format!("-DWITH_{part}=0")).chain([
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
    let tools = TOOLS.iter().map(|&tool| (tool.to_owned(), tool, PARTS));
    let halves = HALVES.iter().map(|&parts| (half(parts), "faults", parts));
    thread::scope(|scope| {
        let compile = &compile;
        let begin =
            |(name, source, parts): (String, _, _)| scope.spawn(move || compile(&name, source, parts));
        let compiling: Vec<_> = tools.chain(halves).map(begin).collect();
        compiling.into_iter().try_for_each(|it| it.join().map_err(|_| anyhow!("a compilation panicked"))?)
    })?;
    fs::write(out.join("halves.rs"), list()?)?;
    println!("cargo:rerun-if-changed={}", bpf.display());
    println!("cargo:rerun-if-env-changed=CLANG");
    Ok(())
}

/// What the half with these parts is called.
fn half(parts: &[&str]) -> String {
    [&["faults_with"], parts].concat().join("_").to_lowercase()
}

/// What `faults/recipe.rs` has to know of that.
fn list() -> Result<String> {
    let bit = |part: &&str| {
        let at = PARTS.iter().position(|known| known == part);
        at.map(|at| 1u32 << at).with_context(|| format!("HALVES has {part}, which is not in PARTS"))
    };
    let constant = |part| Ok(format!("    pub(crate) const {part}: u32 = {};\n", bit(part)?));
    let line = |parts: &&[&str]| {
        let bits: u32 = parts.iter().map(bit).sum::<Result<_>>()?;
        Ok(format!("    ({bits}, include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{}.bpf.o\"))),\n", half(parts)))
    };
    Ok(format!(
        "/// What a kernel half can do beside counting and timing, in bits.\n\
         pub(crate) mod can {{\n{}}}\n\n\
         /// Kernel halves for a part of that, those first that start sooner.\n\
         const HALVES: &[(u32, &[u8])] = &[\n{}];\n",
        PARTS.iter().map(constant).collect::<Result<String>>()?,
        HALVES.iter().map(line).collect::<Result<String>>()?
    ))
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
