//! What `make install` puts on a machine, the systemd unit among it, and what the package is made of. `make package-test`
//! checks the package itself.

mod tools;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};
use tempfile::TempDir;
use tools::text;

/// `systemd-analyze security` gives tenths of a point; this is 2.5.
const EXPOSURE_MAX: &str = "25";

/// A place to install to, with what `make build` makes of the binary.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("target/release")).expect("mkdir");
        let binary = dir.path().join("target/release/scheduler");
        symlink(env!("CARGO_BIN_EXE_scheduler"), binary).expect("a link");
        let place = Self { dir };
        place.make(&["share"]);
        place
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Runs `make`, free of the variables of a `make` that may run this test.
    fn make(&self, args: &[&str]) {
        let out = Command::new("make")
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("MAKEFLAGS")
            .env_remove("UNITDIR")
            .env_remove("DESTDIR")
            .arg(format!("TARGET={}", self.path("target").display()))
            .args(args)
            .output()
            .expect("make runs");
        assert!(out.status.success(), "make {args:?}: {}", text(&out));
    }

    /// Installs for use from the temporary directory itself, and returns the unit.
    fn install(&self) -> PathBuf {
        let settings = format!("CONFDIR={}", self.path("etc").display());
        self.make(&["install", &format!("PREFIX={}", self.path("usr").display()), &settings]);
        self.path("usr/lib/systemd/system/scheduler.service")
    }
}

/// Files below a directory, relative to it.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).expect("a directory") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => left.push(path),
                false => found.push(path.strip_prefix(dir).expect("below").display().to_string()),
            }
        }
    }
    found.sort();
    found
}

/// Runs systemd-analyze.
fn systemd_analyze(args: &[&str], unit: &Path) -> Option<Output> {
    tools::run(Command::new("systemd-analyze").args(args).arg(unit))
}

#[test]
fn installs_where_it_is_told_and_uninstalls_just_that() {
    let place = Place::new();
    let root = place.path("root");
    let destdir = format!("DESTDIR={}", root.display());
    place.make(&["install", &destdir, "PREFIX=/opt/x"]);
    let unit = "opt/x/lib/systemd/system/scheduler.service";
    let installed = [
        "etc/scheduler/config.toml",
        "opt/x/bin/scheduler",
        unit,
        "opt/x/share/bash-completion/completions/scheduler",
        "opt/x/share/fish/vendor_completions.d/scheduler.fish",
        "opt/x/share/man/man8/scheduler.8",
        "opt/x/share/zsh/site-functions/_scheduler",
    ];
    assert_eq!(files(&root), installed);
    let unit = fs::read_to_string(root.join(unit)).expect("the unit");
    let exec: Vec<_> = unit.lines().filter(|line| line.starts_with("ExecStart=")).collect();
    assert_eq!(exec, ["ExecStart=/opt/x/bin/scheduler"]);

    fs::write(root.join("opt/x/bin/other"), "").expect("write");
    place.make(&["uninstall", &destdir, "PREFIX=/opt/x"]);
    assert_eq!(files(&root), ["opt/x/bin/other"]);

    // Where blanks are in the names, too; systemd takes the program in quotes.
    let blank = place.path("a root");
    let to = [format!("DESTDIR={}", blank.display()), "PREFIX=/opt/x y".to_owned()];
    let on = |what| place.make(&[what, &to[0], &to[1]]);
    on("install");
    let in_blank: Vec<_> = installed.iter().map(|file| file.replace("opt/x", "opt/x y")).collect();
    assert_eq!(files(&blank), in_blank);
    let unit = fs::read_to_string(blank.join(&in_blank[2])).expect("the unit");
    assert!(unit.contains("\nExecStart=\"/opt/x y/bin/scheduler\"\n"), "{unit}");
    on("uninstall");
    assert!(files(&blank).is_empty(), "{:?}", files(&blank));

    // Settings are kept as they are.
    let config = root.join("etc/scheduler/config.toml");
    fs::write(&config, "slice_us = 4000\n").expect("write");
    place.make(&["install", &destdir, "PREFIX=/opt/x"]);
    place.make(&["uninstall", &destdir, "PREFIX=/opt/x"]);
    assert_eq!(fs::read_to_string(&config).expect("the settings"), "slice_us = 4000\n");
}

