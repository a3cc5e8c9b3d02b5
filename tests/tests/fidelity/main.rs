//! What arrives is the same: each kind of entry and attribute, between every pair of file systems.

mod attributes;
#[path = "../checks/mod.rs"]
mod checks;
mod links;
mod names;
mod pairs;
mod sparse;
mod unsupported;
