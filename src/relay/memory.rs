//! The policy's memory stays in memory: a page fault would wait for tasks that wait for the policy.

use crate::exit::{Exit, Failure};
use nix::sys::{
    mman::{MlockAllFlags, mlockall},
    resource::{Resource, getrlimit},
};

/// Locks all memory of this process, that of now and that of later.
///
/// # Errors
/// [`Exit::NotPermitted`], with the limit and the capability that would allow it.
pub fn lock_memory() -> Result<(), Failure> {
    let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE) else {
        return Ok(());
    };
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(soft, _)| soft);
    Err(Failure::new(
        Exit::NotPermitted,
        format!(
            "cannot lock the memory of the policy ({error}): the limit RLIMIT_MEMLOCK is {limit} bytes; raise it \
             (ulimit -l unlimited, or LimitMEMLOCK=infinity in a unit) or add the capability CAP_IPC_LOCK"
        ),
    ))
}
