//! A server in the shape of schbench: one thread receives requests and hands each to a sleeping worker.
//!
//! Requests arrive at random but equal times in every run (exponential gaps), at a rate that would keep the CPUs
//! busy to the wanted part. A request for which no worker is free is refused, as with a full backlog.

use super::{Chance, Times, cpus, exact_timers, join, sleep_until, work};
use anyhow::{Context, Result};
use clap::Args;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// Arguments of `probe requests`.
#[derive(Args)]
pub struct Requests {
    /// Work that arrives, in per cent of what all CPUs can do
    #[arg(long)]
    load_percent: f64,
    /// CPU time of a request
    #[arg(long, default_value_t = 1000)]
    work_us: u64,
    /// Workers for each CPU
    #[arg(long, default_value_t = 4)]
    workers_per_cpu: usize,
    /// How long requests arrive
    #[arg(long)]
    seconds: f64,
}

/// A request on its way to a worker.
struct Request {
    arrived: Instant,
    handed_over: Instant,
}

#[derive(Default)]
struct Report {
    /// From the hand-over to the worker's first instruction.
    wakeup: Times,
    /// From the arrival to the end of the work.
    request: Times,
}

type Idle = Arc<Mutex<Vec<usize>>>;

fn serve(
    number: usize,
    work_time: Duration,
    inbox: &Receiver<Request>,
    idle: &Idle,
    over: &AtomicBool,
) -> Result<Report> {
    let mut report = Report::default();
    while let Ok(request) = inbox.recv() {
        let wakeup = request.handed_over.elapsed();
        work(work_time)?;
        // What ends after the last arrival belongs to no rate.
        if !over.load(Ordering::Relaxed) {
            report.wakeup.add(wakeup);
            report.request.add(request.arrived.elapsed());
        }
        idle.lock().unwrap_or_else(PoisonError::into_inner).push(number);
    }
    Ok(report)
}

impl Requests {
    /// Runs server and clients.
    pub fn run(self) -> Result<()> {
        let cpus = cpus()?;
        let work_time = Duration::from_micros(self.work_us);
        let workers = cpus * self.workers_per_cpu;
        let idle: Idle = Arc::new(Mutex::new((0..workers).collect()));
        let over = Arc::new(AtomicBool::new(false));
        let (mut inboxes, mut handles) = (Vec::new(), Vec::new());
        for number in 0..workers {
            let (sender, inbox) = channel();
            let (idle, over) = (idle.clone(), over.clone());
            inboxes.push(sender);
            handles.push(thread::spawn(move || serve(number, work_time, &inbox, &idle, &over)));
        }
        let (arrived, refused, took) = self.receive(cpus, &inboxes, &idle)?;
        over.store(true, Ordering::Relaxed);
        drop(inboxes);
        let mut all = Report::default();
        for report in join(handles)? {
            all.wakeup.merge(&report.wakeup);
            all.request.merge(&report.request);
        }
        println!("requests_per_s {:.1}", all.request.count() as f64 / took.as_secs_f64());
        println!("refused_percent {:.2}", 100.0 * f64::from(refused) / f64::from(arrived.max(1)));
        all.wakeup.print("wakeup");
        all.request.print("request");
        Ok(())
    }

    /// Hands requests over until the time is up; tells how many arrived, how many were refused, and the time.
    fn receive(
        &self,
        cpus: usize,
        workers: &[Sender<Request>],
        idle: &Idle,
    ) -> Result<(u32, u32, Duration)> {
        exact_timers()?;
        let mean_gap_us = self.work_us as f64 / (cpus as f64 * self.load_percent / 100.0);
        let mut chance = Chance(1);
        let begin = Instant::now();
        let end = begin + Duration::from_secs_f64(self.seconds);
        let (mut arrives, mut arrived, mut refused) = (begin, 0, 0);
        loop {
            let gap_us = -(1.0 - chance.next()).ln() * mean_gap_us;
            arrives += Duration::from_secs_f64(gap_us / 1e6);
            if arrives >= end {
                sleep_until(end);
                return Ok((arrived, refused, begin.elapsed()));
            }
            sleep_until(arrives);
            arrived += 1;
            let worker = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match worker {
                None => refused += 1,
                Some(worker) => {
                    let request = Request { arrived: arrives, handed_over: Instant::now() };
                    let inbox = workers.get(worker).context("an unknown worker")?;
                    inbox.send(request).ok().context("handing a request to a worker")?;
                }
            }
        }
    }
}
