//! `cargo xtask kernels`: what attaches on each kernel, and what each program costs its verifier, as a page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::kernels;
use crate::stage;
use crate::system;

const PAGE: &str = "docs/kernels.md";

/// What one kernel says.
#[derive(Debug)]
struct Kernel {
    release: String,
    lockdown: String,
    variants: Vec<Value>,
    programs: Vec<Value>,
}

/// Asks the running kernel and those of the virtual machines, and writes the page.
pub fn write() -> Result<ExitCode> {
    let root = system::repository();
    let built = Command::new("cargo").args(["build", "--package", "trapline"]).current_dir(&root).status()?;
    ensure!(built.success(), "trapline does not build");
    let binary = system::target().join("debug/trapline");
    let ask = |words: &[&str]| -> Result<String> {
        let output = Command::new(&binary).args(words).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let here = Kernel::parse(
        &ask(&["doctor", "--format", "jsonl"])?,
        &ask(&["doctor", "--programs", "--format", "jsonl"])?,
    )?;
    let inside = format!(
        "modprobe kvm_amd; {0} doctor --format jsonl > $TRAPLINE_RESULTS/doctor.jsonl; \
         {0} doctor --programs --format jsonl > $TRAPLINE_RESULTS/programs.jsonl",
        system::quote(&binary.display().to_string())
    );
    let names = kernels::distinct().into_iter().map(|kernel| kernel.name);
    ensure!(
        stage::run(&stage::Args::command(inside, names))? == ExitCode::SUCCESS,
        "a kernel did not answer"
    );
    let mut all = vec![here];
    for kernel in kernels::distinct() {
        let results = system::directory("results")?.join(kernel.name);
        let read = |name: &str| {
            fs::read_to_string(results.join(name)).with_context(|| format!("no {name} from {}", kernel.name))
        };
        all.push(Kernel::parse(&read("doctor.jsonl")?, &read("programs.jsonl")?)?);
    }
    let path = Path::new(&root).join(PAGE);
    fs::write(&path, page(&all)).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{} is written", path.display());
    Ok(ExitCode::SUCCESS)
}

impl Kernel {
    fn parse(doctor: &str, programs: &str) -> Result<Self> {
        let lines = |text: &str| {
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>()
        };
        let rows = |lines: &[Value]| lines.iter().filter(|line| line["type"] == "row").cloned().collect();
        let (doctor, programs) = (lines(doctor), lines(programs));
        let header = doctor.first().context("the doctor said nothing")?;
        Ok(Self {
            release: text(&header["kernel"]),
            lockdown: header["lockdown"].as_str().unwrap_or("not shown").to_owned(),
            variants: rows(&doctor),
            programs: rows(&programs),
        })
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The page: a table of variants, a table of programs; a column for each kernel.
fn page(kernels: &[Kernel]) -> String {
    let mut page = String::from(
        "# Kernels\n\n\
         Written by `make kernels`, from what `trapline doctor` says on each of them: the kernel that it was run on \
         (the first column), and those that the tests boot in virtual machines (`xtask/src/kernels.rs`).\n\n\
         ## What attaches\n\n\
         *yes*: loaded, attached, and seen to run. Otherwise the kernel's error; `-` where it gave none.\n\n",
    );
    let verdict = |row: &Value| match row["attaches"].as_str() {
        Some("yes") => "yes".to_owned(),
        _ => row["errno"].as_str().unwrap_or("-").to_owned(),
    };
    table(&mut page, kernels, "variant", |kernel| cells(&kernel.variants, ["tool", "variant"], verdict));
    page.push_str(
        "\n## What the verifier goes through\n\n\
         Instructions that the kernel's verifier looked at before it took each program, by object (a file of `bpf/`); a \
         million is its limit. Each was loaded for itself; where it was refused, the kernel's error. A program of several \
         objects is shown in one of those in which it costs most.\n\n",
    );
    let insns = |row: &Value| match row["insns"].as_u64() {
        Some(insns) => insns.to_string(),
        None => row["errno"].as_str().unwrap_or("-").to_owned(),
    };
    table(&mut page, kernels, "program", |kernel| cells(&kernel.programs, ["object", "program"], insns));
    page
}

/// What a kernel says of each thing, by two words that name it.
fn cells(rows: &[Value], name: [&str; 2], cell: impl Fn(&Value) -> String) -> Vec<(String, String)> {
    rows.iter().map(|row| (name.map(|word| text(&row[word])).join(" "), cell(row))).collect()
}

fn table(
    page: &mut String,
    kernels: &[Kernel],
    what: &str,
    cells: impl Fn(&Kernel) -> Vec<(String, String)>,
) {
    let columns: Vec<BTreeMap<String, String>> =
        kernels.iter().map(|kernel| cells(kernel).into_iter().collect()).collect();
    let heads = kernels.iter().map(|kernel| match kernel.lockdown.as_str() {
        "none" | "not shown" => kernel.release.clone(),
        mode => format!("{}, lockdown={mode}", kernel.release),
    });
    // Writing to a string cannot fail.
    let _ = writeln!(page, "| {what} | {} |", heads.collect::<Vec<_>>().join(" | "));
    let _ = writeln!(page, "|---|{}", "---|".repeat(kernels.len()));
    for (name, _) in kernels.first().map(&cells).unwrap_or_default() {
        let row = columns.iter().map(|column| column.get(&name).map_or("-", String::as_str));
        let _ = writeln!(page, "| {name} | {} |", row.collect::<Vec<_>>().join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_for_each_kernel() {
        let kernel = |release: &str, lockdown: &str, attaches: &str| {
            let doctor = format!(
                r#"{{"type":"header","kernel":"{release}","lockdown":{lockdown}}}
                   {{"type":"row","tool":"faults","variant":"fentry","attaches":"{attaches}","errno":"EPERM"}}"#
            );
            let programs = r#"{"type":"row","tool":"faults","object":"faults_file","program":"begin","insns":42,"errno":null}"#;
            Kernel::parse(&doctor, programs).unwrap()
        };
        let page = page(&[kernel("6.18", "null", "no"), kernel("6.12", "\"integrity\"", "yes")]);
        assert!(page.contains("| variant | 6.18 | 6.12, lockdown=integrity |\n|---|---|---|\n"), "{page}");
        assert!(page.contains("| faults fentry | EPERM | yes |"), "{page}");
        assert!(page.contains("| faults_file begin | 42 | 42 |"), "{page}");
    }
}
