//! What `scheduler explain` says, as lines of text. Who prints them escapes what controls a terminal.

use super::{
    Class, Rule,
    globs::{Kind, Pattern, Scratch},
};
use crate::{
    bpf::intf::{explained, task_sample},
    placed::why,
    stats::{
        tasks::{policy_name, rule_of},
        text,
    },
};
use std::collections::BTreeMap;

/// Tasks that are explained at once.
const TASKS_MAX: usize = 64;
/// Names of tasks that are listed of a rule.
const NAMES_MAX: usize = 5;

/// A task in the words of the kernel's half, and the rule that it has with its number.
pub struct Subject<'a> {
    /// What it is like.
    pub task: explained,
    /// Why.
    pub rule: Option<(usize, &'a Rule)>,
}

fn name(comm: &[std::ffi::c_char]) -> String {
    let bytes: Vec<u8> = comm.iter().map(|&c| c as u8).collect();
    String::from_utf8_lossy(text::until_nul(&bytes)).into_owned()
}

/// The numbers of the tasks that are asked about: all threads of a process by a number, or one thread, or those of a
/// name, which may be a glob. Not more than are explained at once, and how many there were.
///
/// # Errors
/// If there are none.
pub fn chosen(of: &str, tasks: &[task_sample]) -> Result<(Vec<i32>, usize), String> {
    let said = text::printable(of.as_bytes());
    let found: Vec<i32> = if let Ok(pid) = of.parse::<i32>() {
        let is_one = |task: &&task_sample| task.pid == pid || task.tgid == pid;
        tasks.iter().filter(is_one).map(|task| task.pid).collect()
    } else {
        let glob =
            Pattern::new(of, Kind::Name).map_err(|why| format!("'{said}' is no name: {why}"))?;
        let mut scratch = Scratch::default();
        let is_one = |task: &&task_sample| {
            glob.matches(text::until_nul(&task.comm.map(|c| c as u8)), &mut scratch)
        };
        tasks.iter().filter(is_one).map(|task| task.pid).collect()
    };
    if found.is_empty() {
        return Err(format!("there is no task '{said}'"));
    }
    let all = found.len();
    Ok((found.into_iter().take(TASKS_MAX).collect(), all))
}

/// What is said when there were more.
pub fn rest(told: usize, all: usize) -> Option<String> {
    (told < all).then(|| format!("and {} more", all - told))
}

fn ms(ns: u64) -> String {
    format!("{:.3} ms", ns as f64 / 1e6)
}

/// A task.
pub fn task(subject: &Subject<'_>) -> Vec<String> {
    let task = &subject.task;
    let class = Class::of_number(task.class);
    let mut lines =
        vec![format!("task {} of process {}: {}", task.pid, task.tgid, name(&task.comm))];
    lines.push(match subject.rule {
        Some((number, rule)) => format!("  rule {number} ({}): {rule}", rule.at),
        None => "  rule: none".to_owned(),
    });
    let by_policy = || format!("as its policy says ({})", policy_name(task.policy));
    // One that sleeps takes its rule over when it wakes.
    let ruled = subject.rule.and_then(|(_, rule)| rule.effect.class);
    let pending = match ruled.filter(|ruled| class != Some(*ruled)) {
        Some(ruled) => format!("; {} from its next run on", ruled.name()),
        None => String::new(),
    };
    let class = class.map_or_else(by_policy, |class| class.name().to_owned());
    lines.push(format!("  weight {} (nice {}), class {class}{pending}", task.weight, task.nice));
    if task.budget_ns > 0 {
        let on = if task.boosted != 0 { "on" } else { "off" };
        let left = match task.left_ns {
            0 => String::new(),
            left => format!(", expires in {:.0} s", left as f64 / 1e9),
        };
        let (used, budget) = (ms(task.used_ns), ms(task.budget_ns));
        let period = ms(task.period_ns);
        lines.push(format!("  boost {on}: {used} used of {budget} in each {period}{left}"));
    }
    lines.push(format!(
        "  slice up to {}; runs {} from wakeup to sleep on average, {} in all",
        ms(task.slice_ns),
        ms(task.burst_avg_ns),
        ms(task.run_ns)
    ));
    let lag = match task.lag_vns {
        lag if lag < 0 => format!("had {} more than its share", ms(lag.unsigned_abs())),
        lag => format!("is owed {}", ms(lag.unsigned_abs())),
    };
    let due = match task.due_vns {
        due if due < 0 => format!("was due {} ago", ms(due.unsigned_abs())),
        due => format!("is due in {}", ms(due.unsigned_abs())),
    };
    let early = match task.early_vns {
        0 => String::new(),
        early => format!(", {} earlier by its class", ms(early)),
    };
    lines.push(format!("  {lag}, {due} (virtual time){early}"));
    let cpu = match task.cpu {
        cpu if cpu < 0 => "never ran".to_owned(),
        cpu => format!("ran last on CPU {cpu}"),
    };
    lines.push(format!("  {cpu}: {}", why(task.placed)));
    lines
}

