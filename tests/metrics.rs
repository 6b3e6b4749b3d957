//! Metrics over HTTP: what a scraper gets, and what those get who mean it ill.
//!
//! With Prometheus installed (`make metrics` sees to it) its own checks run, too, and the queries of the dashboard.

mod served;

use scheduler::{
    endpoint::{client::REQUEST_MAX, http::MetricsSocket},
    stats::{
        demo::Demo,
        metrics::{self, Dialect},
        sample::PolicySample,
    },
};
use serde_json::Value;
use served::Served;
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::Ordering::Relaxed,
    thread,
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(30);

struct Place {
    served: Served,
    address: SocketAddr,
}

fn serve() -> Place {
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    let (tell, told) = std::sync::mpsc::channel();
    let served = Served::start(move |endpoints, _| {
        let socket = MetricsSocket::listen(any).map_err(|f| f.error).expect("a free port");
        tell.send(socket.address().expect("an address")).expect("somebody waits");
        endpoints.add(socket);
    });
    Place { served, address: told.recv().expect("an address") }
}

/// The response to these bytes, up to the end of the connection.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(SOON)).expect("a limit");
    // It may have been refused before all of it was sent.
    let _ = stream.write_all(request);
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8(response).expect("UTF-8")
}

fn get(address: SocketAddr, path: &str, accept: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
    let response = exchange(address, request.as_bytes());
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5";

/// A page, checked by the rules of its format: families by name, with their values by name and labels.
fn parse(page: &str, dialect: Dialect) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut families: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    let mut family = (String::new(), String::new());
    let mut lines: Vec<&str> = page.lines().collect();
    assert!(page.ends_with('\n'));
    if dialect == Dialect::OpenMetrics {
        assert_eq!(lines.pop(), Some("# EOF"));
    }
    for line in lines {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(!families.contains_key(name), "{name} twice");
            families.insert(name.to_owned(), BTreeMap::new());
            family = (name.to_owned(), kind.to_owned());
            continue;
        }
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let what = words.next().expect("a word");
            assert!(["HELP", "UNIT"].contains(&what), "{line}");
            assert_eq!(words.next(), Some(&*family.0), "{line}");
            let text = words.next().unwrap_or_default();
            assert!(!text.is_empty(), "{line}");
            assert!(what == "HELP" || family.0.ends_with(text), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let name = series.split('{').next().expect("a name");
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.starts_with("scheduler_") && name.chars().all(is_name), "{line}");
        let suffix =
            name.strip_prefix(&*family.0).unwrap_or_else(|| panic!("{line} in {family:?}"));
        let due: &[&str] = match (&*family.1, dialect) {
            ("counter", Dialect::OpenMetrics) => &["_total"],
            ("info", Dialect::OpenMetrics) => &["_info"],
            ("histogram", _) => &["_bucket", "_sum", "_count"],
            ("counter" | "gauge", _) => &[""],
            _ => panic!("{family:?}"),
        };
        assert!(due.contains(&suffix), "{line} in {family:?}");
        if dialect == Dialect::Prometheus && family.1 == "counter" {
            assert!(name.ends_with("_total"), "{line}");
        }
        let number: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(number.is_finite() && number >= 0.0, "{line}");
        let values = families.get_mut(&family.0).expect("its family");
        assert!(values.insert(series.to_owned(), number).is_none(), "{series} twice");
    }
    families
}

#[test]
fn both_formats_are_whole_and_say_the_same() {
    let mut demo = Demo::new(4);
    demo.advance(Duration::from_secs(1));
    let mut sample = demo.sample();
    let figures = BTreeMap::from([("a figure".to_owned(), 1.5)]);
    sample.policy = Some(PolicySample { name: "mine".into(), late: false, figures });
    let pages = [Dialect::OpenMetrics, Dialect::Prometheus].map(|dialect| {
        let families = parse(&metrics::render(&sample, dialect), dialect);
        families.into_values().flatten().collect::<BTreeMap<_, _>>()
    });
    assert_eq!(pages[0], pages[1]);
    assert!(pages[0].len() > 60, "{}", pages[0].len());
    let of =
        |name: &'static str| pages[0].iter().filter(move |(series, _)| series.starts_with(name));
    assert_eq!(of("scheduler_cpu_idle_seconds_total{").count(), 4);
    let buckets: BTreeSet<u64> =
        of("scheduler_wakeup_latency_seconds_bucket").map(|(_, n)| *n as u64).collect();
    let count = pages[0]["scheduler_wakeup_latency_seconds_count"] as u64;
    assert_eq!(buckets.last(), Some(&count));
    assert!(count > 0 && pages[0]["scheduler_wakeup_latency_seconds_sum"] > 0.0);
}

#[test]
fn scrapers_get_the_format_that_they_ask_for() {
    let place = serve();
    for (accept, dialect) in [("*/*", Dialect::Prometheus), (OPENMETRICS, Dialect::OpenMetrics)] {
        let (head, body) = get(place.address, "/metrics?x=1", accept);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Type: {}", dialect.content_type())), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        parse(&body, dialect);
    }
    assert_eq!(place.served.asked.samples.load(Relaxed), 2);
    assert_eq!(place.served.asked.tasks.load(Relaxed), 0);
}

