//! Places in a file, as a refusal of what is there names them.

use crate::{
    exit::{Exit, Failure},
    stats::text,
};
use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", printable_path(&self.path), self.line, self.column)
    }
}

impl Place {
    /// A refusal of what is there.
    pub fn refuse(&self, why: &str) -> Failure {
        Failure::new(Exit::Usage, format!("{self}: {why}"))
    }
}

pub(super) fn printable_path(path: &Path) -> String {
    text::printable(path.as_os_str().as_encoded_bytes())
}

/// The text of a file, of which a place is found without reading all that comes before it: each of a thousand rules has
/// one.
pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    /// Where each line begins, ascending; the first at 0.
    lines: Vec<usize>,
}

impl<'a> Source<'a> {
    pub fn new(path: &'a Path, text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at);
        let lines = std::iter::once(0).chain(ends.map(|end| end + 1)).collect();
        Self { path, text, lines }
    }

    /// The place at this byte.
    pub fn place(&self, at: usize) -> Place {
        let line = self.lines.partition_point(|begin| *begin <= at);
        let begin = self.lines[line - 1];
        let before = self.text.get(begin..at).unwrap_or_default();
        Place { path: self.path.to_owned(), line, column: before.chars().count() + 1 }
    }

    /// A refusal of what is at this byte.
    pub fn refuse(&self, at: usize, why: &str) -> Failure {
        self.place(at).refuse(why)
    }

    /// A value as the file has it, shortened.
    pub fn shown(&self, span: Range<usize>) -> String {
        const CHARS_MAX: usize = 40;
        let text = self.text.get(span).unwrap_or_default().lines().next().unwrap_or_default();
        let short: String = text.chars().take(CHARS_MAX).collect();
        let more = if short.len() < text.len() { "…" } else { "" };
        text::printable(short.as_bytes()) + more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_characters_from_one() {
        let source = Source::new(Path::new("f"), "äb\n\nc");
        let places = [0, 2, 3, 4, 5, 6].map(|at| {
            let place = source.place(at);
            (place.line, place.column)
        });
        assert_eq!(places, [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (3, 2)]);
        assert_eq!(Source::new(Path::new("f"), "").place(0).to_string(), "f:1:1");
    }
}
