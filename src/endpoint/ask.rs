//! The other end of the statistics socket: asking the running scheduler.

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// A scheduler that does not answer for so long is as good as gone.
const PATIENCE: Duration = Duration::from_secs(2);
/// An answer of 8192 CPUs is well below.
const ANSWER_MAX: u64 = 64 << 20;

/// A connection to the scheduler's socket.
pub struct Connection(BufReader<UnixStream>);

/// An answer, as far as it is looked at.
#[derive(Deserialize)]
struct Response {
    errno: i32,
    args: Args,
}

#[derive(Deserialize)]
struct Args {
    resp: Value,
}

impl Connection {
    /// To the socket at `path`.
    ///
    /// # Errors
    /// When nobody is there, or the user may not ask.
    pub fn open(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                anyhow!(
                    "no scheduler is running that could be asked at {}: start one, or say with --socket where it is",
                    path.display()
                )
            }
            _ => anyhow!("asking the scheduler at {}: {error}", path.display()),
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// When there is none in time, or a refusal. The connection is good for nothing more then.
    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        let request = format!("{request}\n");
        self.0.get_mut().write_all(request.as_bytes()).context("asking the scheduler")?;
        let mut line = String::new();
        let mut limited = self.0.by_ref().take(ANSWER_MAX);
        let n = limited.read_line(&mut line).context("reading the scheduler's answer")?;
        if n == 0 {
            bail!("the scheduler has closed the connection");
        }
        let response: Response =
            serde_json::from_str(&line).context("understanding the scheduler's answer")?;
        match (response.errno, response.args.resp) {
            (0, answer) => Ok(answer),
            (_, Value::String(why)) => bail!("the scheduler refuses: {why}"),
            (_, why) => bail!("the scheduler refuses: {why}"),
        }
    }
}
