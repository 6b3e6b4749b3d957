//! The statistics socket, asked as other programs ask it, and by others who mean it ill.

mod served;

use scheduler::{
    bpf::COUNTERS,
    endpoint::{CLIENTS_MAX, client::REQUEST_MAX, unix::StatsSocket},
    stats::interval::Interval,
    top::feed::{Feed, Origin},
};
use scx_stats::{StatsClient, StatsMeta, StatsRequest};
use serde_json::{Value, json};
use served::Served;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(20);

struct Place {
    served: Served,
    path: PathBuf,
    // Last: what is in it goes first.
    _dir: TempDir,
}

fn serve() -> Place {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("scx/root/stats");
    let at = path.clone();
    let served = Served::start(move |endpoints, start| {
        endpoints.add(StatsSocket::listen(&at, start).expect("a socket"));
    });
    Place { served, path, _dir: dir }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("connects");
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("sent");
    }

    /// The answer to what was sent; none at the end of the connection.
    fn receive(&mut self) -> Option<Value> {
        let mut line = String::new();
        let n = self.0.read_line(&mut line).unwrap_or(0);
        (n > 0).then(|| serde_json::from_str(&line).expect("a line of JSON"))
    }

    fn ask(&mut self, request: &Value) -> Value {
        self.send(format!("{request}\n").as_bytes());
        self.receive().expect("an answer")
    }

    fn has_ended(&mut self) -> bool {
        self.0.read(&mut [0]).is_ok_and(|n| n == 0)
    }
}

/// `scheduler profile` at this socket.
fn profile(path: &Path, name: &[&str]) -> std::process::Output {
    asking("profile", path, name)
}

/// A command that asks at this socket.
fn asking(command: &str, path: &Path, words: &[&str]) -> std::process::Output {
    let path = path.to_str().expect("UTF-8");
    let args = [&[command, "--socket", path], words].concat();
    let program = env!("CARGO_BIN_EXE_scheduler");
    std::process::Command::new(program).args(args).output().expect("it runs")
}

