//! How the simulator grows: the same load on machines of 4 to 1,024 CPUs, as a table and a chart.

use anyhow::{Context, Result, ensure};
use clap::Args;
use plotters::prelude::*;
use serde_json::Value;
use std::{fs, path::PathBuf, process::Command};

/// What `lab scale` is told.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// The scheduler's program
    #[arg(long)]
    scheduler: PathBuf,
    /// Where the chart goes
    #[arg(long)]
    out: PathBuf,
}

/// A machine: its CPUs, and tasks for each of them.
const MACHINES: [(&str, u32); 7] = [
    ("2 cores x 2 threads", 20),
    ("8 cores x 2 threads", 20),
    ("4 llcs x 8 cores x 2 threads", 20),
    ("16 llcs x 8 cores x 2 threads", 20),
    ("2 nodes x 16 llcs x 8 cores x 2 threads", 20),
    ("4 nodes x 16 llcs x 8 cores x 2 threads", 20),
    ("4 nodes x 16 llcs x 8 cores x 2 threads", 100),
];
/// Tasks for each CPU on the machines that are drawn.
const DRAWN: u32 = 20;
const SIMULATED_MS: u32 = 300;

/// What a run cost.
struct Row {
    cpus: u64,
    tasks: u64,
    per_cpu: u32,
    events_per_s: f64,
    /// CPU time for a second of simulated time.
    cost_s: f64,
    mib: f64,
}

/// Of each CPU's tasks a tenth computes for long, and all of them together ask for 95 % of it.
fn scenario(topology: &str, cpus: u64, per_cpu: u32) -> String {
    let (long, short) = (cpus * u64::from(per_cpu) / 10, cpus * u64::from(per_cpu) * 9 / 10);
    // 0.3 of a CPU goes to the long ones, 0.65 to the others.
    let (long_sleep_us, short_sleep_us) = (per_cpu * 10_000 / 3, per_cpu * 700);
    format!(
        "about = \"growth\"\nduration = \"{SIMULATED_MS}ms\"\ntopology = \"{topology}\"\n\
         [[group]]\nname = \"short\"\ntasks = {short}\nstart = \"0s..20ms\"\n\
         phases = [{{ run = \"exp 500us\" }}, {{ sleep = \"exp {short_sleep_us}us\" }}]\n\
         [[group]]\nname = \"long\"\ntasks = {long}\nstart = \"0s..20ms\"\n\
         phases = [{{ run = \"exp 10ms\" }}, {{ sleep = \"exp {long_sleep_us}us\" }}]\n"
    )
}

fn measure(args: &ScaleArgs, topology: &str, per_cpu: u32) -> Result<Row> {
    let cpus = topology.split(['x', ' ']).filter_map(|word| word.parse::<u64>().ok()).product();
    let dir = tempfile::tempdir().context("making a folder")?;
    let file = dir.path().join("growth.toml");
    fs::write(&file, scenario(topology, cpus, per_cpu)).context("writing a scenario")?;
    let output = Command::new(&args.scheduler)
        .args(["simulate", "--json"])
        .arg(&file)
        .output()
        .with_context(|| format!("starting {}", args.scheduler.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).context("reading the report")?;
    let machine = &report["machine"];
    let number = |name: &str| machine[name].as_f64().with_context(|| format!("no {name}"));
    let groups = report["groups"].as_array().context("no groups")?;
    let events_per_s = number("events_per_s")?;
    Ok(Row {
        cpus,
        tasks: groups.iter().filter_map(|group| group["tasks"].as_u64()).sum(),
        per_cpu,
        events_per_s,
        cost_s: number("events")? / events_per_s / number("simulated_s")?,
        mib: number("peak_memory_kib")? / 1024.0,
    })
}

/// Measures, prints a table and draws the chart.
pub fn scale(args: &ScaleArgs) -> Result<()> {
    println!("|  CPUs |   tasks | million events/s | CPU s for a simulated s | MiB |");
    println!("| ---: | ---: | ---: | ---: | ---: |");
    let mut rows = Vec::new();
    for (topology, per_cpu) in MACHINES {
        let row = measure(args, topology, per_cpu)?;
        println!(
            "| {} | {} | {:.1} | {:.2} | {:.0} |",
            row.cpus,
            row.tasks,
            row.events_per_s / 1e6,
            row.cost_s,
            row.mib
        );
        rows.push(row);
    }
    rows.retain(|row| row.per_cpu == DRAWN);
    let path = args.out.join("simulator.svg");
    let svg = chart(&rows).map_err(|error| anyhow::anyhow!("drawing the chart: {error}"))?;
    fs::write(&path, svg).with_context(|| format!("writing {}", path.display()))
}

fn chart(rows: &[Row]) -> Result<String, Box<dyn std::error::Error>> {
    let measured: Vec<_> = rows.iter().map(|row| (row.cpus as f64, row.cost_s)).collect();
    let (first, last) = (measured.first().ok_or("no rows")?, measured.last().ok_or("no rows")?);
    // Through the first point.
    let n_log_n = |n: f64| first.1 * (n * n.log2()) / (first.0 * first.0.log2());
    let linear = |n: f64| first.1 * n / first.0;
    let reference =
        |of: &dyn Fn(f64) -> f64| -> Vec<_> { measured.iter().map(|&(n, _)| (n, of(n))).collect() };
    let top = last.1.max(n_log_n(last.0)) * 2.0;
    let lines = [
        ("measured", measured.clone(), RED),
        ("n log n", reference(&n_log_n), BLACK),
        ("n", reference(&linear), RGBColor(0x99, 0x99, 0x99)),
    ];
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (720, 420)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption("scheduler simulate, 20 tasks a CPU, 95 % busy", ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d((first.0..last.0).log_scale(), (first.1 / 2.0..top).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("CPUs")
            .y_desc("CPU seconds for a simulated second")
            .x_label_formatter(&|n| format!("{n:.0}"))
            .y_label_formatter(&|s| format!("{s}"))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for (name, points, color) in lines {
            let marks = points.iter().map(|&point| Circle::new(point, 3, color.filled()));
            chart.draw_series(marks.collect::<Vec<_>>())?;
            chart
                .draw_series(LineSeries::new(points, color.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .draw()?;
        area.present()?;
    }
    Ok(svg)
}
