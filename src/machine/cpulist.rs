//! CPU lists as the kernel prints them: `0-3,8,10-11`.

use crate::units::CpuId;

/// Parses a list; ascending, without doubles. What is not a list of CPUs below `limit` is left
/// out: an offline CPU has empty files, and these lists only ever guide placement.
pub fn parse(text: &str, limit: usize) -> Vec<CpuId> {
    // By CPU, not by range: a text may name the same ones over and over.
    let mut has = vec![false; limit];
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else { continue };
        let end = (last as usize).saturating_add(1).min(limit);
        if let Some(cpus) = has.get_mut(first as usize..end) {
            cpus.fill(true);
        }
    }
    (0..).zip(has).filter(|(_, has)| *has).map(|(cpu, _)| CpuId(cpu)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<u32> {
        parse(text, 64).into_iter().map(|cpu| cpu.0).collect()
    }

    #[test]
    fn lists_and_what_is_none() {
        assert_eq!(ids("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(ids("5"), [5]);
        assert_eq!(ids("3,1,3"), [1, 3]);
        for nothing in ["", "\n", "x", "3-1", "-", "99", "4294967295-"] {
            assert!(ids(nothing).is_empty(), "{nothing:?}");
        }
        assert_eq!(ids("62-4294967295"), [62, 63]);
    }
}
