//! Values of `intf.h` as the bytes that map system calls take and give.

use super::intf::{
    cpu_ctx, cpu_set, cpu_stats, cpu_topo, decision, described, effect, event, explained, llc_ctx,
    llc_topo, relay, relay_call, rule_call, task_key, task_sample, traced, waits,
};
use std::{
    marker::PhantomData,
    ptr::{self, NonNull},
    slice,
};

/// A type of `intf.h` that is nothing but its bytes.
///
/// # Safety
/// Only for types made of integers without padding, for which any bytes are a value.
pub unsafe trait Wire: Copy {}

// SAFETY: integers of fixed size only, no implicit padding: the rule of intf.h.
unsafe impl Wire for cpu_topo {}
// SAFETY: as above.
unsafe impl Wire for llc_topo {}
// SAFETY: as above.
unsafe impl Wire for cpu_ctx {}
// SAFETY: as above.
unsafe impl Wire for llc_ctx {}
// SAFETY: as above.
unsafe impl Wire for cpu_stats {}
// SAFETY: as above.
unsafe impl Wire for task_sample {}
// SAFETY: as above.
unsafe impl Wire for waits {}
// SAFETY: as above; what follows an event in the ring is no part of it.
unsafe impl Wire for event {}
// SAFETY: as above.
unsafe impl Wire for decision {}
// SAFETY: as above.
unsafe impl Wire for relay_call {}
// SAFETY: as above.
unsafe impl Wire for relay {}
// SAFETY: as above.
unsafe impl Wire for effect {}
// SAFETY: as above.
unsafe impl Wire for cpu_set {}
// SAFETY: as above.
unsafe impl Wire for task_key {}
// SAFETY: as above.
unsafe impl Wire for described {}
// SAFETY: as above.
unsafe impl Wire for rule_call {}
// SAFETY: as above.
unsafe impl Wire for explained {}
// SAFETY: as above.
unsafe impl Wire for traced {}

/// The bytes of a value.
pub fn bytes<T: Wire>(value: &T) -> &[u8] {
    // SAFETY: a Wire type has no padding, so each of its bytes is initialized.
    unsafe { slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The value whose bytes are all zero.
pub fn zero<T: Wire>() -> T {
    // SAFETY: any bytes are a value of a Wire type.
    unsafe { std::mem::zeroed() }
}

/// The value at the start of `bytes`; none if they are too few.
pub fn value<T: Wire>(bytes: &[u8]) -> Option<T> {
    // SAFETY: there are enough bytes, and any bytes are a value of a Wire type.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// The elements of an array map in memory that the kernel's half has at the same time. All access is by copies.
pub struct Elements<T: Wire> {
    at: NonNull<T>,
    elements: usize,
    _of: PhantomData<T>,
}

// SAFETY: memory like any other, and only copies of it are given away.
unsafe impl<T: Wire> Send for Elements<T> {}

impl<T: Wire> Elements<T> {
    /// An element takes a multiple of this many bytes.
    const ALIGN: usize = 8;

    /// The bytes from one element to the next.
    pub const STRIDE: usize = size_of::<T>().next_multiple_of(Self::ALIGN);

    /// # Safety
    /// There are that many elements at that place, aligned, and they stay there for as long as this is used. Nobody has a
    /// reference to them.
    pub unsafe fn new(at: NonNull<T>, elements: usize) -> Self {
        Self { at, elements, _of: PhantomData }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.elements
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.elements == 0
    }

    fn element(&self, index: usize) -> *mut T {
        assert!(index < self.elements, "element {index} of {}", self.elements);
        // SAFETY: one of those that new() was promised.
        unsafe { self.at.as_ptr().byte_add(index * Self::STRIDE) }
    }

    /// An element of this instant.
    pub fn read(&self, index: usize) -> T {
        // SAFETY: there is one, and any bytes are a value of a Wire type.
        unsafe { ptr::read_volatile(self.element(index)) }
    }

    /// Writes an element. Only where the memory may be written to.
    pub fn write(&mut self, index: usize, value: T) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(self.element(index), value) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let topo = cpu_topo { llc: 1, node: 2, sibling: 3, in_llc: 4, part: 5, present: 1 };
        let back: cpu_topo = value(bytes(&topo)).expect("enough bytes");
        assert_eq!((back.llc, back.node, back.sibling, back.present), (1, 2, 3, 1));
        assert!(value::<cpu_topo>(&[0; 23]).is_none());
    }
}
