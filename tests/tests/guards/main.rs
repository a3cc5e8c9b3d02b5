//! What must never happen: deleting by mistake, leaving the trees, taking a live run's files away.

mod leftovers;
mod nesting;
mod source_lost;
mod swaps;
