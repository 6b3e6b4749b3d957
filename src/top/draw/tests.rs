//! What is on the screen, to the character.

use super::*;
use crate::{
    stats::{
        demo::Demo,
        interval::Interval,
        tasks::{TaskTracker, made},
    },
    top::feed::{self, Origin},
};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// A display of a made-up machine after three seconds.
fn app(nr_cpus: u32) -> App {
    let mut app = App::new(false);
    let mut demo = Demo::new(nr_cpus);
    let mut tasks = TaskTracker::default();
    let mut before = demo.sample();
    for s in 0..3 {
        demo.advance(SECOND);
        let now = demo.sample();
        let rows = tasks.busiest(demo.tasks(), SECOND, 1000);
        let mut interval = Interval::between(&before, &now, rows);
        interval.rules = tasks.rules(Demo::rules(), SECOND);
        interval.time = f64::from(s);
        before = now;
        app.take(feed::Frame { origin: Origin::Scheduler, interval });
    }
    app
}

fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal.draw(|frame| draw(app, frame)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let cell = |x, y| buffer[(x, y)].symbol().to_owned();
    let line = |y| (0..width).map(|x| cell(x, y)).collect::<String>();
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn press(app: &mut App, keys: &str) {
    for c in keys.chars() {
        let code = if c == '\n' { KeyCode::Enter } else { KeyCode::Char(c) };
        app.key(KeyEvent::new(code, KeyModifiers::NONE));
    }
}

#[track_caller]
fn assert_line(lines: &[String], start: &str, rest: &str) {
    let is_it = |line: &&String| line.trim_start().starts_with(start) && line.contains(rest);
    assert!(lines.iter().any(|l| is_it(&l)), "{start}...{rest}:\n{}", lines.join("\n"));
}

#[test]
fn cpus_of_a_small_machine() {
    let lines = screen(&mut app(4), 80, 24);
    assert!(lines[0].starts_with("scheduler top  1 CPUs  2 Tasks  3 Latency  4 Events  5 Rules"));
    assert!(lines[1].starts_with("00:00:02Z  4 CPUs  busy "), "{}", lines[1]);
    assert!(lines[2].starts_with("node 0  LLC 0  busy "), "{}", lines[2]);
    // All four in one row; threads of a core beside each other.
    assert!(lines[3].starts_with("  0 ") && lines[3].contains(" + 1 "), "{}", lines[3]);
    assert!(lines[3].contains("   2 ") && lines[3].contains("+ 3 "), "{}", lines[3]);
    assert_eq!(lines[3].matches('%').count(), 4);
    assert!(lines[23].starts_with("q quit  h help"), "{}", lines[23]);
}

#[test]
fn rules_and_what_they_matched() {
    let mut app = app(8);
    press(&mut app, "5");
    let lines = screen(&mut app, 80, 24);
    assert_eq!(lines[2], " no.  tasks  busy%  rule");
    assert_line(&lines, "1      2", "name = \"pipewire\", class = \"latency\"");
    assert_line(&lines, "3      0    0.0", "class = \"idle\"");
    let frame = app.frame.as_mut().expect("a frame");
    frame.interval.rules[0].text = "\x1b[31m".into();
    assert_line(&screen(&mut app, 80, 24), "1      2", "\\x1b[31m");
    app.frame.as_mut().expect("a frame").interval.rules.clear();
    assert_line(&screen(&mut app, 80, 24), "there are none", "[[rule]]");
}

#[test]
fn every_cpu_of_a_large_machine_can_be_reached() {
    let mut app = app(512);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let lines = screen(&mut app, 80, 24);
        for line in lines[2..23].iter().filter(|line| !line.starts_with("node")) {
            for word in line.replace('+', " ").split('%') {
                let words: Vec<_> = word.split_whitespace().collect();
                // The number comes after the tasks of the CPU before it.
                seen.extend(words.iter().filter_map(|word| word.parse::<u32>().ok()));
            }
        }
        app.key(KeyEvent::new(KeyCode::PageDown, KeyModifiers::NONE));
    }
    assert!((0..512).all(|cpu| seen.contains(&cpu)), "{seen:?}");
    let last = screen(&mut app, 80, 24);
    assert!(!last[22].is_empty(), "the last page is full:\n{}", last.join("\n"));
    assert_eq!(app.frame.as_ref().map(|frame| frame.interval.cpus.len()), Some(512));
}

