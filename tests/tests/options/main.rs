//! Every option of `treeferry sync`, each by what it does to a tree: with the option missing, its test fails.

mod ages;
mod attributes;
mod chunks;
mod content;
mod deleting;
mod dry_run;
mod filters;
mod itemize;
mod limits;
mod output;
mod passes;
mod scene;
