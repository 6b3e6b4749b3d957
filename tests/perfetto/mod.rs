//! The traces of `--perfetto`, decoded by Perfetto's published schema.

use protobuf::{CodedInputStream, rt::WireType};

/// What a trace tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A CPU goes from one task to another.
    Switch { prev: Named, next: Named },
    /// A task is woken.
    Waking(Named),
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
        self.0.iter().find(|(tag, ..)| *tag == field).map(|(.., bytes)| &bytes[..])
    }

    fn named(&self, comm: u32, pid: u32) -> Named {
        let text = self.bytes(comm).expect("a name").to_vec();
        Named { pid: self.number(pid) as i32, comm: String::from_utf8(text).expect("UTF-8") }
    }
}

/// All entries of a trace, in its order.
pub fn events(trace: &[u8]) -> Vec<Event> {
    let packets = Message::parse(trace).0.into_iter();
    packets
        .map(|(tag, _, packet)| {
            assert_eq!(tag, 1, "TracePacket");
            let packet = Message::parse(&packet);
            assert_eq!(packet.number(10), 1, "trusted_packet_sequence_id");
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
            Event { at_ns: event.number(1), cpu: bundle.number(1), what }
        })
        .collect()
}
