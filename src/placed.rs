//! Why a task went where it went, in words: `enum placed` of the kernel's half.

use crate::bpf::intf;

/// What a reader of `explain` or of a recording is told.
pub fn why(placed: intf::placed) -> &'static str {
    match placed {
        intf::placed_PLACED_IDLE => "an idle CPU was there for it",
        intf::placed_PLACED_PREFERRED => "an idle CPU that its rule prefers was there for it",
        intf::placed_PLACED_PREEMPTS => "it went in front of a running task that was due later",
        intf::placed_PLACED_KTHREAD => "a kernel thread of this CPU goes straight there",
        intf::placed_PLACED_READER => "it reads under RCU, and went before all others",
        intf::placed_PLACED_SPREAD => "its core was shared, and a whole one idle",
        intf::placed_PLACED_OFFERED => "the policy in user space was to say",
        intf::placed_PLACED_BOUND => {
            "it may run on no other, and waited for its deadline to be first"
        }
        intf::placed_PLACED_QUEUED => {
            "no CPU was idle; it waited for a CPU of the LLC, until its deadline was first"
        }
        _ => "it has not been runnable under this scheduler",
    }
}