#[test]
fn any_size_does() {
    for nr_cpus in [1, 4, 512] {
        let mut app = app(nr_cpus);
        for keys in ["1", "2", "2\n", "3", "4", "h", "h2/rust"] {
            press(&mut app, keys);
            for (width, height) in [(1, 1), (2, 3), (20, 5), (80, 24), (300, 100)] {
                screen(&mut app, width, height);
            }
        }
    }
}

#[test]
fn tasks_of_all_names() {
    let mut app = app(4);
    let mut frame = app.frame.clone().expect("a frame");
    frame.interval.tasks = TaskTracker::default().busiest(
        vec![
            made::task(42, 250_000_000, 10, b"evil\x1b[31m"),
            made::task(7, 500_000_000, 3, "grö\u{202e}ße".as_bytes()),
        ],
        SECOND,
        10,
    );
    app.take(frame);
    press(&mut app, "2");
    let lines = screen(&mut app, 80, 24);
    let header = "    pid  cpu nice weight  busy%   wake/s preempt/s wait-p99  command (by busy)";
    assert_eq!(lines[2], header);
    assert_eq!(
        lines[3],
        "      7    1    0   1024   50.0        3         6     16us  grö\\u202eße"
    );
    assert_eq!(
        lines[4],
        "     42    1    0   1024   25.0       10        20     16us  evil\\x1b[31m"
    );
    press(&mut app, "j\n");
    let lines = screen(&mut app, 80, 24);
    assert_line(&lines, "task", "42 of process 42");
    assert_line(&lines, "name", "evil\\x1b[31m");
    assert_line(&lines, "vruntime", "123.457 ms");
    app.key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE));
    press(&mut app, "/GRÖ");
    let lines = screen(&mut app, 80, 24);
    assert!(lines[23].starts_with("filter: GRÖ_"), "{}", lines[23]);
    assert!(lines[4].is_empty(), "{}", lines[4]);
    press(&mut app, "x");
    assert_eq!(screen(&mut app, 80, 24)[3], "no task of this name ran");
}

#[test]
fn the_selected_task_is_on_the_screen() {
    let mut app = app(16);
    press(&mut app, "2s");
    for keys in ["", "G", "k", "g", "jjj"] {
        press(&mut app, keys);
        screen(&mut app, 80, 24);
        let pid = format!("{:>7} ", app.tasks()[app.at].pid);
        let lines = screen(&mut app, 80, 24);
        assert!(lines.iter().any(|line| line.starts_with(&pid)), "{pid}:\n{}", lines.join("\n"));
    }
}

#[test]
fn latencies_and_their_history() {
    let mut app = app(4);
    press(&mut app, "3");
    let lines = screen(&mut app, 80, 24);
    let latency = app.frame.as_ref().expect("a frame").interval.total.wakeup_latency.clone();
    assert_line(&lines, "the last 3 intervals", "power of two");
    assert_line(&lines, "p99", &time(latency.p99_us));
    assert_line(&lines, "wakeups of the last interval", &latency.count.to_string());
    let counts: u64 = lines
        .iter()
        .filter(|line| line.starts_with("< "))
        .filter_map(|line| line.split_whitespace().rev().nth(1)?.parse::<u64>().ok())
        .sum();
    assert_eq!(counts, latency.count, "{}", lines.join("\n"));
}

