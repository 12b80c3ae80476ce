//! End to end on an ordinary host: real processes, real TLS, throw-away certificates. No cgroup controller is needed, and
//! neither root nor a writable cgroup; what needs the kernel's limits is in the `privileged` tests.

mod admission;
mod audit;
mod audit_log;
mod bad_input;
mod bad_limits;
mod caps;
mod certs;
mod config;
mod doctor;
mod exec_failures;
mod idempotence;
mod idle;
mod job_ends;
mod jobctl;
mod jobctl_run;
mod leaks;
mod lifecycle;
mod list;
mod output;
mod output_from;
mod output_limit;
mod output_volume;
mod policy;
mod policy_explain;
mod policy_reload;
mod policy_running;
mod policy_start;
mod pressure;
mod pressure_calls;
mod reconnect;
mod recovery;
mod remove;
mod roles;
mod spare;
mod support;
