//! Policies that nobody should write. This binary becomes one of them where `MISCHIEF` is set.

use clap::ValueEnum;
use scheduler::{
    policy::{Context, Decision, Policy, Task},
    units::{CpuId, Nanos, Pid, Vtime},
};
use std::{
    collections::VecDeque,
    env,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

/// What a policy can do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mischief {
    /// None: it is asked about every wakeup, and answers.
    None,
    /// Panics after a while.
    Panics,
    /// Does not return after a while.
    Loops,
    /// Never decides.
    DecidesNothing,
    /// Decides each task twice, for different CPUs.
    DecidesTwice,
    /// Decides about random tasks, on random CPUs, with random slices and orders.
    DecidesAtRandom,
    /// Decides a second after it was asked.
    DecidesLate,
    /// Sleeps for ten milliseconds every now and then.
    Naps,
    /// Was made for another version.
    OfAnotherVersion,
}

use Mischief::{
    DecidesAtRandom, DecidesLate, DecidesNothing, DecidesTwice, Loops, Naps, OfAnotherVersion,
    Panics,
};

impl Mischief {
    const VARIABLE: &str = "MISCHIEF";

    /// The command that runs the policy: this binary.
    pub fn command(self) -> anyhow::Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        command.env(Self::VARIABLE, format!("{self:?}"));
        Ok(command)
    }

    /// Runs the policy, if that is what this process was started for.
    pub fn act() -> Option<ExitCode> {
        let name = env::var(Self::VARIABLE).ok()?;
        let all = Self::value_variants();
        let mischief = *all.iter().find(|mischief| format!("{mischief:?}") == name)?;
        Some(scheduler::run(Bad {
            mischief,
            asked: 0,
            chance: fastrand::Rng::with_seed(4),
            held: VecDeque::new(),
        }))
    }
}

struct Bad {
    mischief: Mischief,
    asked: u64,
    /// The same sequence each time: what a case found can be found again.
    chance: fastrand::Rng,
    held: VecDeque<(Instant, Task)>,
}

/// So many tasks are decided well before the mischief begins.
const GOOD_FOR: u64 = 500;
const LATE: Duration = Duration::from_secs(1);

impl Policy for Bad {
    fn interface(&self) -> u32 {
        if self.mischief == OfAnotherVersion { 999 } else { scheduler::policy::INTERFACE }
    }

    fn takes_idle_cpus(&self) -> bool {
        self.mischief != Mischief::None
    }

    fn enqueue(&mut self, task: &Task, cx: &mut Context<'_>) {
        self.asked += 1;
        let any = Decision::any_cpu().vtime(task.vruntime);
        if self.asked < GOOD_FOR {
            return cx.decide(task, any);
        }
        match self.mischief {
            Panics => panic!("mischief managed"),
            Loops => loop {
                std::hint::black_box(0);
            },
            DecidesNothing => {}
            DecidesTwice => {
                cx.decide(task, any);
                cx.decide(task, Decision::on(CpuId((self.asked % 4) as u32)));
            }
            DecidesAtRandom => {
                let chance = &mut self.chance;
                for _ in 0..2 {
                    let mut other = task.clone();
                    if chance.bool() {
                        other.pid = Pid(chance.i32(..));
                    }
                    let mut decision = Decision::any_cpu();
                    if chance.bool() {
                        decision = Decision::on(CpuId(chance.u32(..) >> chance.u32(..32)));
                    }
                    let slice = Nanos(chance.u64(..) >> chance.u32(..64));
                    decision = decision.vtime(Vtime(chance.u64(..))).slice(slice);
                    cx.decide(&other, if chance.bool() { decision.preempt() } else { decision });
                }
            }
            DecidesLate => {
                self.held.push_back((Instant::now() + LATE, task.clone()));
            }
            Naps => {
                if self.asked.is_multiple_of(20) {
                    thread::sleep(Duration::from_millis(10));
                }
                cx.decide(task, any);
            }
            Mischief::None => cx.decide(task, any),
            OfAnotherVersion => {}
        }
    }

    fn tick_period(&self) -> Nanos {
        Nanos::from_millis(10)
    }

    fn tick(&mut self, cx: &mut Context<'_>) {
        while self.held.front().is_some_and(|(due, _)| *due <= Instant::now()) {
            if let Some((_, task)) = self.held.pop_front() {
                cx.decide(&task, Decision::any_cpu());
            }
        }
        // Not a busy loop while it is late.
        thread::yield_now();
    }
}