#[test]
fn without_a_scheduler_it_says_so() {
    let mut app = app(4);
    let mut frame = app.frame.clone().expect("a frame");
    let (why, state) = ("asking at /x".to_owned(), "sched_ext is enabled: other_1.0".to_owned());
    frame.origin = Origin::Kernel { why, state };
    app.take(frame);
    let lines = screen(&mut app, 80, 24);
    assert!(lines[2].starts_with("No scheduler answers"), "{}", lines[2]);
    assert!(lines[2].contains("other_1.0"), "{}", lines[2]);
    press(&mut app, "4");
    let lines = screen(&mut app, 80, 24);
    let told = |line: &String| line.contains("no scheduler answers; sched_ext is enabled");
    assert!(lines.iter().any(told), "{}", lines.join("\n"));
}

/// Nothing is cut at 80 columns: what is longer goes on in the next line, or is left out as a whole.
#[test]
fn words_are_whole() {
    let why = "asking the scheduler at /var/run/scx/root/stats: No such file or directory";
    let state = format!("sched_ext is enabled: {}_end", "a".repeat(40));
    let mut app = app(512);
    let mut frame = app.frame.clone().expect("a frame");
    let total = &mut frame.interval.total;
    (total.runnable, total.queue_depth, total.activity.switches_per_s) =
        (100_000, 99_488, 12_345_678.0);
    app.take(frame.clone());
    let summary = screen(&mut app, 80, 24)[1].clone();
    assert!(summary.contains("waiting 99488"), "{summary}");
    assert!(!summary.contains("switches/s") || summary.ends_with("12345678"), "{summary}");
    frame.origin = Origin::Kernel { why: why.to_owned(), state };
    app.take(frame);
    for (keys, page) in [
        ("1", "node 0"),
        ("2", "pid  cpu"),
        ("3", "intervals"),
        ("5", "period_ms = 100"),
        ("4", "no scheduler"),
    ] {
        press(&mut app, keys);
        let lines = screen(&mut app, 80, 24);
        let all = lines.join(" ");
        assert!(
            all.contains("_end (asking") && all.contains("or directory)"),
            "{}",
            lines.join("\n")
        );
        assert!(all.contains(page), "{}", lines.join("\n"));
    }
    let event = screen(&mut app, 80, 24).join("\n");
    assert!(event.matches("_end").count() == 2, "{event}");
    press(&mut app, "2/a name that takes room");
    assert!(screen(&mut app, 80, 24)[23].ends_with("Enter keep  Esc drop"));
    press(&mut app, "\n");
    let foot = screen(&mut app, 80, 24)[23].clone();
    assert!(foot.ends_with("1-5 views") && foot.contains("(Esc drops it)  q quit"), "{foot}");
}

#[test]
fn help_names_every_key_and_fits() {
    let mut app = app(4);
    press(&mut app, "h");
    let lines = screen(&mut app, 80, 24);
    for key in ["q,", "h,", "1 2 3 4", "j k", "PgDn", "s ", "f, /", "Enter", "Esc", "Space"] {
        assert!(lines.iter().any(|line| line.starts_with(key)), "{key}:\n{}", lines.join("\n"));
    }
    assert!(HELP.len() <= 24 - 4);
    assert!(HELP.iter().chain([&KEYS]).all(|line| line.chars().count() <= 80), "wider than 80");
}

#[test]
fn colours_only_where_they_are_wanted() {
    let coloured = |colours: bool| {
        let mut app = app(4);
        app.colours = colours;
        app.paused = true;
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).expect("a terminal");
        terminal.draw(|frame| draw(&mut app, frame)).expect("drawn");
        let cells = terminal.backend().buffer().content();
        // The background is the user's.
        assert!(cells.iter().all(|cell| cell.bg == Color::Reset));
        cells.iter().any(|cell| cell.fg != Color::Reset)
    };
    assert!(coloured(true));
    assert!(!coloured(false));
}

#[test]
fn bars_are_exact_to_an_eighth() {
    assert_eq!(bar(0.0, 4), "    ");
    assert_eq!(bar(0.5, 4), "██  ");
    assert_eq!(bar(0.53125, 4), "██▏ ");
    assert_eq!(bar(1.0, 4), "████");
    assert_eq!(bar(7.0, 4), "████");
}
