//! Keys and the mouse, as a terminal sends them.

/// What is pressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Press {
    /// A key with a character.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Escape,
    /// Backspace.
    Backspace,
    /// Tab.
    Tab,
    /// Shift-Tab.
    BackTab,
    /// The arrow up.
    Up,
    /// The arrow down.
    Down,
    /// The arrow to the left.
    Left,
    /// The arrow to the right.
    Right,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
    /// F1 and so on.
    Function(u8),
    /// The first button of the mouse, at this place from 0.
    Click {
        /// The column.
        column: u16,
        /// The line.
        line: u16,
    },
    /// The wheel of the mouse: whether it goes up.
    Wheel(bool),
}

/// Makes keys of the bytes that a terminal sends; a sequence may come in pieces.
#[derive(Debug, Default)]
pub struct Keyboard {
    begun: Vec<u8>,
}

/// A sequence is no longer than this.
const LONGEST: usize = 32;

impl Keyboard {
    /// The keys in these bytes, after those before.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<Press> {
        let mut all = std::mem::take(&mut self.begun);
        all.extend(bytes);
        let (mut keys, mut rest) = (vec![], all.as_slice());
        while !rest.is_empty() {
            match key(rest) {
                Some((key, length)) => {
                    keys.extend(key);
                    rest = &rest[length..];
                }
                None if rest.len() < LONGEST => {
                    self.begun = rest.to_vec();
                    break;
                }
                None => break,
            }
        }
        keys
    }
}

/// The first key, if it means anything, and its bytes; nothing if the bytes are the beginning of one.
fn key(bytes: &[u8]) -> Option<(Option<Press>, usize)> {
    match bytes {
        [0x1b] => Some((Some(Press::Escape), 1)),
        [0x1b, b'['] | [0x1b, b'O'] => None,
        [0x1b, b'O', last, ..] => Some((named(*last, &[]), 3)),
        // The console of Linux.
        [0x1b, b'[', b'['] => None,
        [0x1b, b'[', b'[', last @ b'A'..=b'E', ..] => Some((Some(Press::Function(last - b'A' + 1)), 4)),
        [0x1b, b'[', rest @ ..] => {
            let length = rest.iter().position(|byte| (0x40..=0x7e).contains(byte))?;
            let parameters = std::str::from_utf8(&rest[..length]).unwrap_or_default();
            let key = match parameters.strip_prefix('<') {
                Some(mouse) => click(mouse, rest[length]),
                None => {
                    let numbers: Vec<u16> = parameters.split(';').map_while(|n| n.parse().ok()).collect();
                    named(rest[length], &numbers)
                }
            };
            Some((key, length + 3))
        }
        // The key that comes with Alt is the key.
        [0x1b, ..] => Some((Some(Press::Escape), 1)),
        [b'\r' | b'\n', ..] => Some((Some(Press::Enter), 1)),
        [b'\t', ..] => Some((Some(Press::Tab), 1)),
        [0x7f | 0x08, ..] => Some((Some(Press::Backspace), 1)),
        [0..=0x1f, ..] => Some((None, 1)),
        _ => character(bytes),
    }
}

fn character(bytes: &[u8]) -> Option<(Option<Press>, usize)> {
    let length = match bytes[0] {
        0xf0..=0xf7 => 4,
        0xe0..=0xef => 3,
        0xc0..=0xdf => 2,
        _ => 1,
    };
    let text = std::str::from_utf8(bytes.get(..length)?).ok();
    Some((text.and_then(|text| text.chars().next()).map(Press::Char), length))
}

fn named(last: u8, numbers: &[u16]) -> Option<Press> {
    Some(match (last, numbers.first()) {
        (b'A', _) => Press::Up,
        (b'B', _) => Press::Down,
        (b'C', _) => Press::Right,
        (b'D', _) => Press::Left,
        (b'H', _) | (b'~', Some(1 | 7)) => Press::Home,
        (b'F', _) | (b'~', Some(4 | 8)) => Press::End,
        (b'Z', _) => Press::BackTab,
        (b'P'..=b'S', _) => Press::Function(last - b'P' + 1),
        (b'~', Some(5)) => Press::PageUp,
        (b'~', Some(6)) => Press::PageDown,
        (b'~', Some(n @ 11..=15)) => Press::Function(*n as u8 - 10),
        (b'~', Some(n @ 17..=21)) => Press::Function(*n as u8 - 11),
        _ => return None,
    })
}

/// A button of the mouse: `BUTTON;COLUMN;LINE`, from 1.
fn click(text: &str, last: u8) -> Option<Press> {
    let mut numbers = text.split(';').map_while(|n| n.parse::<u16>().ok());
    let (button, column, line) = (numbers.next()?, numbers.next()?, numbers.next()?);
    match (button, last) {
        (0, b'M') => Some(Press::Click { column: column.checked_sub(1)?, line: line.checked_sub(1)? }),
        (64 | 65, b'M') => Some(Press::Wheel(button == 64)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Keyboard, Press};

    #[test]
    fn keys_are_told_apart() {
        let keys = |bytes: &[u8]| Keyboard::default().read(bytes);
        assert_eq!(keys(b"qs\r"), [Press::Char('q'), Press::Char('s'), Press::Enter]);
        assert_eq!(keys(b"\x1b"), [Press::Escape]);
        assert_eq!(keys(b"\x1b[A\x1bOB\x1b[5~"), [Press::Up, Press::Down, Press::PageUp]);
        assert_eq!(keys(b"\x1bOP\x1b[21~\x1b[Z"), [Press::Function(1), Press::Function(10), Press::BackTab]);
        assert_eq!(keys(b"\x1b[[Aq"), [Press::Function(1), Press::Char('q')]);
        assert_eq!(keys("é漢".as_bytes()), [Press::Char('é'), Press::Char('漢')]);
        assert_eq!(keys(b"\x1b[<0;3;4M\x1b[<0;3;4m"), [Press::Click { column: 2, line: 3 }]);
        assert_eq!(keys(b"\x1b[<65;1;1M"), [Press::Wheel(false)]);
        assert_eq!(keys(b"\x01\x1b[999zx"), [Press::Char('x')]);
    }

    #[test]
    fn a_sequence_may_come_in_pieces() {
        let mut keyboard = Keyboard::default();
        assert_eq!(keyboard.read(b"\x1b["), []);
        assert_eq!(keyboard.read(b"B"), [Press::Down]);
        assert_eq!(keyboard.read(&"é".as_bytes()[..1]), []);
        assert_eq!(keyboard.read(&"é".as_bytes()[1..]), [Press::Char('é')]);
        // No end comes: it is not waited for.
        assert_eq!(keyboard.read(b"\x1b[1111111111111111111111111111111111111111"), []);
        assert_eq!(keyboard.read(b"q"), [Press::Char('q')]);
    }

    #[test]
    fn nothing_that_is_typed_is_a_panic() {
        let mut seed = 1_u32;
        let mut keyboard = Keyboard::default();
        for _ in 0..100_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let byte = (seed >> 24) as u8;
            keyboard.read(&[if byte < 40 { 0x1b } else { byte }]);
            assert!(keyboard.begun.len() < 64);
        }
    }
}
