//! The machine of a build that has no adapters for one: there is none, and `boot` says so.

use std::net::IpAddr;

use crate::{
    config::Config,
    error::Error,
    machine::{self, Addresses, Container, Disks, Launch, Lifecycle, Prepared},
};

/// No value of this exists.
#[derive(Debug)]
pub enum NoMachine {}

impl NoMachine {
    /// Fails.
    pub fn new(_config: &Config) -> Result<Self, Error> {
        Err(Error::Request {
            problem: "this build cannot drive a machine".to_owned(),
            hint: "use a release of host-worker".to_owned(),
        })
    }
}

impl Disks for NoMachine {
    async fn prepare(&self) -> Result<Prepared, machine::Error> {
        match *self {}
    }
}

impl Container for NoMachine {
    async fn running(&self) -> Result<Option<Launch>, machine::Error> {
        match *self {}
    }

    async fn start(&self, _launch: &Launch) -> Result<(), machine::Error> {
        match *self {}
    }

    async fn stop(&self) -> Result<(), machine::Error> {
        match *self {}
    }
}

impl Addresses for NoMachine {
    fn has(&self, _address: IpAddr) -> bool {
        match *self {}
    }
}

impl Lifecycle for NoMachine {
    async fn heartbeat(&self) -> Result<bool, machine::Error> {
        match *self {}
    }

    async fn complete(&self) -> Result<(), machine::Error> {
        match *self {}
    }
}
