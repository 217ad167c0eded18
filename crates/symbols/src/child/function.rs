//! Which function of a file a name means: as the linker, C++ or Rust write it, whole or its last parts.

use trapline_model::edit_distance;

use super::binary::{Binary, Function};
use crate::demangle::{demangle, shortened, without_parameters};

/// How many names an error lists at most.
const LISTED: usize = 12;
/// How much of each, bytes.
const SHOWN: usize = 1024;
/// How unlike a name may be that is offered for another: this part of its length.
const UNLIKE: usize = 3;

/// A function's names for people.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Names {
    /// With its parameters, where C++ tells them.
    full: String,
    /// Without.
    path: String,
}

impl Names {
    fn of(symbol: &str) -> Self {
        Self { full: demangle(symbol, false), path: without_parameters(symbol) }
    }

    /// How well it fits what was asked for: 1 is the name itself, 2 its last parts, 3 either without type parameters.
    fn fits(&self, wanted: &str) -> Option<u8> {
        let ends = |name: &str| name.strip_suffix(wanted).is_some_and(|before| before.ends_with("::"));
        let bare = outside_brackets(&self.path);
        match () {
            () if self.full == wanted || self.path == wanted => Some(1),
            () if ends(&self.full) || ends(&self.path) => Some(2),
            () if bare == wanted || ends(&bare) => Some(3),
            () => None,
        }
    }
}

/// Where a function is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) address: u64,
    /// It is of a language that leaves functions by unwinding their frames.
    pub(super) unwinds: bool,
}

/// The function that is called so; `0x…` is an address itself.
pub(super) fn find(binary: &Binary, wanted: &str, shown: &str) -> Result<Found, String> {
    if let Some(address) = wanted.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok()) {
        return Ok(Found { address, unwinds: false });
    }
    let mut fitting = fitting(binary, wanted);
    fitting.sort_by_key(|(function, _)| function.address);
    fitting.dedup_by_key(|(function, _)| function.address);
    match fitting.as_slice() {
        [] => Err(nothing(binary, wanted, shown)),
        [(function, _)] if function.chosen => Err(format!(
            "`{wanted}` of {shown} is chosen among several functions at run time (IFUNC): use one of those, or a caller"
        )),
        [(function, _)] => {
            let unwinds = ["_Z", "_R"].iter().any(|mangled| function.symbol.starts_with(mangled));
            Ok(Found { address: function.address, unwinds })
        }
        several => Err(format!(
            "`{wanted}` matches {} functions of {shown}: {}; use a full name or an address",
            several.len(),
            listed(several.iter().map(|(function, names)| {
                let chosen = if function.chosen { " (which chooses another at run time)" } else { "" };
                format!("`{}` at {:#x}{chosen}", names.full, function.address)
            }))
        )),
    }
}

/// Those that fit best.
fn fitting<'a>(binary: &'a Binary, wanted: &str) -> Vec<(&'a Function, Names)> {
    let exact: Vec<_> = binary.functions.iter().filter(|f| f.symbol == wanted).collect();
    if !exact.is_empty() {
        return exact.into_iter().map(|f| (f, Names::of(&f.symbol))).collect();
    }
    // Every mangled name holds the plain words of what it stands for, so few have to be unravelled.
    let word = longest_word(wanted);
    let mut found: Vec<(u8, &Function, Names)> = Vec::new();
    for function in binary.functions.iter().filter(|f| f.symbol.contains(&word) && !is_fragment(&f.symbol)) {
        let names = Names::of(&function.symbol);
        found.extend(names.fits(wanted).map(|fit| (fit, function, names)));
    }
    let best = found.iter().map(|&(fit, ..)| fit).min();
    found.into_iter().filter(|&(fit, ..)| Some(fit) == best).map(|(_, f, names)| (f, names)).collect()
}

/// A part that the compiler has split off, which is jumped to and not called.
fn is_fragment(symbol: &str) -> bool {
    symbol.contains(".cold")
}

