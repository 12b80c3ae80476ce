//! What only root on a kernel with all cgroup v2 controllers can show: real limits, real users, real kills.
//!
//! Made for the VM of `scripts/vm`: `/data` is an ext4 on `/dev/vdb1`, a partition of `/dev/vdb`; the root is an overlay,
//! `/tmp` a tmpfs; there are the users jobworker (990), alice (1001, also in the group 2001) and bob (1002). Jobs are
//! busybox scripts wherever that does: under software emulation a dynamically linked program takes 0.2 s to start.

mod birth;
mod clock;
mod controllers;
mod cpu;
mod defined;
mod disk;
mod doctor;
mod documents;
mod escape;
mod failing_disk;
mod full_disk;
mod held;
mod inputs;
mod jobs;
mod kills;
mod many;
mod measure;
mod memory;
mod metrics;
mod pids;
mod policy;
mod refusals;
mod setup;
mod stop;
mod trust;
mod unprivileged;
mod user;
