//! A trace for ui.perfetto.dev and trace_processor: what runs where, as the kernel's own events tell of it, and notes beside
//! that on the tracks of threads.
//!
//! Field numbers are those of Perfetto's published `TracePacket`, `FtraceEventBundle`, `FtraceEvent`,
//! `SchedSwitchFtraceEvent`, `SchedWakingFtraceEvent`, `TrackDescriptor`, `ThreadDescriptor`, `TrackEvent` and
//! `DebugAnnotation`. Protobuf's wire format needs a few lines here; a crate for it none fewer.

use anyhow::{Context, Result};
use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufWriter, Write},
};

/// A task as a trace names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its group and number.
    pub comm: String,
    /// 0 for an idle CPU.
    pub pid: i32,
    /// As in `task_struct`: 120 is nice 0.
    pub prio: i32,
}

/// What a note says beside its name.
#[derive(Debug, Clone, Copy)]
pub enum Said<'a> {
    /// A number.
    Number(i64),
    /// Words.
    Words(&'a str),
}

/// `TrackEvent.Type`.
const TYPE_INSTANT: i64 = 3;

/// Threads whose tracks are known to have been named; beyond that all are named again, so that a long trace of many
/// takes no more memory than this.
const NAMED_MAX: usize = 1 << 16;

/// A trace that is being written.
#[derive(Debug)]
pub struct Trace {
    out: BufWriter<File>,
    error: Option<io::Error>,
    named: HashSet<i32>,
}

impl Trace {
    /// Begins a trace in a file.
    pub fn on(file: File) -> Self {
        Self { out: BufWriter::new(file), error: None, named: HashSet::new() }
    }

    /// Whether something could not be written. What comes then is dropped.
    pub fn is_broken(&self) -> bool {
        self.error.is_some()
    }

    /// A note on the track of a thread of a process, at an instant.
    pub fn note(
        &mut self,
        now: u64,
        (tgid, pid): (i32, i32),
        name: &str,
        said: &[(&str, Said<'_>)],
    ) {
        // Of a thread for as long as the trace.
        let track = i64::from(pid) + 1;
        if self.named.len() >= NAMED_MAX {
            self.named.clear();
        }
        if self.named.insert(pid) {
            let (mut thread, mut track_is) = (Message::default(), Message::default());
            thread.int(1, tgid.into()).int(2, pid.into());
            track_is.int(1, track).message(4, &thread);
            let mut packet = Message::default();
            self.packet(packet.message(60, &track_is));
        }
        let mut event = Message::default();
        for (name, value) in said {
            let mut note = Message::default();
            match value {
                Said::Number(number) => note.int(4, *number),
                Said::Words(words) => note.text(6, words),
            };
            event.message(4, note.text(10, name));
        }
        event.int(9, TYPE_INSTANT).int(11, track).text(22, "scheduler").text(23, name);
        let mut packet = Message::default();
        self.packet(packet.int(8, now as i64).message(11, &event));
    }

    /// `sched_switch`: a CPU goes from one task to another. `state` is that of the first, `TASK_*`.
    pub fn switch(&mut self, cpu: u32, now: u64, prev: &Named, state: u32, next: &Named) {
        let mut switch = Message::default();
        switch.text(1, &prev.comm).int(2, prev.pid.into()).int(3, prev.prio.into());
        switch.int(4, state.into());
        switch.text(5, &next.comm).int(6, next.pid.into()).int(7, next.prio.into());
        self.event(cpu, now, prev.pid, 4, &switch);
    }

    /// `sched_waking`, by what runs on a CPU.
    pub fn waking(&mut self, cpu: u32, now: u64, by: i32, task: &Named, target: u32) {
        let mut waking = Message::default();
        waking.text(1, &task.comm).int(2, task.pid.into()).int(3, task.prio.into());
        waking.int(4, 1).int(5, target.into());
        self.event(cpu, now, by, 20, &waking);
    }

    fn event(&mut self, cpu: u32, now: u64, pid: i32, field: u32, what: &Message) {
        let (mut event, mut bundle) = (Message::default(), Message::default());
        event.int(1, now as i64).int(2, pid.into()).message(field, what);
        bundle.int(1, cpu.into()).message(2, &event);
        let mut packet = Message::default();
        self.packet(packet.message(1, &bundle));
    }

    fn packet(&mut self, packet: &mut Message) {
        let mut trace = Message::default();
        // Packets of one writer, in their order.
        trace.message(1, packet.int(10, 1));
        if self.error.is_none() {
            self.error = self.out.write_all(&trace.0).err();
        }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// When anything could not be written.
    pub fn finish(mut self) -> Result<()> {
        let written = self.error.take().map_or_else(|| self.out.flush(), Err);
        written.context("writing the trace")
    }
}

/// A message of protocol buffers, as its bytes.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn int(&mut self, field: u32, value: i64) -> &mut Self {
        self.varint(u64::from(field) << 3);
        self.varint(value as u64);
        self
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) -> &mut Self {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, field: u32, text: &str) -> &mut Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(&mut self, field: u32, message: &Self) -> &mut Self {
        self.bytes(field, &message.0)
    }
}