/// A name without type and function parameters.
fn outside_brackets(name: &str) -> String {
    let mut depth = 0_usize;
    let outside = |c: &char| {
        match c {
            '<' | '(' => depth += 1,
            '>' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && !matches!(c, '>' | ')')
    };
    name.chars().filter(outside).collect()
}

/// The longest word of the last part of a name, without parameters: those are mangled into signs.
fn longest_word(name: &str) -> String {
    let name = outside_brackets(name);
    let last = name.rsplit("::").next().unwrap_or_default();
    let words = last.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    // Words that name no thing of the program's.
    let words = words.filter(|word| !matches!(*word, "closure" | "impl" | "operator" | "shim" | "vtable"));
    words.max_by_key(|word| word.len()).unwrap_or_default().to_owned()
}

/// Why there is no such function, and what might have been meant.
fn nothing(binary: &Binary, wanted: &str, shown: &str) -> String {
    let last = |name: &str| name.rsplit("::").next().unwrap_or(name).to_lowercase();
    let meant = last(wanted);
    let mut near: Vec<(usize, String)> = Vec::new();
    for function in binary.functions.iter().filter(|f| !is_fragment(&f.symbol)) {
        let path = Names::of(&function.symbol).path;
        let own = last(&path);
        let unlike =
            if own.contains(&meant) { own.len() - meant.len() } else { UNLIKE + edit_distance(&own, &meant) };
        if own.contains(&meant) || unlike <= UNLIKE + meant.len() / UNLIKE {
            near.push((unlike, format!("`{path}`")));
        }
    }
    near.sort();
    near.dedup();
    let near = match near.as_slice() {
        [] => String::new(),
        near => format!("; similar names: {}", listed(near.iter().take(5).map(|(_, name)| name.clone()))),
    };
    let stripped = if binary.has_symbols {
        ""
    } else if binary.functions.is_empty() {
        ": it is stripped; install its symbols, on Debian the -dbgsym package, or use an address, BINARY:0x…"
    } else {
        ": it is stripped but for exported functions; install its symbols, on Debian the -dbgsym package, or use an address, BINARY:0x…"
    };
    format!("{shown} has no function `{wanted}`{stripped}{near}")
}

/// The first of some names, and how many there are beyond them.
pub fn listed(names: impl Iterator<Item = String>) -> String {
    // Names may be as long as their authors like.
    let names: Vec<String> = names.map(|name| shortened(&name, SHOWN).to_owned()).collect();
    let more = names.len().saturating_sub(LISTED);
    let shown = names[..names.len() - more].join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(symbols: &[&str]) -> Binary {
        let functions = (0x1000..).step_by(16).zip(symbols);
        let functions =
            functions.map(|(address, &symbol)| Function { symbol: symbol.into(), address, chosen: false });
        Binary::of(functions.collect())
    }

    #[test]
    fn names_of_three_languages_whole_and_in_part() {
        let all = binary(&[
            "plain",
            "_ZN3app5Store5queryEi",
            "_ZN3app5Store5queryEd",
            "_ZN3app5Store5closeEv",
            "_ZN4bank6ledger4post17h0123456789abcdefE",
            "_RNvNtCs1234_4bank5index5probe",
            "_ZN3app5Store5closeEv.cold",
            "_ZN3app3mapIiE3getEv",
        ]);
        for (wanted, address) in [
            ("plain", 0x1000),
            ("_ZN3app5Store5queryEi", 0x1010),
            ("app::Store::query(int)", 0x1010),
            ("Store::query(double)", 0x1020),
            ("query(double)", 0x1020),
            ("app::Store::close", 0x1030),
            ("close", 0x1030),
            ("bank::ledger::post", 0x1040),
            ("ledger::post", 0x1040),
            ("bank::index::probe", 0x1050),
            ("app::map<int>::get", 0x1070),
            ("map::get", 0x1070),
            ("0x1234", 0x1234),
        ] {
            assert_eq!(find(&all, wanted, "app").unwrap().address, address, "{wanted}");
        }
        assert_eq!(
            find(&all, "Store::query", "app").unwrap_err(),
            "`Store::query` matches 2 functions of app: `app::Store::query(int)` at 0x1010, \
             `app::Store::query(double)` at 0x1020; use a full name or an address"
        );
        // Parts are whole parts.
        assert!(find(&all, "ost", "app").is_err() && find(&all, "edger::post", "app").is_err());
    }

    #[test]
    fn what_is_missing_is_said_with_what_is_near() {
        let mut some = binary(&["exec_query", "exec_simple_query", "other"]);
        let why = |binary: &Binary, name: &str| find(binary, name, "app").unwrap_err();
        assert_eq!(
            why(&some, "query"),
            "app has no function `query`; similar names: `exec_query`, `exec_simple_query`"
        );
        assert_eq!(why(&some, "oter"), "app has no function `oter`; similar names: `other`");
        some.has_symbols = false;
        assert!(why(&some, "zzzzzz").contains("it is stripped but for exported functions"));
        some.functions.clear();
        assert!(why(&some, "zzzzzz").contains("it is stripped; install"));
    }
}