#[test]
fn the_unit_is_valid() {
    let place = Place::new();
    let unit = place.install();
    let Some(out) = systemd_analyze(&["verify", "--man=no"], &unit) else { return };
    // Unknown settings are a warning, and no failure, to systemd.
    let ours: Vec<_> =
        text(&out).lines().filter(|l| l.contains("scheduler.service")).map(String::from).collect();
    assert!(out.status.success() && ours.is_empty(), "{}", text(&out));
}

#[test]
fn the_unit_exposes_little() {
    let place = Place::new();
    let unit = place.install();
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let args = ["security", "--offline=yes", "--no-pager", &threshold];
    let Some(out) = systemd_analyze(&args, &unit) else { return };
    assert!(out.status.success(), "{}", text(&out));
    assert!(text(&out).contains("Overall exposure level"), "{}", text(&out));
}

/// With metrics, too, and then it may listen; with a policy in user space; and with both.
#[test]
fn the_drop_ins_expose_little() {
    let place = Place::new();
    let unit = place.install();
    let folder = unit.with_extension("service.d");
    fs::create_dir_all(&folder).expect("mkdir");
    let policy = include_str!("../packaging/policy.conf");
    let metrics = include_str!("../packaging/metrics.conf");
    for (name, drop_in, setting) in [
        ("policy.conf", policy, "policy = \"vruntime\""),
        ("metrics.conf", metrics, "metrics = 9100"),
    ] {
        fs::write(folder.join(name), drop_in).expect("write");
        // Where the program is differs by installation: what it does is a setting, and a good one.
        assert!(!drop_in.contains("ExecStart") && drop_in.contains(setting));
        let config = place.path("config.toml");
        fs::write(&config, setting).expect("write");
        let mut check = Command::new(env!("CARGO_BIN_EXE_scheduler"));
        let out = check.args(["config", "check"]).arg(&config).output().expect("it runs");
        assert!(out.status.success(), "{}", text(&out));
        let Some(out) = systemd_analyze(&["verify", "--man=no"], &unit) else { return };
        assert!(out.status.success() && !text(&out).contains(name), "{}", text(&out));
        let threshold = format!("--threshold={EXPOSURE_MAX}");
        let args = ["security", "--offline=yes", "--no-pager", &threshold];
        let Some(out) = systemd_analyze(&args, &unit) else { return };
        assert!(out.status.success(), "{}", text(&out));
        // Both are looked at: without metrics.conf there is no network.
        let network = text(&out).lines().any(|l| l.contains("PrivateNetwork") && l.contains("✗"));
        assert_eq!(network, name == "metrics.conf", "{}", text(&out));
    }
    assert!(policy.contains("\nLimitMEMLOCK=infinity\n"));
}

#[test]
fn the_unit_says_what_is_asked_of_it() {
    let unit = include_str!("../packaging/scheduler.service");
    let values = |key: &str| -> Vec<&str> {
        unit.lines()
            .filter_map(|line| line.split_once('='))
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .collect()
    };
    for (key, value) in [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("WatchdogSec", "30"),
        ("Restart", "on-failure"),
        ("CapabilityBoundingSet", "CAP_BPF CAP_PERFMON"),
        ("AmbientCapabilities", "CAP_BPF CAP_PERFMON"),
        ("Conflicts", "scx.service scx_loader.service"),
        // A stop that is not ordered before our start could come too late for it.
        ("After", "scx.service scx_loader.service"),
        ("NoNewPrivileges", "yes"),
        ("RuntimeDirectory", "scx/root"),
        ("ExecReload", "/bin/sh -c 'kill -HUP $MAINPID'"),
    ] {
        assert_eq!(values(key), [value], "{key}");
    }
    // It is where the socket is made.
    let socket = scheduler::settings::Settings::default().socket;
    assert_eq!(socket.parent(), Some(Path::new("/var/run/scx/root")));
    // Capabilities of a user namespace count for nothing in bpf().
    assert!(values("PrivateUsers").is_empty());

    // Those ends that a restart does not mend, by their names in the program.
    use scheduler::exit::Exit;
    let lasting = [Exit::Usage, Exit::Busy, Exit::NotPermitted, Exit::Unsupported];
    let codes = lasting.map(|exit| (exit as u8).to_string()).join(" ");
    assert_eq!(values("RestartPreventExitStatus"), [codes.as_str()]);
}

