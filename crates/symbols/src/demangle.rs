//! Names as their authors wrote them.

use std::fmt::{self, Write};

use cpp_demangle::DemangleOptions;

/// A mangled name of a few hundred characters can stand for gigabytes: nobody reads more than this.
pub(crate) const LONGEST: usize = 8 << 10;

struct Limited(String);

impl Write for Limited {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > LONGEST {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// The name in the words of its language, `is_cpp` if that is known to be C++; as it is, if it is not mangled or too
/// long in full.
pub(crate) fn demangle(name: &str, is_cpp: bool) -> String {
    let cpp = || cpp(name, &DemangleOptions::default());
    let demangled = if is_cpp { cpp() } else { rust(name).or_else(cpp) };
    demangled.unwrap_or_else(|| shortened(name, LONGEST).to_owned())
}

/// The beginning of a text, at most so many bytes.
pub(crate) fn shortened(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    text.get(..end.unwrap_or(0)).unwrap_or(text)
}

/// The same without the parameters and the return type that C++ puts into a name.
pub(crate) fn without_parameters(name: &str) -> String {
    let plain = || cpp(name, &DemangleOptions::default().no_params().no_return_type());
    rust(name).or_else(plain).unwrap_or_else(|| name.to_owned())
}

fn rust(name: &str) -> Option<String> {
    let parsed = rustc_demangle::try_demangle(name).ok()?;
    let mut out = Limited(String::new());
    write!(out, "{parsed:#}").ok()?;
    Some(out.0)
}

fn cpp(name: &str, options: &DemangleOptions) -> Option<String> {
    let parsed = cpp_demangle::Symbol::new(name).ok()?;
    let mut out = Limited(String::new());
    parsed.structured_demangle(&mut out, options).ok()?;
    Some(out.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_and_cpp() {
        for (mangled, name) in [
            ("_ZN8trapline4main17h0123456789abcdefE", "trapline::main"),
            ("_RNvC6_123foo3bar", "123foo::bar"),
            ("_ZN5space3fooEibc", "space::foo(int, bool, char)"),
            ("main", "main"),
            ("_Znot", "_Znot"),
        ] {
            assert_eq!(demangle(mangled, false), name);
        }
        // A legacy Rust name is a C++ name with a hash.
        assert_eq!(demangle("_ZN5space3fooEibc", true), "space::foo(int, bool, char)");
    }

    #[test]
    fn a_name_that_stands_for_a_library_is_left_alone() {
        // Each substitution doubles the one before.
        let mut bomb = "_Z1fN1aIiiEE".to_owned();
        for back in
            ["S0_", "S1_", "S2_", "S3_", "S4_", "S5_", "S6_", "S7_", "S8_", "S9_", "SA_", "SB_", "SC_"]
        {
            bomb.push_str(&format!("1bI{back}{back}E"));
        }
        assert!(demangle(&bomb, true).len() <= LONGEST);
    }
}