/// All rules in their order, each with the tasks that have it.
pub fn rules<'a>(rules: impl Iterator<Item = &'a Rule>, tasks: &[task_sample]) -> Vec<String> {
    let mut names: BTreeMap<usize, BTreeMap<String, usize>> = BTreeMap::new();
    for task in tasks {
        let of_rule = names.entry(rule_of(task)).or_default();
        *of_rule.entry(name(&task.comm)).or_default() += 1;
    }
    let told = |number: usize| {
        let Some(names) = names.get(&number) else { return "no task now".to_owned() };
        let mut most: Vec<_> = names.iter().collect();
        most.sort_by_key(|(name, nr)| (std::cmp::Reverse(**nr), (*name).clone()));
        let list = most.iter().take(NAMES_MAX).map(|(name, nr)| format!("{name} {nr}"));
        let list: Vec<_> = list.collect();
        let more = if most.len() > NAMES_MAX { ", …" } else { "" };
        let nr: usize = names.values().sum();
        let tasks = if nr == 1 { "task" } else { "tasks" };
        format!("{nr} {tasks}: {}{more}", list.join(", "))
    };
    let rows = (1..).zip(rules).flat_map(|(number, rule)| {
        [format!("rule {number} ({}): {rule}", rule.at), format!("  {}", told(number))]
    });
    rows.chain([format!("no rule: {}", told(0))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bpf::{intf, wire},
        rules::{Boost, made},
        stats::tasks::made as made_tasks,
    };

    fn ruled(pid: i32, name: &[u8], rule: u32) -> task_sample {
        task_sample { rule, ..made_tasks::task(pid, 0, 0, name) }
    }

    #[test]
    fn tasks_are_chosen_by_number_and_name() {
        let thread = task_sample { tgid: 7, ..ruled(9, b"worker", 0) };
        let tasks = [ruled(7, b"app", 0), thread, ruled(8, b"app\x1b", 0)];
        assert_eq!(chosen("7", &tasks), Ok((vec![7, 9], 2)));
        assert_eq!(chosen("9", &tasks), Ok((vec![9], 1)));
        assert_eq!(chosen("app", &tasks), Ok((vec![7], 1)));
        assert_eq!(chosen("app*", &tasks), Ok((vec![7, 8], 2)));
        for of in ["10", "ap", "\x1b", "[a"] {
            let error = chosen(of, &tasks).expect_err(of);
            assert!(!error.contains('\x1b'), "{error:?}");
        }
        let many: Vec<_> = (1..=100).map(|pid| ruled(pid, b"app", 0)).collect();
        let (pids, all) = chosen("app", &many).expect("there are");
        assert_eq!((pids.len(), all), (64, 100));
        assert_eq!(rest(64, 100).as_deref(), Some("and 36 more"));
        assert_eq!(rest(2, 2), None);
    }

    #[test]
    fn rules_are_told_with_their_tasks() {
        let all = [
            made::rule(made::named("a*"), Class::Batch),
            made::rule(made::named("b"), Class::Idle),
        ];
        // The second generation has the other half of the table.
        let tasks = [ruled(1, b"ab", 1), ruled(2, b"ab", 1025), ruled(3, b"x\x1b", 0)];
        let lines = rules(all.iter(), &tasks);
        assert_eq!(lines[0], "rule 1 (test): name = \"a*\", class = \"batch\"");
        assert_eq!(lines[1..4], ["  2 tasks: ab 2", &rule_2(), "  no task now"]);
        assert_eq!(lines[4], "no rule: 1 task: x\x1b 1");
    }

    fn rule_2() -> String {
        "rule 2 (test): name = \"b\", class = \"idle\"".to_owned()
    }

    #[test]
    fn a_task_is_told_with_all_that_counts() {
        let mut rule = made::rule(made::named("a"), Class::Latency);
        rule.effect.boost = Some(Boost { budget_percent: 25, period_ms: 100, expires_s: None });
        let mut explained: explained = wire::zero();
        (explained.pid, explained.tgid, explained.cpu) = (12, 10, 3);
        (explained.weight, explained.class, explained.boosted) = (2048, 1, 1);
        (explained.budget_ns, explained.period_ns, explained.used_ns) =
            (25_000_000, 100_000_000, 7_000);
        (explained.lag_vns, explained.due_vns, explained.early_vns) =
            (-1_500_000, 250_000, 3_000_000);
        (explained.slice_ns, explained.left_ns) = (3_000_000, 9_000_000_000);
        explained.placed = intf::placed_PLACED_PREEMPTS;
        let lines = task(&Subject { task: explained, rule: Some((4, &rule)) }).join("\n");
        for words in [
            "task 12 of process 10",
            "rule 4 (test): name = \"a\", class = \"latency\"",
            "weight 2048 (nice 0), class latency",
            "boost on: 0.007 ms used of 25.000 ms in each 100.000 ms, expires in 9 s",
            "slice up to 3.000 ms",
            "had 1.500 ms more than its share, is due in 0.250 ms (virtual time), 3.000 ms earlier",
            "ran last on CPU 3: it went in front of a running task",
        ] {
            assert!(lines.contains(words), "{words}\n{lines}");
        }
        explained.class = intf::task_class_CLASS_OWN;
        let lines = task(&Subject { task: explained, rule: Some((4, &rule)) }).join("\n");
        assert!(lines.contains("(normal); latency from its next run on"), "{lines}");
        (explained.class, explained.budget_ns, explained.policy) = (0, 0, 3);
        let lines = task(&Subject { task: explained, rule: None }).join("\n");
        assert!(lines.contains("rule: none") && lines.contains("(batch)"), "{lines}");
        assert!(!lines.contains("boost"), "{lines}");
    }
}
