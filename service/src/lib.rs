//! Start and end of a long-running program: logging, signals, exit codes.
