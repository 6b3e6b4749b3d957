//! A machine that is made up, whose statistics are served as those of a real one.

use anyhow::Result;
use scheduler::{
    bpf::intf::task_sample,
    endpoint::{Endpoints, Source},
    machine::stop::{Stop, Wake},
    stats::{demo::Demo, sample::Sample},
};
use std::{
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often the source was asked.
#[derive(Debug, Default)]
pub struct Asked {
    pub samples: AtomicU64,
    pub tasks: AtomicU64,
    pub forgotten: AtomicU64,
    /// Times that the serving thread woke.
    pub wakes: AtomicU64,
}

struct Machine {
    demo: Demo,
    asked: Arc<Asked>,
}

impl Source for Machine {
    fn sample(&mut self) -> Result<Sample> {
        self.asked.samples.fetch_add(1, Relaxed);
        self.demo.advance(Duration::from_secs(1));
        Ok(self.demo.sample())
    }

    fn tasks(&mut self) -> Result<Vec<task_sample>> {
        self.asked.tasks.fetch_add(1, Relaxed);
        Ok(self.demo.tasks())
    }

    fn profile(&mut self, name: Option<&str>) -> Result<Vec<String>, String> {
        match name {
            None => Ok(vec!["profile = \"auto\" (default)".to_owned()]),
            Some("gaming") => Ok(vec!["profile = \"gaming\"".to_owned(), "\x1b[31m".to_owned()]),
            Some(_) => Err("there is no such profile".to_owned()),
        }
    }

    fn rules(&mut self) -> Vec<String> {
        Demo::rules()
    }

    fn explain(&mut self, of: Option<&str>) -> Result<Vec<String>, String> {
        match of {
            None => Ok(vec!["no rule: 24 tasks".to_owned()]),
            Some("7") => Ok(vec!["task 7".to_owned(), "\x1b[31m".to_owned()]),
            Some(_) => Err("there is no such task".to_owned()),
        }
    }

    fn forget_tasks(&mut self) {
        self.asked.forgotten.fetch_add(1, Relaxed);
    }
}

/// A thread that serves until it is dropped.
pub struct Served {
    pub asked: Arc<Asked>,
    thread_id: i32,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// With the listeners that `add` makes for a machine of four CPUs.
    pub fn start(add: impl FnOnce(&mut Endpoints, Rc<Sample>) + Send + 'static) -> Self {
        let asked = Arc::new(Asked::default());
        let stop = Stop::new().expect("an event");
        let (told, asked_too) = (stop.clone(), asked.clone());
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut machine = Machine { demo: Demo::new(4), asked: asked_too };
            let mut endpoints = Endpoints::default();
            add(&mut endpoints, Rc::new(machine.demo.sample()));
            ready.send(nix::unistd::gettid().as_raw()).expect("somebody waits");
            loop {
                let wake = endpoints.wait(&told, &[], Duration::from_millis(500));
                machine.asked.wakes.fetch_add(1, Relaxed);
                match wake {
                    Wake::Stop => return,
                    Wake::Ready => endpoints.serve(&mut machine),
                    Wake::Timeout => {}
                }
            }
        });
        let thread_id = is_ready.recv().expect("it listens");
        Self { asked, thread_id, stop, thread: Some(thread) }
    }

    /// CPU time that the serving thread has taken.
    pub fn cpu_time(&self) -> Duration {
        let path = format!("/proc/self/task/{}/schedstat", self.thread_id);
        let text = std::fs::read_to_string(path).expect("schedstat");
        let ns = text.split(' ').next().and_then(|n| n.parse().ok()).expect("a time");
        Duration::from_nanos(ns)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.trigger();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the serving thread ends well");
        }
    }
}