/// The sources of the package's assets, and where they go.
fn assets() -> Vec<(String, String)> {
    let manifest: toml::Table = toml::from_str(include_str!("../Cargo.toml")).expect("TOML");
    let assets = manifest["package"]["metadata"]["deb"]["assets"].as_array().expect("a list");
    let text = |value: &toml::Value| value.as_str().expect("text").to_owned();
    // packaging/deb.sh compresses the page.
    let source = |path: &toml::Value| text(path).trim_end_matches(".gz").to_owned();
    assets.iter().map(|asset| (source(&asset[0]), text(&asset[1]))).collect()
}

#[test]
fn the_package_lists_files_that_there_are() {
    let place = Place::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let assets = assets();
    for (source, _) in &assets {
        let path = match source.strip_prefix("target/") {
            Some(built) => place.path("target").join(built),
            None => root.join(source),
        };
        assert!(path.is_file(), "there is no {source}");
    }
    let goes_to = |source: &str, folder: &str| {
        assets.iter().any(|(asset, to)| asset == source && to.starts_with(folder))
    };
    for shared in files(&place.path("target/release/share")) {
        let source = format!("target/release/share/{shared}");
        assert!(goes_to(&source, "usr/share/"), "{source} is left out");
    }
    assert!(goes_to("target/release/scheduler", "usr/bin/"));
    assert!(goes_to("packaging/config.toml", "etc/scheduler/"));
    for drop_in in ["packaging/metrics.conf", "packaging/policy.conf"] {
        assert!(goes_to(drop_in, "usr/share/doc/scheduler/examples/"), "{drop_in}");
    }
    let manifest: toml::Table = toml::from_str(include_str!("../Cargo.toml")).expect("TOML");
    let kept = &manifest["package"]["metadata"]["deb"]["conf-files"];
    assert_eq!(kept.as_array().expect("a list"), &[scheduler::cli::CONFIG_DEFAULT.into()]);
    assert!(
        goes_to("CHANGELOG.md", "usr/share/doc/")
            && goes_to("packaging/copyright", "usr/share/doc/")
    );
    let unit = include_str!("../packaging/scheduler.service");
    assert!(
        unit.contains("\nExecStart=/usr/bin/scheduler\n"),
        "the package takes the unit as it is"
    );
}

#[test]
fn the_package_is_of_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = include_str!("../packaging/changelog");
    assert!(changelog.starts_with(&format!("scheduler ({version}-1) ")), "packaging/changelog");
    let chart = include_str!("../packaging/chart/Chart.yaml");
    assert!(chart.contains(&format!("\nappVersion: {version}\n")), "Chart.yaml");
}

/// The image and the pods of the chart can do what the unit can, and no more.
#[test]
fn the_chart_asks_for_the_capabilities_of_the_unit() {
    let unit = include_str!("../packaging/scheduler.service");
    let bounding = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let of_unit = bounding.expect("the set").replace("CAP_", "").replace(' ', ", ");
    let chart = include_str!("../packaging/chart/templates/daemonset.yaml");
    assert!(chart.contains(&format!("add: [{of_unit}{{{{ if ")), "{of_unit}");
    assert!(chart.contains("drop: [ALL]"));
}
