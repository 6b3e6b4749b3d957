//! What a policy knows of a task.

use crate::{
    bpf::intf::event,
    stats::text,
    units::{CpuId, Nanos, Pid, Vtime, Weight},
};
use smallvec::SmallVec;
use std::fmt;

/// A set of CPUs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuSet(SmallVec<[u64; 4]>);

impl CpuSet {
    /// From words of 64 CPUs each, the lowest first.
    pub fn from_words(words: impl IntoIterator<Item = u64>) -> Self {
        Self(words.into_iter().collect())
    }

    /// Whether the CPU is one of them.
    pub fn contains(&self, cpu: CpuId) -> bool {
        self.0.get(cpu.index() / 64).is_some_and(|word| word & (1 << (cpu.index() % 64)) != 0)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = CpuId> {
        self.0.iter().zip(0u32..).flat_map(|(&word, i)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| CpuId(i * 64 + bit))
        })
    }
}

/// ```
/// use scheduler::{policy::CpuSet, units::CpuId};
/// let set: CpuSet = [1, 64].map(CpuId).into_iter().collect();
/// assert!(set.contains(CpuId(64)) && !set.contains(CpuId(2)) && set.len() == 2);
/// ```
impl FromIterator<CpuId> for CpuSet {
    fn from_iter<I: IntoIterator<Item = CpuId>>(cpus: I) -> Self {
        let mut set = Self::default();
        for cpu in cpus {
            let word = cpu.index() / 64;
            if set.0.len() <= word {
                set.0.resize(word + 1, 0);
            }
            set.0[word] |= 1 << (cpu.index() % 64);
        }
        set
    }
}

/// The name of a task: up to 15 bytes that the task itself chose.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Comm([u8; 16]);

impl Comm {
    /// From bytes; what is too long is cut off, as the kernel does.
    ///
    /// ```
    /// # use scheduler::policy::Comm;
    /// assert_eq!(Comm::new("a name that is too long").as_bytes(), b"a name that is ");
    /// assert!(Comm::new("make") == "make");
    /// ```
    pub fn new(name: impl AsRef<[u8]>) -> Self {
        let mut bytes = [0; 16];
        for (to, from) in bytes[..15].iter_mut().zip(name.as_ref()) {
            *to = *from;
        }
        Self(bytes)
    }

    /// The bytes, without the end.
    pub fn as_bytes(&self) -> &[u8] {
        text::until_nul(&self.0)
    }
}

impl PartialEq<str> for Comm {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Comm {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

/// Printable: what could control a terminal is escaped.
impl fmt::Display for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::printable(self.as_bytes()))
    }
}

impl fmt::Debug for Comm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// A task (a thread), as it was when it was enqueued.
///
/// Instants are of the clock of [`Context::now`](super::Context::now).
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its number.
    pub pid: Pid,
    /// The number of its process.
    pub tgid: Pid,
    /// Its name, as it calls itself: any bytes.
    pub comm: Comm,
    /// The CPU that it ran on last; none if it never ran.
    pub cpu: Option<CpuId>,
    /// Where it may run.
    pub cpus: CpuSet,
    /// Its load weight: 1024 for nice 0, a factor of 1.25 for each nice level.
    pub weight: Weight,
    /// Its nice level, -20 to 19.
    pub nice: i32,
    /// Its scheduling policy, `SCHED_*`: 0 normal, 3 batch, 5 idle, 7 ext.
    pub policy: u32,
    /// The id of its cgroup: the inode number of its directory. 0 if the kernel does not say.
    pub cgroup: u64,
    /// Why it was enqueued: the kernel's `SCX_ENQ_*`.
    pub enq_flags: u64,
    /// When it was enqueued.
    pub enqueued_at: Nanos,
    /// When its last run began; 0 if it never ran.
    pub started_at: Nanos,
    /// When its last run ended.
    pub stopped_at: Nanos,
    /// How long it has run since it last slept.
    pub run_since_sleep: Nanos,
    /// How often it gave up its CPU to sleep, ever.
    pub voluntary_switches: u64,
    /// How often its CPU was taken from it, ever.
    pub involuntary_switches: u64,
    /// Its virtual run time: grows by what it runs, the more slowly the more weight it has. A task that slept is put no
    /// further back than 3 ms, so the lowest of those that wait is the one that is owed most.
    pub vruntime: Vtime,
    /// Which of its enqueueings this is: a decision is about one of them.
    pub offer: u32,
}

/// `SCX_ENQ_WAKEUP`: the same in all kernels.
const ENQ_WAKEUP: u64 = 1;

impl Task {
    /// Whether it was enqueued because it woke up, not because its slice ended.
    pub fn woke_up(&self) -> bool {
        self.enq_flags & ENQ_WAKEUP != 0
    }

    /// From an event of the kernel's half and the words of its mask.
    pub(crate) fn from_event(event: &event, mask: impl IntoIterator<Item = u64>) -> Self {
        Self {
            pid: Pid(event.pid),
            tgid: Pid(event.tgid),
            comm: Comm(event.comm.map(|c| c as u8)),
            cpu: u32::try_from(event.cpu).ok().map(CpuId),
            cpus: CpuSet::from_words(mask),
            weight: Weight(event.weight),
            nice: event.nice,
            policy: event.policy,
            cgroup: event.cgroup,
            enq_flags: event.enq_flags,
            enqueued_at: Nanos(event.told_at),
            started_at: Nanos(event.started_at),
            stopped_at: Nanos(event.stopped_at),
            run_since_sleep: Nanos(event.burst_ns),
            voluntary_switches: event.nvcsw,
            involuntary_switches: event.nivcsw,
            vruntime: Vtime(event.vruntime_vns),
            offer: event.offer,
        }
    }
}
