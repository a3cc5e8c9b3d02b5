//! Runs that are killed at chosen system calls, each kind of call that changes anything: what has its final name
//! is whole and dressed, and the next run finishes the job and leaves nothing of the dead one.

mod at_each_call;
#[path = "../checks/mod.rs"]
mod checks;
mod state;
