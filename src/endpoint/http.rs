//! Metrics over HTTP/1.1: one request a connection, of one page. Servers to be had as crates wait for slow clients, a thread
//! for each; this one shares the bounds of [`super::client`].

use super::{
    Accepted, Listener, Samples,
    client::{Answer, Client, PATIENCE, Protocol},
};
use crate::{
    exit::{Exit, Failure},
    stats::metrics::{self, Dialect},
};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// The path of the page.
const PATH: &str = "/metrics";
/// Headers of a request.
const HEADERS_MAX: usize = 64;
const PLAIN: &str = "text/plain; charset=utf-8";

/// Where metrics are asked for.
pub struct MetricsSocket(TcpListener);

impl MetricsSocket {
    /// Listens at `address`.
    ///
    /// # Errors
    /// When the address is not this machine's, or taken.
    pub fn listen(address: SocketAddr) -> Result<Self, Failure> {
        let listen = || {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        listen().map(Self).map_err(|error: io::Error| {
            let why =
                format!("listening for '--metrics {address}': {error}; choose another address");
            Failure::new(Exit::Failed, why)
        })
    }

    /// The address, with the port that was chosen if that was 0.
    ///
    /// # Errors
    /// None that is known.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsFd for MetricsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener for MetricsSocket {
    fn accept(&self) -> io::Result<Accepted> {
        match self.0.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                Ok(Accepted::Client(Box::new(Client::new(stream, Http))))
            }
            Err(error) => super::not_accepted(error),
        }
    }
}

struct Http;

impl Protocol for Http {
    fn request_len(&self, input: &[u8]) -> Option<usize> {
        const END: &[u8] = b"\r\n\r\n";
        Some(input.windows(END.len()).position(|bytes| bytes == END)? + END.len())
    }

    fn answer(&mut self, request: &[u8], samples: &mut Samples<'_>) -> Answer {
        Answer { bytes: respond(request, samples), is_last: true }
    }

    fn too_long(&self) -> Vec<u8> {
        response("431 Request Header Fields Too Large", PLAIN, "the request is too long\n", true)
    }

    /// A request comes with its connection.
    fn silence_max(&self) -> Duration {
        PATIENCE
    }
}

fn respond(request: &[u8], samples: &mut Samples<'_>) -> Vec<u8> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let (Ok(_), Some(method), Some(target)) = (head.parse(request), head.method, head.path) else {
        return response("400 Bad Request", PLAIN, "no request of HTTP/1.1\n", true);
    };
    let with_body = method != "HEAD";
    if !["GET", "HEAD"].contains(&method) {
        return response("405 Method Not Allowed", PLAIN, "GET is allowed\n", with_body);
    }
    if target.split('?').next() != Some(PATH) {
        return response("404 Not Found", PLAIN, "the metrics are at /metrics\n", with_body);
    }
    let accepts = |what: &str| {
        head.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("accept")
                && String::from_utf8_lossy(header.value).contains(what)
        })
    };
    let dialect = match accepts("application/openmetrics-text") {
        true => Dialect::OpenMetrics,
        false => Dialect::Prometheus,
    };
    match samples.now() {
        Ok(sample) => {
            let page = metrics::render(&sample, dialect);
            response("200 OK", dialect.content_type(), &page, with_body)
        }
        Err(error) => {
            response("500 Internal Server Error", PLAIN, &format!("{error:#}\n"), with_body)
        }
    }
}

fn response(status: &str, content_type: &str, body: &str, with_body: bool) -> Vec<u8> {
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         {allow}Connection: close\r\n\r\n",
        body.len()
    );
    (head + if with_body { body } else { "" }).into_bytes()
}
