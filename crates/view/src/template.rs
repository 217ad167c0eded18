//! Lines made of values by a template: see [`trapline_model::layout`].

use std::iter::Peekable;
use std::str::Chars;

use trapline_model::Value;
use unicode_width::UnicodeWidthStr;

use crate::escape::{name, visible};

/// What a name in a template stands for.
pub(crate) enum Word {
    /// A value, which may be a text of others.
    Value(Value),
    /// A text of ours.
    Text(String),
}

/// A template, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value {
        of: String,
        per: Option<String>,
        fill: Fill,
        decimals: Option<usize>,
        form: Form,
    },
    /// Prints nothing: the value is known, and it is this one if one is given.
    Is {
        of: String,
        value: Option<String>,
    },
    Either(Template, Template),
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Fill {
    width: usize,
    left: bool,
    zeros: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    Hex,
    Prefixed,
    Seconds,
    Milliseconds,
    Microseconds,
    /// Millionths.
    Percent,
    Size,
}

impl Template {
    /// Reads a template. What is no template is shown as it is.
    pub(crate) fn new(text: &str) -> Self {
        Self::read(text).unwrap_or_else(|| Self(vec![Piece::Text(text.to_owned())]))
    }

    /// Reads a template, if it is one.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut chars = text.chars().peekable();
        let read = Self::pieces(&mut chars, false)?;
        chars.next().is_none().then_some(read)
    }

    /// Reads to the end, or in a group to its `|` or `]`.
    fn pieces(chars: &mut Peekable<Chars<'_>>, in_group: bool) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut text = String::new();
        while let Some(&c) = chars.peek() {
            if in_group && matches!(c, '|' | ']') {
                break;
            }
            chars.next();
            let piece = match c {
                '\\' => {
                    text.push(chars.next()?);
                    continue;
                }
                '{' => {
                    let inside: String = chars.by_ref().take_while(|&c| c != '}').collect();
                    Piece::value(&inside)?
                }
                '[' => {
                    let one = Self::pieces(chars, true)?;
                    let other = match chars.next()? {
                        '|' => {
                            let other = Self::pieces(chars, true)?;
                            chars.next().filter(|&c| c == ']')?;
                            other
                        }
                        _ => Self::default(),
                    };
                    Piece::Either(one, other)
                }
                c => {
                    text.push(c);
                    continue;
                }
            };
            if !text.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut text)));
            }
            pieces.push(piece);
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        Some(Self(pieces))
    }

    /// The names of all values in it.
    #[cfg(test)]
    pub(crate) fn names(&self) -> Vec<&str> {
        let of = |piece| match piece {
            &Piece::Text(_) => vec![],
            Piece::Value { of, per, .. } => {
                [Some(of), per.as_ref()].into_iter().flatten().map(String::as_str).collect()
            }
            Piece::Is { of, .. } => vec![of.as_str()],
            Piece::Either(one, other) => [one.names(), other.names()].concat(),
        };
        self.0.iter().flat_map(of).collect()
    }

    /// The line, where names stand for these words. What is not known is a dash.
    pub(crate) fn line(&self, word: &dyn Fn(&str) -> Word) -> String {
        let mut line = String::new();
        self.write(&mut line, word);
        line
    }

    /// Whether all that is in it is known.
    fn write(&self, line: &mut String, word: &dyn Fn(&str) -> Word) -> bool {
        let mut all = true;
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => line.push_str(text),
                Piece::Is { of, value } => {
                    all &= match (word(of), value) {
                        (Word::Value(Value::Null), _) => false,
                        (_, None) => true,
                        (Word::Value(Value::Bool(is)), Some(value)) => (value == "1") == is,
                        (Word::Value(Value::U64(n)), Some(value)) => value.parse() == Ok(n),
                        (Word::Value(Value::I64(n)), Some(value)) => value.parse() == Ok(n),
                        (Word::Value(Value::Str(text)), Some(value)) => text == *value,
                        (Word::Value(Value::Buckets(_) | Value::Hist(_)) | Word::Text(_), Some(_)) => false,
                    };
                }
                Piece::Either(one, other) => {
                    let before = line.len();
                    if !one.write(line, word) {
                        line.truncate(before);
                        other.write(line, word);
                    }
                }
                Piece::Value { of, per, fill, decimals, form } => {
                    let text = match (word(of), per.as_ref().map(|per| word(per))) {
                        (Word::Text(text), _) => Some(text),
                        (Word::Value(Value::U64(n)), Some(Word::Value(Value::U64(per)))) => {
                            Some(form.number(n.checked_div(per).unwrap_or(0), *decimals))
                        }
                        (Word::Value(Value::Null | Value::Buckets(_) | Value::Hist(_)), _) | (_, Some(_)) => {
                            None
                        }
                        (Word::Value(Value::U64(n)), None) => Some(form.number(n, *decimals)),
                        (Word::Value(Value::I64(n)), None) => Some(form.signed(n, *decimals)),
                        (Word::Value(Value::Bool(is)), None) => Some(u8::from(is).to_string()),
                        (Word::Value(Value::Str(text)), None) if of == "comm" => Some(name(&text)),
                        (Word::Value(Value::Str(text)), None) => Some(visible(&text)),
                    };
                    all &= text.is_some();
                    fill.push(line, text.as_deref().unwrap_or("-"));
                }
            }
        }
        all
    }
}

