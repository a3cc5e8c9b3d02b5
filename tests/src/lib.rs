//! What the end-to-end tests share: where the binary is, scratch directories on each file system, short ways
//! to run a sync and to compare trees.
