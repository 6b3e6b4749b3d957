//! Programs of the kernel's half that user space calls.

use crate::bpf::wire::Wire;
use anyhow::{Result, ensure};
use libbpf_rs::{ProgramMut, libbpf_sys};
use nix::errno::Errno;
use std::{
    ffi::c_void,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    ptr,
};

/// A loaded SYSCALL program. It outlives the skeleton that it is of, should it have to.
pub(crate) struct Program(OwnedFd);

impl Program {
    /// One that is loaded.
    pub fn of(program: &ProgramMut<'_>) -> Result<Self> {
        Ok(Self(program.as_fd().try_clone_to_owned()?))
    }

    /// Calls it. It takes a pointer to a `T`, and writes its answer there.
    pub fn call<T: Wire>(&self, call: &mut T) -> Result<()> {
        let mut options = libbpf_sys::bpf_test_run_opts {
            sz: size_of::<libbpf_sys::bpf_test_run_opts>() as u64,
            ctx_in: ptr::from_mut(call).cast::<c_void>(),
            ctx_size_in: size_of::<T>() as u32,
            ..Default::default()
        };
        // SAFETY: the descriptor is open, and `call` outlives the call; any bytes are a value of it.
        let code = unsafe {
            libbpf_sys::bpf_prog_test_run_opts(self.0.as_raw_fd(), ptr::from_mut(&mut options))
        };
        ensure!(code == 0, "{}", Errno::from_raw(-code));
        Ok(())
    }
}
