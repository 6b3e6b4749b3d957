//! Masks of CPUs in memory that the simulated kernel's half reads, too.

use super::abi;
use crate::units::CpuId;
use std::{cell::Cell, iter, ptr::NonNull, slice};

/// A mask of its own, at an address that stays.
pub struct Mask(NonNull<[Cell<u64>]>);

impl Mask {
    /// An empty mask with room for `nr_cpus`.
    pub fn new(nr_cpus: usize) -> Self {
        let words: Box<[Cell<u64>]> = vec![Cell::new(0); nr_cpus.div_ceil(64)].into();
        Self(NonNull::from(Box::leak(words)))
    }

    /// A mask of these CPUs.
    pub fn of(nr_cpus: usize, cpus: impl IntoIterator<Item = CpuId>) -> Self {
        let mask = Self::new(nr_cpus);
        cpus.into_iter().for_each(|cpu| mask.bits().set(cpu.0));
        mask
    }

    /// What it holds.
    pub fn bits(&self) -> Bits<'_> {
        // SAFETY: allocated by new() and freed by drop() only; all access is through cells.
        Bits(unsafe { self.0.as_ref() })
    }

    /// As the kernel's half takes it.
    pub fn as_ptr(&self) -> *mut abi::cpumask {
        self.0.as_ptr().cast()
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        // SAFETY: it came from a box, in new(), and nobody else frees it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The bits of a mask.
#[derive(Clone, Copy)]
pub struct Bits<'a>(&'a [Cell<u64>]);

impl Bits<'_> {
    /// Those behind a pointer of the kernel's half.
    ///
    /// # Safety
    /// `mask` is one of this machine's masks, each of which has room for `nr_cpus`, and lives for `'a`.
    pub unsafe fn at(mask: *const abi::cpumask, nr_cpus: usize) -> Self {
        // SAFETY: by the caller; cells, because C code may write to it at any other time.
        Self(unsafe { slice::from_raw_parts(mask.cast(), nr_cpus.div_ceil(64)) })
    }

    /// Whether a CPU is in it.
    pub fn has(self, cpu: u32) -> bool {
        self.0.get(cpu as usize / 64).is_some_and(|word| word.get() >> (cpu % 64) & 1 == 1)
    }

    /// Adds a CPU.
    pub fn set(self, cpu: u32) {
        let word = &self.0[cpu as usize / 64];
        word.set(word.get() | 1 << (cpu % 64));
    }

    /// Takes a CPU out. True if it was in.
    pub fn clear(self, cpu: u32) -> bool {
        let had = self.has(cpu);
        if had {
            let word = &self.0[cpu as usize / 64];
            word.set(word.get() & !(1 << (cpu % 64)));
        }
        had
    }

    /// How many CPUs it has.
    pub fn count(self) -> u32 {
        self.0.iter().map(|word| word.get().count_ones()).sum()
    }

    /// The CPUs that are in both masks.
    pub fn both(self, other: Self) -> impl Iterator<Item = u32> {
        let words = self.0.iter().zip(other.0).map(|(a, b)| a.get() & b.get());
        words.zip(0..).flat_map(|(mut left, i)| {
            iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(i * 64 + bit)
            })
        })
    }

    /// The first CPU that is in both masks, from `from` on and around.
    pub fn next_and(self, other: Self, from: u32) -> Option<u32> {
        let words = self.0.len();
        let start = (from as usize / 64).min(words.saturating_sub(1));
        let both = |i: usize| self.0[i].get() & other.0[i].get();
        let below = (1u64 << (from % 64)) - 1;
        (0..=words).find_map(|step| {
            let i = (start + step) % words;
            let word = match step {
                0 => both(i) & !below,
                _ if step == words => both(i) & below,
                _ => both(i),
            };
            (word != 0).then(|| i as u32 * 64 + word.trailing_zeros())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_goes_around() {
        let all = Mask::of(130, (0..130).map(CpuId));
        let some = Mask::of(130, [3, 64, 129].map(CpuId));
        let next = |from| some.bits().next_and(all.bits(), from);
        assert_eq!([0, 3, 4, 64, 65, 129].map(next), [3, 3, 64, 64, 129, 129].map(Some));
        assert!(some.bits().clear(129));
        assert!(!some.bits().clear(129));
        assert_eq!(next(65), Some(3));
        assert_eq!(some.bits().both(all.bits()).collect::<Vec<_>>(), [3, 64]);
        assert_eq!(Mask::new(130).bits().next_and(all.bits(), 7), None);
        assert_eq!(
            (some.bits().count(), some.bits().has(3), some.bits().has(129)),
            (2, true, false)
        );
    }
}
