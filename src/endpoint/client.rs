//! A client: requests in, answers out, never waited for.

use super::Samples;
use nix::poll::PollFlags;
use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// A longer request is refused, in bytes.
pub const REQUEST_MAX: usize = 8192;
/// From the first byte of a request to its last, and from an answer's first byte to its last.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A connection that never blocks.
pub trait Stream: Read + Write + AsFd {}
impl<T: Read + Write + AsFd> Stream for T {}

/// What is spoken on a connection.
pub trait Protocol {
    /// The length of the first request of `input`, if all of it is there.
    fn request_len(&self, input: &[u8]) -> Option<usize>;

    /// The answer to a request.
    fn answer(&mut self, request: &[u8], samples: &mut Samples<'_>) -> Answer;

    /// What is said to a request that is longer than [`REQUEST_MAX`]. Nothing more is heard then.
    fn too_long(&self) -> Vec<u8>;

    /// How long a client may say nothing between two requests, and before the first.
    fn silence_max(&self) -> Duration;

    /// Whether figures of tasks are to be kept for it.
    fn wants_tasks(&self) -> bool {
        false
    }
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Whether nothing more is heard after it.
    pub is_last: bool,
}

/// What is to be done with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It may stay.
    Stay,
    /// It has gone, or has to.
    Leave,
}

/// A client with what is under way.
pub struct Client {
    stream: Box<dyn Stream>,
    protocol: Box<dyn Protocol>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of `output` that the client has.
    written: usize,
    is_last: bool,
    heard_at: Instant,
    deadline: Instant,
}

impl Client {
    /// One that has just come. `stream` must not block.
    pub fn new(stream: impl Stream + 'static, protocol: impl Protocol + 'static) -> Self {
        let now = Instant::now();
        Self {
            deadline: now + protocol.silence_max(),
            stream: Box::new(stream),
            protocol: Box::new(protocol),
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            is_last: false,
            heard_at: now,
        }
    }

    /// When it last asked for something, or came.
    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// Whether figures of tasks are to be kept for it.
    pub fn wants_tasks(&self) -> bool {
        self.protocol.wants_tasks()
    }

    /// What is waited for: more of a request, or room for more of an answer.
    pub fn waits_for(&self) -> (BorrowedFd<'_>, PollFlags) {
        let what = if self.output.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        (self.stream.as_fd(), what)
    }

    /// For how long.
    pub fn time_left(&self, now: Instant) -> Duration {
        if self.output.is_empty() && self.protocol.request_len(&self.input).is_some() {
            return Duration::ZERO;
        }
        self.deadline.saturating_duration_since(now)
    }

    /// Goes on with it as far as it goes without waiting, and answers one request at most: other clients have their
    /// turn, too.
    pub fn turn(&mut self, now: Instant, samples: &mut Samples<'_>) -> Next {
        match self.go_on(now, samples) {
            Ok(Next::Stay) if now < self.deadline => Next::Stay,
            // An error is one of the connection: nobody is there to be told.
            _ => Next::Leave,
        }
    }

    fn go_on(&mut self, now: Instant, samples: &mut Samples<'_>) -> io::Result<Next> {
        if !self.flush(now)? {
            return Ok(Next::Stay);
        }
        if self.is_last {
            return Ok(Next::Leave);
        }
        let is_open = self.fill(now)?;
        if let Some(len) = self.protocol.request_len(&self.input) {
            let request: Vec<u8> = self.input.drain(..len).collect();
            let answer = self.protocol.answer(&request, samples);
            self.heard_at = now;
            self.say(answer, now);
        } else if self.input.len() >= REQUEST_MAX {
            self.input = Vec::new();
            self.say(Answer { bytes: self.protocol.too_long(), is_last: true }, now);
        } else if !is_open {
            return Ok(Next::Leave);
        } else {
            return Ok(Next::Stay);
        }
        let is_whole = self.flush(now)?;
        Ok(if is_whole && self.is_last { Next::Leave } else { Next::Stay })
    }

    fn say(&mut self, answer: Answer, now: Instant) {
        self.output = answer.bytes;
        self.written = 0;
        self.is_last = answer.is_last;
        self.deadline = now + PATIENCE;
    }

    /// Writes what the client takes. True if that is all there is.
    fn flush(&mut self, now: Instant) -> io::Result<bool> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.written += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if !self.output.is_empty() {
            self.output = Vec::new();
            let next = if self.input.is_empty() { self.protocol.silence_max() } else { PATIENCE };
            self.deadline = now + next;
        }
        Ok(true)
    }

    /// Reads what the client has sent, as far as there is room. False if it will send no more.
    fn fill(&mut self, now: Instant) -> io::Result<bool> {
        let mut chunk = [0; REQUEST_MAX];
        while self.input.len() < REQUEST_MAX {
            let room = REQUEST_MAX - self.input.len();
            match self.stream.read(&mut chunk[..room]) {
                Ok(0) => return Ok(false),
                Ok(n) => {
                    if self.input.is_empty() {
                        self.deadline = now + PATIENCE;
                    }
                    self.input.extend_from_slice(&chunk[..n]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}
