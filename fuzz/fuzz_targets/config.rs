//! A configuration file, by the way that a user's takes: it is good, or refused in one line with exit code 2.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nix::sys::memfd::{MFdFlags, memfd_create};
use scheduler::{
    cli::{self, Request},
    exit::Exit,
};
use std::{fs::File, io::Write, os::fd::AsRawFd};

fuzz_target!(|bytes: &[u8]| {
    let memory = memfd_create(c"config", MFdFlags::MFD_CLOEXEC).expect("room for a file");
    let mut file = File::from(memory);
    file.write_all(bytes).expect("written");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    match cli::parse(["scheduler", "config", "check", &path], None) {
        Ok(Request::Check(_, settings)) => drop(settings),
        Ok(other) => panic!("{other:?}"),
        Err(failure) => {
            assert_eq!(failure.exit, Exit::Usage);
            let line = format!("{:#}", failure.error);
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
});