impl Piece {
    /// What is between braces.
    fn value(text: &str) -> Option<Self> {
        if let Some(is) = text.strip_prefix('?') {
            let (of, value) = match is.split_once('=') {
                Some((of, value)) => (of, Some(value.to_owned())),
                None => (is, None),
            };
            return Some(Self::Is { of: of.to_owned(), value });
        }
        let (names, spec) = text.split_once(':').unwrap_or((text, ""));
        let (of, per) = match names.split_once('/') {
            Some((of, per)) => (of, Some(per.to_owned())),
            None => (names, None),
        };
        let mut fill = Fill { left: spec.starts_with('<'), ..Fill::default() };
        let spec = spec.trim_start_matches(['<', '>']);
        let at = spec.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(spec.len());
        // The mark of a prefix may come before the width, as it does in Rust.
        let (digits, form) = match spec.strip_prefix('#') {
            Some(rest) => (rest.trim_end_matches('x'), "#x"),
            None => spec.split_at(at),
        };
        let (width, decimals) = match digits.split_once('.') {
            Some((width, decimals)) => (width, Some(decimals.parse().ok()?)),
            None => (digits, None),
        };
        fill.zeros = width.starts_with('0');
        fill.width = if width.is_empty() { 0 } else { width.parse().ok()? };
        let form = match form {
            "" => Form::Plain,
            "x" => Form::Hex,
            "#x" => Form::Prefixed,
            "s" => Form::Seconds,
            "ms" => Form::Milliseconds,
            "us" => Form::Microseconds,
            "%" => Form::Percent,
            "size" => Form::Size,
            _ => return None,
        };
        Some(Self::Value { of: of.to_owned(), per, fill, decimals, form })
    }
}

impl Fill {
    fn push(&self, line: &mut String, text: &str) {
        let missing = self.width.saturating_sub(text.width());
        let with = if self.zeros { "0" } else { " " };
        if self.left {
            line.push_str(text);
            line.extend(std::iter::repeat_n(with, missing));
        } else {
            line.extend(std::iter::repeat_n(with, missing));
            line.push_str(text);
        }
    }
}

impl Form {
    /// A difference: its sign comes first.
    fn signed(self, n: i64, decimals: Option<usize>) -> String {
        let sign = if n < 0 { "-" } else { "+" };
        format!("{sign}{}", self.number(n.unsigned_abs(), decimals))
    }

    fn number(self, n: u64, decimals: Option<usize>) -> String {
        let unit = |ns: f64| match decimals {
            Some(decimals) => format!("{:.decimals$}", n as f64 / ns),
            None => (n as f64 / ns).to_string(),
        };
        match self {
            Self::Plain => n.to_string(),
            Self::Hex => format!("{n:x}"),
            Self::Prefixed => format!("{n:#x}"),
            Self::Size => size(n),
            Self::Milliseconds => unit(1e6),
            Self::Microseconds => unit(1e3),
            Self::Percent => unit(1e4),
            // As clocks show it: a second begins when it begins.
            Self::Seconds => {
                let fraction = format!("{:09}", n % 1_000_000_000);
                match decimals.unwrap_or(9).min(9) {
                    0 => (n / 1_000_000_000).to_string(),
                    decimals => format!("{}.{}", n / 1_000_000_000, &fraction[..decimals]),
                }
            }
        }
    }
}

/// A size with its unit: `12 kB`, `3.4 MB`.
pub(crate) use trapline_model::access::size;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(template: &str) -> String {
        let word = |name: &str| match name {
            "n" => Word::Value(1_234_567_890u64.into()),
            "seven" => Word::Value(7u64.into()),
            "none" => Word::Value(0u64.into()),
            "less" => Word::Value((-2_500_000i64).into()),
            "text" | "comm" => Word::Value("a\n".into()),
            "own" => Word::Text("x\\".into()),
            _ => Word::Value(Value::Null),
        };
        Template::read(template).unwrap().line(&word)
    }

    #[test]
    fn values_in_their_forms() {
        assert_eq!(
            line("{seven:>3}|{seven:<3}|{seven:03}|{seven:#x}|{seven:>#5x}."),
            "  7|7  |007|0x7|  0x7."
        );
        assert_eq!(
            line("{n:.3s} {n:>12.6s} {n:.1ms} {seven:ms} {n:.1us}"),
            "1.234     1.234567 1234.6 0.000007 1234567.9"
        );
        assert_eq!(line("{less} {less:.1ms} {less:>8.0%} %"), "-2500000 -2.5     -250 %");
        assert_eq!(line("{n/seven} {n/none} {n/gone}"), "176366841 0 -");
        assert_eq!(line("{text} {own} {gone:>3} {comm:>6}"), "a\\x0a x\\   -  a\\x0a");
        assert_eq!(line("\\[{seven}\\] \\{"), "[7] {");
    }

    #[test]
    fn groups_for_what_may_not_be_known() {
        assert_eq!(line("a[ {gone}]b[ {seven}]"), "ab 7");
        assert_eq!(line("[{gone}|[{gone}|none]]"), "none");
        assert_eq!(
            line("[{?seven=7}yes|no] [{?seven=8}yes|no] [{?gone}yes|no] [{?text}yes]"),
            "yes no no yes"
        );
        for wrong in ["{n:q}", "[a", "a\\", "[a|b", "{n:>x9}"] {
            assert_eq!(Template::read(wrong), None, "{wrong}");
        }
        assert_eq!(Template::new("{n:q}"), Template(vec![Piece::Text("{n:q}".into())]));
    }
}
