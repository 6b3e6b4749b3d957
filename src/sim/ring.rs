//! The ring of events to a policy in user space: `kernel/bpf/ringbuf.c`, as far as it can be told from outside.

use std::collections::VecDeque;

/// What the kernel keeps in front of a record.
const HEADER_BYTES: u64 = 8;

/// A ring that one program at a time writes to.
#[derive(Debug, Default)]
pub struct Ring {
    /// Size, a power of two; 0: there is no ring.
    size: u64,
    used: u64,
    reserved: Option<(u64, Box<[u64]>)>,
    records: VecDeque<(u64, Box<[u64]>)>,
}

impl Ring {
    /// An empty one of that many bytes.
    pub fn new(size: u64) -> Self {
        Self { size, ..Self::default() }
    }

    fn room_for(bytes: u64) -> u64 {
        (bytes + HEADER_BYTES).next_multiple_of(8)
    }

    /// `bpf_ringbuf_reserve()`: a place for a record, which stays where it is until it is submitted. None without room, or
    /// while another one is open.
    pub fn reserve(&mut self, bytes: u64) -> Option<*mut u64> {
        let room = Self::room_for(bytes);
        if self.reserved.is_some() || self.used + room >= self.size {
            return None;
        }
        self.used += room;
        let (_, words) =
            self.reserved.insert((bytes, vec![0; bytes.div_ceil(8) as usize].into_boxed_slice()));
        Some(words.as_mut_ptr())
    }

    /// `bpf_ringbuf_submit()` of what was reserved last.
    pub fn submit(&mut self) {
        self.records.extend(self.reserved.take());
    }

    /// `BPF_RB_AVAIL_DATA`: bytes that the consumer has not had.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// `BPF_RB_RING_SIZE`.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether nothing is there to be read.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The bytes of the oldest record, which makes room.
    pub fn consume(&mut self) -> Option<Vec<u8>> {
        let (bytes, words) = self.records.pop_front()?;
        self.used -= Self::room_for(bytes);
        let mut record: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        record.truncate(bytes as usize);
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_in_first_out_while_there_is_room() {
        let mut ring = Ring::new(96);
        for number in 1..=2u64 {
            let at = ring.reserve(20).expect("room");
            // SAFETY: the record that was reserved, which has three words.
            unsafe { at.write(number) };
            assert!(ring.reserve(20).is_none(), "one at a time");
            ring.submit();
        }
        // Each of them takes 32, and as in the kernel the last byte is never used.
        assert_eq!((ring.used(), ring.reserve(20)), (64, None));
        assert_eq!(ring.consume().map(|record| (record.len(), record[0])), Some((20, 1)));
        assert!(ring.reserve(20).is_some());
        assert_eq!(ring.consume().map(|record| record[0]), Some(2));
        assert!(ring.is_empty(), "not submitted");
    }
}
