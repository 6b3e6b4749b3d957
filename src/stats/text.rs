//! Text that somebody else chose, made harmless for a terminal.

use std::fmt::Write;

/// Bytes as printable text: what is not UTF-8 and what controls a terminal or hides (control
/// characters, marks of writing direction, characters of no width) is escaped like in C.
pub fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                c if c.is_ascii_control() => escape(&mut out, "x", c as u32),
                c if c.is_control() || is_format(c) => escape(&mut out, "u", c as u32),
                c => out.push(c),
            }
        }
        for &byte in chunk.invalid() {
            escape(&mut out, "x", byte.into());
        }
    }
    out
}

/// Bytes up to the first NUL as text, a line a line.
pub fn printable_lines(bytes: &[u8]) -> Vec<String> {
    until_nul(bytes)
        .split(|&byte| byte == b'\n')
        .map(|line| {
            // Tabs are layout in the kernel's dump, not anybody's text.
            line.split(|&byte| byte == b'\t').map(printable).collect::<Vec<_>>().join("\t")
        })
        .collect()
}

/// The bytes before the first NUL.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len())]
}

fn escape(out: &mut String, kind: &str, code: u32) {
    let width = if kind == "x" { 2 } else { 4 };
    // Writing to a String cannot fail.
    let _ = write!(out, "\\{kind}{code:0width$x}");
}

/// Whether a character shows nothing of itself, or changes the order of others.
pub fn is_format(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names() {
        assert_eq!(printable(b"stress-ng-cpu"), "stress-ng-cpu");
        assert_eq!(printable("größe".as_bytes()), "größe");
        assert_eq!(printable(b"\x1b[31mred\x07\x7f"), "\\x1b[31mred\\x07\\x7f");
        assert_eq!(printable(b"a\nb\tc\\d"), "a\\nb\\tc\\\\d");
        assert_eq!(printable(b"\xff\xfe!"), "\\xff\\xfe!");
        assert_eq!(printable("\u{202e}x\u{85}".as_bytes()), "\\u202ex\\u0085");
    }

    #[test]
    fn lines_end_at_nul() {
        assert_eq!(printable_lines(b"a\tb\n\x1bc\0junk"), ["a\tb", "\\x1bc"]);
        assert_eq!(until_nul(b"abc"), b"abc");
    }
}
