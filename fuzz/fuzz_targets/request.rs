//! What a client sends to the statistics socket: each line has one answer, a line of JSON with an error or a response.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scheduler::{
    bpf::intf::task_sample,
    endpoint::{Accepted, Endpoints, Listener, Source, client::Client, scx_stats::ScxStats},
    stats::{demo::Demo, sample::Sample},
};
use std::{
    cell::RefCell,
    io::{self, Read, Write},
    net::Shutdown,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    rc::Rc,
};

struct Machine(Demo);

impl Source for Machine {
    fn sample(&mut self) -> anyhow::Result<Sample> {
        Ok(self.0.sample())
    }

    fn tasks(&mut self) -> anyhow::Result<Vec<task_sample>> {
        Ok(self.0.tasks())
    }

    fn profile(&mut self, name: Option<&str>) -> Result<Vec<String>, String> {
        name.map_or(Ok(Vec::new()), |name| Err(name.to_owned()))
    }

    fn forget_tasks(&mut self) {}
}

/// One client, who is there already.
struct One {
    client: RefCell<Option<Client>>,
    end: UnixStream,
}

impl AsFd for One {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

impl Listener for One {
    fn accept(&self) -> io::Result<Accepted> {
        let client = self.client.borrow_mut().take();
        Ok(client.map_or(Accepted::None, |client| Accepted::Client(Box::new(client))))
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (server, mut client) = UnixStream::pair().expect("a pair");
    server.set_nonblocking(true).expect("a setting");
    client.set_nonblocking(true).expect("a setting");
    // More than a request may have, and less than the kernel takes at once.
    let bytes = &bytes[..bytes.len().min(16 * 1024)];
    client.write_all(bytes).expect("sent");
    client.shutdown(Shutdown::Write).expect("the end of it");
    let end = server.try_clone().expect("another descriptor");
    let mut machine = Machine(Demo::new(2));
    let start = Rc::new(machine.0.sample());
    let served = Client::new(server, ScxStats::since(start));
    let mut endpoints = Endpoints::default();
    endpoints.add(One { client: RefCell::new(Some(served)), end });
    // It rests after this, so that is one request.
    endpoints.serve(&mut machine);
    let mut answer = Vec::new();
    // All that there is; nobody closes the other end.
    let _ = client.read_to_end(&mut answer);
    if answer.is_empty() {
        assert!(!bytes.contains(&b'\n') && bytes.len() < 8192, "no answer");
        return;
    }
    assert!(answer.ends_with(b"\n"), "half a line");
    let line: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
    assert!(line["errno"].is_number() && line["args"]["resp"] != serde_json::Value::Null, "{line}");
});
