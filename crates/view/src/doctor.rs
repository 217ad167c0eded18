//! The doctor's report for people.

use std::io::{self, Write};

use trapline_model::doctor::{Machine, Program, Variant};

use crate::escape::visible;

/// Writes what was found: the machine, then each variant, with the reason and the remedy where it is refused.
///
/// # Errors
/// When it cannot be written.
pub fn doctor(out: &mut impl Write, machine: &Machine, variants: &[Variant]) -> io::Result<()> {
    let list = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(" ") };
    writeln!(out, "kernel        {} on {}", visible(&machine.kernel), visible(&machine.host))?;
    writeln!(
        out,
        "lockdown      {}",
        machine.lockdown.as_deref().map_or("not shown by this kernel".into(), visible)
    )?;
    writeln!(out, "kernel BTF    {}", if machine.btf { "yes" } else { "no" })?;
    writeln!(out, "capabilities  {}", list(&machine.capabilities))?;
    writeln!(out, "mounted       {}", list(&machine.mounted))?;
    for (index, (name, cost)) in machine.namespaces.iter().enumerate() {
        let title = if index == 0 { "namespaces" } else { "" };
        writeln!(out, "{title:<13} {name}: {cost}")?;
    }
    for (tool, lack) in &machine.lacks {
        writeln!(out, "{tool:<13} {}", visible(lack))?;
    }
    if !machine.changed.is_empty() {
        writeln!(out, "changed       {}", machine.changed_words())?;
        writeln!(out, "              by trapline access; if it has ended, run trapline doctor --repair")?;
    }
    let mut used = Vec::new();
    for of in variants {
        let verdict = match &of.refusal {
            Some(refusal) => format!("no   {}", refusal.errno.as_deref().unwrap_or("")),
            None if of.own_only && used.contains(&of.tool) => "yes, own processes only".into(),
            None if of.own_only => "yes, used; own processes only".into(),
            None if used.contains(&of.tool) => "yes".into(),
            None if machine.lacks.iter().any(|(tool, _)| *tool == of.tool) => {
                "yes, but has nothing to trace".into()
            }
            None => {
                used.push(of.tool);
                "yes, used".into()
            }
        };
        writeln!(out, "{:<8} {:<12} {}", of.tool, of.variant, verdict.trim_end())?;
        if let Some(refusal) = &of.refusal {
            writeln!(out, "         error: {}", visible(&refusal.error))?;
            writeln!(out, "         hint:  {}", visible(&refusal.remedy))?;
        }
    }
    Ok(())
}

/// Writes how many instructions the verifier went through for each program, or why it refused.
///
/// # Errors
/// When it cannot be written.
pub fn programs(out: &mut impl Write, programs: &[Program]) -> io::Result<()> {
    programs.iter().try_for_each(|of| {
        write!(out, "{:<14} {:<20} ", of.object, of.program)?;
        match &of.insns {
            Ok(insns) => writeln!(out, "{insns:>6} instructions"),
            Err(refusal) => writeln!(out, "refused: {}", visible(&refusal.error)),
        }
    })
}
