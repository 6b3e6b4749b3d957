//! The values of the running kernel's sched_ext enums. They differ from release to release.

use anyhow::{Context, Result};
use libbpf_rs::btf::{
    Btf, HasSize,
    types::{Enum, Enum64},
};
use std::collections::HashMap;

/// The enumerators of the kernel's `enum scx_*`, by name.
///
/// Read in one pass: looking up each by itself, as the common helpers do, searches all types of a
/// kernel older than 7.0 each time, and took most of the time of a start.
#[derive(Debug, Default)]
pub struct KernelEnums(HashMap<String, u64>);

impl KernelEnums {
    /// Those of the running kernel.
    ///
    /// # Errors
    /// When the kernel's type information cannot be read.
    pub fn read() -> Result<Self> {
        let btf = Btf::from_vmlinux().context("reading the kernel's type information")?;
        let mut values = HashMap::new();
        for list in btf.type_by_kind::<Enum<'_>>() {
            let Some(kind) = list.name().and_then(|n| n.to_str()).filter(|n| n.starts_with("scx_"))
            else {
                continue;
            };
            // Eight bytes in a type that holds the lower four only: old pahole. The common helpers
            // know the upper ones.
            let truncated = list.size() == 8;
            for member in list.iter() {
                let Some(name) = member.name.and_then(|name| name.to_str()) else { continue };
                let value = match truncated {
                    true => scx_utils::compat::read_enum(kind, name)?,
                    false => member.value as u64,
                };
                values.insert(name.to_owned(), value);
            }
        }
        for list in btf.type_by_kind::<Enum64<'_>>() {
            if !list.name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("scx_")) {
                continue;
            }
            for member in list.iter() {
                if let Some(name) = member.name.and_then(|name| name.to_str()) {
                    values.insert(name.to_owned(), member.value as u64);
                }
            }
        }
        Ok(Self(values))
    }

    /// The value of an enumerator; 0 if this kernel does not have it, which for a flag means that
    /// nothing is asked for.
    pub fn value(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf;

    #[test]
    fn absent_is_zero() {
        assert_eq!(KernelEnums::default().value("SCX_NO_SUCH_FLAG"), 0);
    }

    #[test]
    fn every_enumerator_is_asked_for_by_its_name() {
        let asked = std::cell::RefCell::new(Vec::new());
        // SAFETY: integers, booleans and arrays of them: zero is a value of each.
        let mut rodata: bpf::skel::types::rodata = unsafe { std::mem::zeroed() };
        bpf::enums::set(&mut rodata, |name| {
            asked.borrow_mut().push(name.to_owned());
            7
        });
        assert_eq!(rodata.__SCX_ENQ_PREEMPT, 7);
        assert!(asked.borrow().iter().any(|name| name == "SCX_DSQ_LOCAL_ON"));
    }
}
