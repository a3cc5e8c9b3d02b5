//! One file a command.

pub mod agent;
pub mod audit;
pub mod completions;
pub mod control;
pub mod doctor;
pub mod logs;
pub mod man;
pub mod mirror;
pub mod post;
pub mod report;
pub mod status;
pub mod sync;
pub mod top;
pub mod verify;
pub mod watch;
pub mod worker;
