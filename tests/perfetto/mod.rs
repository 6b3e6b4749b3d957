//! The traces of `simulate --perfetto` and of `record`, decoded by Perfetto's published schema.

use protobuf::{CodedInputStream, rt::WireType};
use std::collections::BTreeMap;

/// What a trace tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A CPU goes from one task to another.
    Switch { prev: Named, next: Named },
    /// A task is woken.
    Waking(Named),
    /// Something is said of a task beside that.
    Note { pid: i32, name: String, said: BTreeMap<String, Said> },
}

/// What is said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Number(i64),
    Words(String),
}

/// A task as a trace names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub pid: i32,
    pub comm: String,
}

/// One entry of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub at_ns: u64,
    pub cpu: u64,
    pub what: What,
}

/// The fields of a message: numbers, and bytes.
struct Message(Vec<(u32, u64, Vec<u8>)>);

impl Message {
    fn parse(bytes: &[u8]) -> Self {
        let mut input = CodedInputStream::from_bytes(bytes);
        let mut all = Vec::new();
        while let Some(tag) = input.read_raw_tag_or_eof().expect("a tag") {
            all.push(match WireType::new(tag & 7).expect("a wire type") {
                WireType::Varint => (tag >> 3, input.read_uint64().expect("a number"), Vec::new()),
                WireType::LengthDelimited => (tag >> 3, 0, input.read_bytes().expect("bytes")),
                other => panic!("{other:?} is not used"),
            });
        }
        Self(all)
    }

    fn number(&self, field: u32) -> u64 {
        self.0.iter().find(|(tag, ..)| *tag == field).expect("the field").1
    }

    fn bytes(&self, field: u32) -> Option<&[u8]> {
        self.all(field).next()
    }

    fn all(&self, field: u32) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(tag, ..)| *tag == field).map(|(.., bytes)| &bytes[..])
    }

    fn text(&self, field: u32) -> String {
        String::from_utf8(self.bytes(field).expect("a text").to_vec()).expect("UTF-8")
    }

    fn named(&self, comm: u32, pid: u32) -> Named {
        Named { pid: self.number(pid) as i32, comm: self.text(comm) }
    }
}

/// A `TrackEvent` on the track of one of these threads.
fn note(event: &Message, threads: &BTreeMap<u64, i32>) -> What {
    assert_eq!(event.number(9), 3, "TYPE_INSTANT");
    let said = event.all(4).map(|bytes| {
        let note = Message::parse(bytes);
        let said = match note.bytes(6) {
            Some(_) => Said::Words(note.text(6)),
            None => Said::Number(note.number(4) as i64),
        };
        (note.text(10), said)
    });
    What::Note { pid: threads[&event.number(11)], name: event.text(23), said: said.collect() }
}

/// All entries of a trace, in its order.
pub fn events(trace: &[u8]) -> Vec<Event> {
    let (mut events, mut threads) = (Vec::new(), BTreeMap::new());
    for (tag, _, packet) in Message::parse(trace).0 {
        assert_eq!(tag, 1, "TracePacket");
        let packet = Message::parse(&packet);
        assert_eq!(packet.number(10), 1, "trusted_packet_sequence_id");
        if let Some(track) = packet.bytes(60) {
            let track = Message::parse(track);
            let thread = Message::parse(track.bytes(4).expect("thread"));
            threads.insert(track.number(1), thread.number(2) as i32);
        } else if let Some(event) = packet.bytes(11) {
            let what = note(&Message::parse(event), &threads);
            events.push(Event { at_ns: packet.number(8), cpu: 0, what });
        } else {
            let bundle = Message::parse(packet.bytes(1).expect("ftrace_events"));
            let event = Message::parse(bundle.bytes(2).expect("event"));
            let what = match (event.bytes(4), event.bytes(20)) {
                (Some(switch), None) => {
                    let switch = Message::parse(switch);
                    What::Switch { prev: switch.named(1, 2), next: switch.named(5, 6) }
                }
                (None, Some(waking)) => What::Waking(Message::parse(waking).named(1, 2)),
                _ => panic!("neither sched_switch nor sched_waking"),
            };
            events.push(Event { at_ns: event.number(1), cpu: bundle.number(1), what });
        }
    }
    events
}
