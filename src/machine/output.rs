//! Standard output whose reader may be slow, stuck or gone; and files that flags name.

use super::stop::{Stop, Wake};
use crate::{
    exit::{self, Exit, Failure},
    stats::text,
};
use std::{
    env,
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    path::Path,
    time::Duration,
};

/// POSIX's least PIPE_BUF: a pipe that polls as writable takes this much without blocking.
const CHUNK: usize = 512;

/// How a write ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// All of it is written.
    Whole,
    /// The reader has gone: nothing more needs to be written, ever.
    Closed,
    /// It was cut short.
    Stopped,
}

/// Writes `text`, without ever blocking for longer than `patience`: whenever the reader has
/// taken nothing for so long, and at a stop, `tend` is asked whether to go on.
///
/// # Errors
/// When the output cannot take it: a full disk.
pub fn write<W: Write + AsFd>(
    output: &mut W,
    text: &str,
    stop: &Stop,
    patience: Duration,
    mut tend: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Written> {
    for chunk in text.as_bytes().chunks(CHUNK) {
        loop {
            match stop.wait_writable(output.as_fd(), patience) {
                Wake::Ready => break,
                Wake::Stop => return Ok(Written::Stopped),
                Wake::Timeout if !tend()? => return Ok(Written::Stopped),
                Wake::Timeout => {}
            }
        }
        match output.write_all(chunk).and_then(|()| output.flush()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Written::Closed),
            Err(error) => {
                return Err(anyhow::Error::new(error).context(
                    "writing statistics to standard output (is the disk full?); detached",
                ));
            }
        }
    }
    Ok(Written::Whole)
}

/// Makes the file that a flag names.
///
/// # Errors
/// [`Exit::Usage`]: it cannot be written, or is called `-`, which stands for something else elsewhere.
pub fn create(flag: &str, path: &Path) -> Result<File, Failure> {
    if path == "-" {
        let text = format!("{flag} -: a file is expected; standard output is /dev/stdout");
        return Err(Failure::new(Exit::Usage, text));
    }
    File::create(path).map_err(|error| {
        let name = text::printable(path.as_os_str().as_encoded_bytes());
        let why = exit::reason(&error);
        Failure::new(Exit::Usage, format!("{flag} {name}: this file cannot be written: {why}"))
    })
}

/// The width of the terminal that standard output is, in columns; none if it is not one. If the
/// terminal does not tell, `$COLUMNS` does.
pub fn terminal_width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let told = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into());
    told.or_else(|| env::var("COLUMNS").ok()?.parse().ok()).filter(|&width| width > 0)
}

/// Whether standard output takes bold text: a terminal, and nobody set `$NO_COLOR` (no-color.org).
pub fn is_coloured() -> bool {
    io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const SOON: Duration = Duration::from_millis(1);

    #[test]
    fn a_stuck_reader_blocks_nothing() {
        let stop = Stop::new().expect("an event");
        let (mut reader, mut writer) = io::pipe().expect("a pipe");
        let text = "x".repeat(1 << 20);
        let mut asked = 0;
        let written = write(&mut writer, &text, &stop, SOON, || {
            asked += 1;
            Ok(asked < 3)
        });
        assert_eq!(written.expect("no error"), Written::Stopped);
        assert_eq!(asked, 3);
        stop.trigger();
        let written = write(&mut writer, "y", &stop, SOON, || Ok(true));
        assert_eq!(written.expect("no error"), Written::Stopped);
        drop(writer);
        let mut taken = String::new();
        reader.read_to_string(&mut taken).expect("read");
        assert!(!taken.is_empty() && taken.bytes().all(|b| b == b'x'));
    }

    #[test]
    fn a_closed_pipe_and_a_full_disk() {
        let stop = Stop::new().expect("an event");
        let (reader, mut writer) = io::pipe().expect("a pipe");
        drop(reader);
        let written = write(&mut writer, "x", &stop, SOON, || Ok(true));
        assert_eq!(written.expect("no error"), Written::Closed);
        let mut full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
        let error = write(&mut full, "x", &stop, SOON, || Ok(true)).expect_err("full");
        assert!(error.to_string().contains("standard output"), "{error:#}");
    }
}
