//! Names come from other processes, which may choose them to deceive.

use std::fmt::Write;

/// The text with everything that could move a cursor, change a colour or hide other text written out: `\x1b`,
/// `\n` as `\x0a`, direction marks, characters that show nothing and those that XML forbids as `\u{202e}`; and a backslash
/// doubled.
#[must_use]
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Writing to a string cannot fail.
        let _ = match c {
            '\\' => write!(out, "\\\\"),
            c if c.is_control() => write!(out, "\\x{:02x}", c as u32),
            '\u{ad}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180b}'..='\u{180e}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fdd0}'..='\u{fdef}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0000}'..='\u{e007f}' => write!(out, "\\u{{{:x}}}", c as u32),
            // No characters: the last two of each plane.
            c if c as u32 & 0xfffe == 0xfffe => {
                write!(out, "\\u{{{:x}}}", c as u32)
            }
            c => {
                out.push(c);
                Ok(())
            }
        };
    }
    out
}

/// The name of a task, which may be empty: that would look as if there were none, or shift what follows it.
pub(crate) fn name(text: &str) -> String {
    if text.trim().is_empty() { NO_NAME.to_owned() } else { visible(text) }
}

const NO_NAME: &str = "[no name]";

#[cfg(test)]
mod tests {
    use super::{name, visible};

    #[test]
    fn a_name_is_never_empty() {
        assert_eq!(
            (name(""), name("  "), name("a\n")),
            ("[no name]".into(), "[no name]".into(), "a\\x0a".into())
        );
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(visible("plain name é 漢"), "plain name é 漢");
        assert_eq!(visible("\x1b[2J\r\n\t\0\u{9b}"), "\\x1b[2J\\x0d\\x0a\\x09\\x00\\x9b");
        assert_eq!(visible("a\u{202e}b\u{200b}"), "a\\u{202e}b\\u{200b}");
        assert_eq!(visible("\\x1b"), "\\\\x1b");
        assert_eq!(visible("\u{fffe}\u{1ffff}\u{3164}\u{fffd}"), "\\u{fffe}\\u{1ffff}\\u{3164}\u{fffd}");
    }
}
