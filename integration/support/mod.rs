//! Shared helpers of the suites: real etcd processes, ports, conditions with a deadline.

pub(crate) mod certs;
pub(crate) mod etcd;
pub(crate) mod gate;
pub(crate) mod process;
pub(crate) mod roles;
pub(crate) mod wait;
