//! The tasks, and the stack that the threads take them from: last in, first out, so
//! that the walk goes depth first and the stack stays short.

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::handles::{Big, Dir};

/// Something to do.
pub enum Task {
    /// Walk a directory; `target` is its name on the other side.
    Dir { parent: Option<Arc<Dir>>, name: CString, target: CString },
    /// Work on some names of a directory.
    Files(Arc<Dir>, Names),
    /// Copy the bytes from the first to the second offset.
    Chunk(Arc<Big>, u64, u64),
}

/// Names of one batch, NUL-terminated, end to end, with their inode numbers.
#[derive(Default)]
pub struct Names {
    bytes: Vec<u8>,
    at: Vec<(u64, u32)>,
}

impl Names {
    pub fn push(&mut self, inode: u64, name: &CStr) {
        self.at.push((inode, self.bytes.len() as u32));
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
    }

    pub fn len(&self) -> usize {
        self.at.len()
    }

    pub fn sort_by_inode(&mut self) {
        self.at.sort_unstable();
    }

    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.at
            .iter()
            .map(|&(_, at)| CStr::from_bytes_until_nul(&self.bytes[at as usize..]).unwrap_or_default())
    }
}

/// The stack of tasks; it ends when all that were pushed are done.
#[derive(Default)]
pub struct Queue {
    tasks: Mutex<Vec<Task>>,
    wake: Condvar,
    pending: AtomicUsize,
    idle: AtomicUsize,
}

impl Queue {
    pub fn push(&self, task: Task) {
        self.pending.fetch_add(1, Ordering::AcqRel);
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(task);
        if self.idle.load(Ordering::Acquire) > 0 {
            self.wake.notify_one();
        }
    }

    /// The next task; `None` when everything is done.
    pub fn pop(&self) -> Option<Task> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(task) = tasks.pop() {
                return Some(task);
            }
            if self.pending.load(Ordering::Acquire) == 0 {
                return None;
            }
            self.idle.fetch_add(1, Ordering::AcqRel);
            tasks = self.wake.wait(tasks).unwrap_or_else(PoisonError::into_inner);
            self.idle.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Says that a task, with all that it pushed, needs no more watching.
    pub fn done(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            drop(self.tasks.lock());
            self.wake.notify_all();
        }
    }
}