#[test]
fn a_profile_is_asked_for_and_told() {
    let place = serve();
    let out = profile(&place.path, &[]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "profile = \"auto\" (default)\n");
    let out = profile(&place.path, &["gaming"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "profile = \"gaming\"\n\\x1b[31m\n");
    assert_eq!(out.status.code(), Some(0));
    for (path, name, code, words) in [
        (&*place.path, "server", 1, "there is no such profile"),
        (
            Path::new("/dev/null"),
            "server",
            1,
            "no scheduler is running that could be asked at /dev/null",
        ),
        (&*place.path, "fast", 2, "lowlatency"),
    ] {
        let out = profile(path, &[name]);
        let line = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!((out.status.code(), line.lines().count()), (Some(code), 1), "{line}");
        assert!(line.contains(words), "{line}");
    }
}

#[test]
fn a_task_is_explained_and_rules_are() {
    let place = serve();
    for (words, code, told) in [
        (&["7"][..], 0, "task 7\n\\x1b[31m\n"),
        (&["--rules"], 0, "no rule: 24 tasks\n"),
        (&["8"], 1, ""),
        (&[], 2, ""),
        (&["7", "--rules"], 2, ""),
    ] {
        let out = asking("explain", &place.path, words);
        assert_eq!(out.status.code(), Some(code), "{words:?}");
        assert_eq!(String::from_utf8_lossy(&out.stdout), told, "{words:?}");
        assert_eq!(String::from_utf8_lossy(&out.stderr).lines().count(), usize::from(code > 0));
    }
    // JSON of the tasks has the rules, too.
    let mut client = Client::connect(&place.path);
    let mut interval = |args: Value| {
        let answer = client.ask(&json!({"req": "stats", "args": args}));
        answer["args"]["resp"].clone()
    };
    let told = interval(json!({"target": "interval", "tasks": "3"}));
    assert_eq!(told["rules"].as_array().map(Vec::len), Some(3), "{told}");
    assert_eq!(told["rules"][0]["number"], 1);
    assert_eq!(interval(json!({"target": "interval"}))["rules"], json!([]));
}

#[test]
fn the_client_of_other_programs_understands_it() {
    let place = serve();
    let client = StatsClient::new().set_path(&place.path);
    let mut client = client.connect(Some(20_000)).expect("connects");
    let meta: BTreeMap<String, StatsMeta> =
        client.request("stats_meta", vec![]).expect("the description");
    assert!(meta["Scheduler"].attrs.top.is_some());
    assert!(meta["Cpu"].attrs.top.is_none());
    let top: Value = client.request("stats", vec![]).expect("statistics");
    for name in meta["Scheduler"].fields.keys().filter(|name| !name.starts_with("policy")) {
        assert!(!top[name].is_null(), "{name} is described, and not there: {top}");
    }
    assert_eq!(top["cpus"].as_object().expect("CPUs").len(), 4);
    let wrong = client.send_request::<Value>(&StatsRequest::new("nonsense", vec![]));
    assert!(format!("{:#}", wrong.expect_err("refused")).contains("Invalid argument"));
}

#[test]
fn intervals_are_those_of_the_connection() {
    let place = serve();
    let mut client = Client::connect(&place.path);
    let request = json!({"req": "stats", "args": {"target": "interval", "tasks": "3"}});
    let mut interval = || -> Interval {
        let response = client.ask(&request);
        assert_eq!(response["errno"], 0, "{response}");
        serde_json::from_value(response["args"]["resp"].clone()).expect("an interval")
    };
    let (first, second) = (interval(), interval());
    assert_eq!((first.interval_s, second.interval_s), (1.0, 1.0));
    assert!(first.time < second.time);
    assert_eq!((second.cpus.len(), second.tasks.len()), (4, 3));
    // Each has the growth since the one before, not all there ever was.
    assert!(second.total.activity.busy_percent <= 100.0);
    assert!(second.total.activity.counters.0[0] > 0);

    assert_eq!(place.served.asked.forgotten.load(Relaxed), 0);
    drop(client);
    wait_until(|| place.served.asked.forgotten.load(Relaxed) == 1);
}

#[track_caller]
fn wait_until(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < SOON, "nothing after {SOON:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// As `scheduler top` does.
#[test]
fn top_asks_it_and_falls_back_to_the_kernel() {
    const SECOND: Duration = Duration::from_secs(1);
    let place = serve();
    let mut feed = Feed::machine(&place.path);
    for _ in 0..2 {
        let frame = feed.next(SECOND).expect("a frame");
        assert_eq!(frame.origin, Origin::Scheduler);
        assert_eq!(frame.interval.interval_s, 1.0);
        assert!(frame.interval.cpus.len() == 4 && frame.interval.tasks.len() > 4);
    }
    drop(place.served);
    let frame = feed.next(SECOND).expect("a frame");
    assert!(matches!(frame.origin, Origin::Kernel { .. }), "{:?}", frame.origin);
    assert!(!frame.interval.cpus.is_empty());
    // Somebody else's server that never answers.
    let _mute = std::os::unix::net::UnixListener::bind(&place.path).expect("a socket");
    let begin = Instant::now();
    let frame = feed.next(SECOND).expect("a frame");
    assert!(matches!(frame.origin, Origin::Kernel { .. }), "{:?}", frame.origin);
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[test]
fn wrong_requests_are_told_why_and_cost_no_sample() {
    let place = serve();
    let mut client = Client::connect(&place.path);
    for (request, word) in [
        ("", "no request"),
        ("{}", "no request"),
        ("\u{fffd}\u{0}\u{1b}", "no request"),
        (r#"{"req":"stats","args":[]}"#, "no request"),
        (r#"{"req":"quit"}"#, "stats_meta"),
        (r#"{"req":"stats","args":{"target":"../etc"}}"#, "interval"),
        (r#"{"req":"stats","args":{"target":"interval","tasks":"1001"}}"#, "1000"),
        (r#"{"req":"stats","args":{"target":"interval","tasks":"-1"}}"#, "1000"),
        (&"[".repeat(REQUEST_MAX - 2), "no request"),
    ] {
        client.send(format!("{request}\n").as_bytes());
        let response = client.receive().expect("an answer");
        assert_eq!(response["errno"], 22, "{request}: {response}");
        let why = response["args"]["resp"].as_str().expect("a reason");
        assert!(why.contains(word), "{request}: {why}");
    }
    assert_eq!(place.served.asked.samples.load(Relaxed), 0);
    let right = client.ask(&json!({"req": "stats"}));
    assert_eq!(right["errno"], 0);
    assert!(right["args"]["resp"][COUNTERS[0].name].is_u64());
}

#[test]
fn an_endless_line_ends() {
    let place = serve();
    let mut client = Client::connect(&place.path);
    client.send(&vec![b'x'; REQUEST_MAX]);
    let response = client.receive().expect("an answer");
    assert_eq!(response["errno"], 90, "{response}");
    assert!(client.receive().is_none(), "it was listened to further");
    assert_eq!(place.served.asked.samples.load(Relaxed), 0);
}

#[test]
fn half_a_request_is_not_waited_for() {
    let place = serve();
    let mut client = Client::connect(&place.path);
    let begin = Instant::now();
    client.send(br#"{"req":"#);
    assert!(client.has_ended());
    let waited = begin.elapsed();
    assert!((Duration::from_secs(4)..SOON).contains(&waited), "{waited:?}");
}

#[test]
fn who_does_not_read_is_not_waited_for() {
    let place = serve();
    let mut client = Client::connect(&place.path);
    let stream = client.0.get_mut();
    stream.set_nonblocking(true).expect("set");
    // Many requests, and nobody who reads what they bring.
    let requests = "{\"req\":\"stats\"}\n".repeat(REQUEST_MAX);
    let mut sent = 0;
    wait_until(|| {
        match stream.write(&requests.as_bytes()[sent % requests.len()..]) {
            Ok(n) => sent += n,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // It was let go of.
            Err(_) => return true,
        }
        false
    });
    // Another one is served meanwhile and afterwards.
    assert_eq!(Client::connect(&place.path).ask(&json!({"req": "stats"}))["errno"], 0);
}

#[test]
fn pipelined_requests_and_a_half_closed_connection_are_answered() {
    let place = serve();
    let mut client = Client::connect(&place.path);
    client.send(b"{\"req\":\"stats\"}\n{\"req\":\"stats_meta\"}\n{\"req\":\"stats\"}\n");
    client.0.get_mut().shutdown(std::net::Shutdown::Write).expect("shut down");
    let answers: Vec<Value> = std::iter::from_fn(|| client.receive()).collect();
    assert_eq!(answers.len(), 3, "{answers:?}");
    assert!(answers.iter().all(|answer| answer["errno"] == 0));
}

#[test]
fn ten_thousand_connections_cost_little() {
    const CONNECTIONS: usize = 10_000;
    let place = serve();
    let mut patient = Client::connect(&place.path);
    assert_eq!(patient.ask(&json!({"req": "stats"}))["errno"], 0);
    let (begin, before) = (Instant::now(), place.served.cpu_time());
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS {
        silent.push(UnixStream::connect(&place.path).expect("connects"));
        if silent.len() > CLIENTS_MAX * 4 {
            silent.remove(0);
        }
    }
    let spent = place.served.cpu_time() - before;
    let share = spent.as_secs_f64() / begin.elapsed().as_secs_f64();
    println!("{CONNECTIONS} connections: {spent:?} of CPU time, {:.1} % of a CPU", share * 100.0);
    assert!(spent < Duration::from_secs(2), "{spent:?}");
    assert!(share < 0.2, "{share:.2} of a CPU");
    assert!(open_files() < CLIENTS_MAX * 8 + 100, "{} files are open", open_files());
    assert_eq!(place.served.asked.samples.load(Relaxed), 1, "silence cost a sample");
    // All are gone, or as good as that: who asks is answered.
    assert_eq!(Client::connect(&place.path).ask(&json!({"req": "stats"}))["errno"], 0);
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").expect("fds").count()
}

/// A client that asks as fast as it can.
#[test]
fn a_flood_of_requests_gets_its_part_and_no_more() {
    let place = serve();
    let mut client = Client::connect(&place.path);
    let (begin, before) = (Instant::now(), place.served.cpu_time());
    let mut answers = 0;
    while begin.elapsed() < Duration::from_secs(2) {
        assert_eq!(client.ask(&json!({"req": "stats"}))["errno"], 0);
        answers += 1;
    }
    let share = (place.served.cpu_time() - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    println!("{answers} answers in 2 s: {:.1} % of a CPU", share * 100.0);
    assert!(answers >= 10, "{answers} answers in 2 s");
    assert!(share < 0.15, "{share:.2} of a CPU");
}

#[test]
fn nobody_is_woken_for_those_who_say_nothing() {
    let place = serve();
    let mut client = Client::connect(&place.path);
    client.ask(&json!({"req": "stats"}));
    thread::sleep(Duration::from_millis(300));
    let before = place.served.asked.wakes.load(Relaxed);
    thread::sleep(Duration::from_millis(2000));
    let woken = place.served.asked.wakes.load(Relaxed) - before;
    // The thread's own period is half a second.
    assert!(woken <= 6, "woken {woken} times in 2 s");
}

#[test]
fn the_socket_is_for_its_owner_and_goes_with_the_scheduler() {
    let place = serve();
    let mode = fs::metadata(&place.path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let path = place.path.clone();
    drop(place.served);
    assert!(!path.exists(), "it stays behind");
}

#[test]
fn what_is_left_of_another_is_replaced_and_files_are_not() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("stats");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket that is left behind"));
    let listen = |path: &Path| {
        let start = std::rc::Rc::new(scheduler::stats::demo::Demo::new(1).sample());
        StatsSocket::listen(path, start)
    };
    let old = listen(&path).expect("the one left behind is replaced");
    let new = listen(&path).expect("so is that of a scheduler that is about to end");
    drop(old);
    assert!(path.exists(), "the old one took the new one's socket away");
    drop(new);
    assert!(!path.exists());

    // Under this name it is made, until it listens.
    let beside = dir.path().join("stats.new");
    drop(std::os::unix::net::UnixListener::bind(&beside).expect("a socket half made"));
    drop(listen(&path).expect("that is replaced, too"));
    assert!(!beside.exists() && !path.exists());

    let file = dir.path().join("file");
    let other = dir.path().join("file.new");
    fs::write(&file, "precious").expect("write");
    fs::rename(&file, &other).expect("renamed");
    assert!(listen(&file).is_err() && !file.exists(), "a file where it would be made");
    fs::rename(&other, &file).expect("renamed");
    for (path, word) in [(&file, "no socket"), (&file.join("x/stats"), "--socket")] {
        let error = format!("{:#}", listen(path).err().expect("refused"));
        assert!(error.contains(word) && error.contains("file"), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).expect("still there"), "precious");
    let long = dir.path().join("x".repeat(120));
    assert!(listen(&long).is_err(), "a path that is too long for a socket");
}