#[test]
fn other_requests_are_refused_and_cost_no_sample() {
    let place = serve();
    let long = format!("GET /metrics HTTP/1.1\r\nX: {}", "x".repeat(REQUEST_MAX));
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("GET /metrics/../../etc/passwd HTTP/1.1\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "405"),
        ("HEAD /other HTTP/1.1\r\n\r\n", "404"),
        ("\r\n\r\n", "400"),
        ("GET\r\n\r\n", "400"),
        ("\u{16}\u{3}\u{1}\u{2} hello\r\n\r\n", "400"),
        (&many, "400"),
        (&long, "431"),
    ] {
        let response = exchange(place.address, request.as_bytes());
        // The refusal of what was not read to its end may be lost on its way.
        if !(response.is_empty() && status == "431") {
            let is_so = response.starts_with(&format!("HTTP/1.1 {status} "));
            assert!(is_so, "{request:?}: {response:?}");
        }
    }
    assert_eq!(place.served.asked.samples.load(Relaxed), 0);
    let head = exchange(place.address, b"HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}

#[test]
fn silent_ones_are_let_go_and_crowd_nobody_out() {
    let place = serve();
    let crowd: Vec<_> =
        (0..100).map(|_| TcpStream::connect(place.address).expect("connects")).collect();
    let (head, _) = get(place.address, "/metrics", "*/*");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let begin = Instant::now();
    for mut silent in crowd {
        silent.set_read_timeout(Some(SOON)).expect("a limit");
        assert!(matches!(silent.read(&mut [0]), Ok(0) | Err(_)));
    }
    assert!(begin.elapsed() < SOON, "they stay for {:?}", begin.elapsed());
    let spent = place.served.cpu_time();
    assert!(spent < Duration::from_secs(1), "they cost {spent:?} of CPU time");
}

#[test]
fn a_port_that_is_taken_is_told() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = taken.local_addr().expect("an address");
    let failure = MetricsSocket::listen(address).err().expect("refused");
    let text = failure.error.to_string();
    assert!(text.contains(&format!("--metrics {address}")) && text.contains("in use"), "{text}");
}

fn dashboard() -> Vec<String> {
    let board: Value =
        serde_json::from_str(include_str!("../packaging/grafana.json")).expect("JSON");
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<String> =
        targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect();
    assert!(queries.len() > 8, "{queries:?}");
    queries
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let mut demo = Demo::new(4);
    demo.advance(Duration::from_secs(1));
    let page = metrics::render(&demo.sample(), Dialect::Prometheus);
    let families = parse(&page, Dialect::Prometheus);
    let series: BTreeSet<&str> = families
        .values()
        .flat_map(BTreeMap::keys)
        .map(|series| series.split('{').next().unwrap_or(series))
        .collect();
    for query in dashboard() {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: Vec<_> = words.filter(|word| word.starts_with("scheduler_")).collect();
        assert!(!names.is_empty(), "{query}");
        for name in names {
            assert!(series.contains(name), "{query}: no {name}");
        }
    }
}

/// Whether a program of the package prometheus is there. `make metrics` insists on it.
fn has(program: &str) -> bool {
    let runs = Command::new(program).arg("--version").output().is_ok();
    let is_due = env::var("REQUIRE_PROMETHEUS").is_ok_and(|value| value == "1");
    assert!(runs || !is_due, "{program} is needed (Debian: prometheus)");
    if !runs {
        eprintln!("skipped: {program} is not installed");
    }
    runs
}

#[test]
fn promtool_finds_nothing_wrong() {
    if !has("promtool") {
        return;
    }
    let place = serve();
    let (_, page) = get(place.address, "/metrics", "*/*");
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    tool.stdin.take().expect("its input").write_all(page.as_bytes()).expect("written");
    let out = tool.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&out.stdout) + String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{said}");
}

/// A server that ends with the test.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a query gives now.
fn ask(address: SocketAddr, query: &str) -> Option<Vec<Value>> {
    let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    let request = format!("GET /api/v1/query?query={encoded} HTTP/1.0\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let (_, body) = response.split_once("\r\n\r\n")?;
    let value: Value = serde_json::from_str(body).ok()?;
    assert!(value["status"] == "success" || value["errorType"] != "bad_data", "{query}: {value}");
    value["data"]["result"].as_array().cloned()
}

#[test]
fn prometheus_scrapes_it_and_the_dashboards_queries_have_results() {
    if !has("prometheus") {
        return;
    }
    let place = serve();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: scheduler\n  \
         static_configs: [{{targets: ['{}']}}]\n",
        place.address
    );
    fs::write(dir.path().join("config.yml"), config).expect("write");
    let free = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = free.local_addr().expect("an address");
    drop(free);
    let server = Command::new("prometheus")
        .current_dir(dir.path())
        .args(["--config.file=config.yml", "--storage.tsdb.path=data"])
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.path().join("log")).expect("a log"))
        .spawn()
        .expect("prometheus runs");
    let _server = Prometheus(server);
    let begin = Instant::now();
    // Rates take two scrapes.
    let rated = "rate(scheduler_switches_total[1m])";
    while ask(address, rated).is_none_or(|results| results.is_empty()) {
        let log = || fs::read_to_string(dir.path().join("log")).unwrap_or_default();
        assert!(begin.elapsed() < SOON, "no scrapes in {SOON:?}:\n{}", log());
        thread::sleep(Duration::from_millis(200));
    }
    let up = ask(address, "up").expect("a result");
    assert_eq!(up[0]["value"][1], "1", "{up:?}");
    // Of a whole page a scrape keeps every series.
    let (_, page) = get(place.address, "/metrics", OPENMETRICS);
    let series: usize = parse(&page, Dialect::OpenMetrics).values().map(BTreeMap::len).sum();
    let kept = ask(address, "scrape_samples_scraped").expect("a result");
    assert_eq!(kept[0]["value"][1], series.to_string());
    for query in dashboard() {
        let query = query.replace("$__rate_interval", "1m");
        let results = ask(address, &query).unwrap_or_default();
        assert!(!results.is_empty(), "nothing for {query}");
    }
}
