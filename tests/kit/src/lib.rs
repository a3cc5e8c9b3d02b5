//! The test kit: makes trees, changes them at random, mounts file systems, runs
//! binaries, and judges whether two trees are alike.
//!
//! It is the witness against the rest of the project, so it shares no code with
//! it: nothing here may depend on another crate of the workspace. Trees are
//! deterministic: the same seed gives the same tree on every machine.

#![forbid(unsafe_code)]

pub mod caps;
pub mod mounts;
pub mod oracle;
pub mod put;
pub mod random;
pub mod rng;
pub mod run;
pub mod services;
pub mod tree;
