//! Failures of single system calls, injected by call, path and errno: what passes is tried again, what does not
//! is named once, nothing else suffers, and nothing is left behind.

#[path = "../checks/mod.rs"]
mod checks;
mod chunks;
mod deleting;
mod fallbacks;
mod permanent;
mod random;
mod scene;
mod transient;
