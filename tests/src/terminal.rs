//! A terminal of a test's own: a pseudo-terminal in which a program runs, and what its user would see.

use crate::PATIENCE;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use treeferry_kit::run::wait_until;

/// A program in a terminal; killed if it is dropped before it has ended.
pub struct Terminal {
    child: Child,
    /// The side of the user.
    user: File,
    line: OwnedFd,
    before: Termios,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts a command in a terminal of so many columns and rows; its standard error is its own, and is kept.
    ///
    /// # Panics
    /// When there is no pseudo-terminal to be had.
    #[track_caller]
    pub fn start(command: &mut Command, columns: u16, rows: u16) -> Terminal {
        Terminal::open(command, None, columns, rows)
    }

    /// The same with something else as standard input.
    #[track_caller]
    pub fn start_with(command: &mut Command, input: Stdio, columns: u16, rows: u16) -> Terminal {
        Terminal::open(command, Some(input), columns, rows)
    }

    #[track_caller]
    fn open(command: &mut Command, input: Option<Stdio>, columns: u16, rows: u16) -> Terminal {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&user).and_then(|()| unlockpt(&user)).expect("our own pty");
        let name = ptsname(&user, Vec::new()).expect("its name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let line = rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).expect("its other side");
        tcsetwinsize(&user, size(columns, rows)).expect("a size");
        let before = tcgetattr(&line).expect("its settings");
        let end = || Stdio::from(line.try_clone().expect("a descriptor"));
        let child = command.stdin(input.unwrap_or_else(end)).stdout(end()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let screen = Arc::new(Mutex::new(vt100::Parser::new(some(rows), some(columns), 0)));
        let user = File::from(user);
        let (mut from, to) = (user.try_clone().expect("a descriptor"), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut block = [0; 4096];
            // an error is the end: nobody holds the other side any more
            while let Ok(n @ 1..) = from.read(&mut block) {
                to.lock().unwrap_or_else(PoisonError::into_inner).process(&block[..n]);
            }
        });
        Terminal { child, user, line, before, screen }
    }

    /// What is on the screen, a line for each row.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen().contents()
    }

    /// Waits until the screen shows something.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl Fn(&str) -> bool) {
        let mut last = String::new();
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until(what, PATIENCE, || {
                last = self.text();
                condition(&last)
            });
        }));
        if seen.is_err() {
            panic!("never seen: {what}; the screen is\n{}", self.text());
        }
    }

    /// Types.
    ///
    /// # Panics
    /// When they are not taken.
    #[track_caller]
    pub fn type_in(&self, keys: &str) {
        (&self.user).write_all(keys.as_bytes()).expect("keys are taken");
    }

    /// Makes the terminal larger or smaller.
    ///
    /// # Panics
    /// When the program is gone.
    #[track_caller]
    pub fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(self.user.as_fd(), size(columns, rows)).expect("a size");
        self.screen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .screen_mut()
            .set_size(some(rows), some(columns));
        // the kernel tells the foreground group of a controlling terminal, which this is not
        self.signal(Signal::WINCH);
    }

    /// Sends the program a signal.
    ///
    /// # Panics
    /// When it is gone.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child takes signals");
    }

    /// Whether a program has the whole screen.
    pub fn is_taken(&self) -> bool {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        screen.screen().alternate_screen() && self.modes() != modes(&self.before)
    }

    /// Whether anything on the screen has a colour.
    pub fn has_colour(&self) -> bool {
        let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
        let (rows, columns) = screen.screen().size();
        let cells = (0..rows.get()).flat_map(|y| (0..columns.get()).map(move |x| (y, x)));
        let mut found = cells.filter_map(|(y, x)| screen.screen().cell(y, x));
        found.any(|c| c.fgcolor() != vt100::Color::Default || c.bgcolor() != vt100::Color::Default)
    }

    /// Waits for the end of the program, and returns it with what it wrote to standard error.
    #[track_caller]
    pub fn end(&mut self) -> (ExitStatus, String) {
        let mut status = None;
        wait_until("the program has ended", PATIENCE, || {
            status = self.child.try_wait().expect("our own child");
            status.is_some()
        });
        let mut said = String::new();
        if let Some(mut e) = self.child.stderr.take() {
            e.read_to_string(&mut said).expect("words");
        }
        (status.expect("waited for"), said)
    }

    /// Fails unless the terminal is as it was before the program.
    #[track_caller]
    pub fn assert_restored(&self) {
        assert_eq!(self.modes(), modes(&self.before), "settings of the terminal");
        // what the program wrote last may still be on its way through our own thread
        wait_until("the former screen and the cursor are back", PATIENCE, || {
            let screen = self.screen.lock().unwrap_or_else(PoisonError::into_inner);
            let s = screen.screen();
            !s.alternate_screen() && !s.hide_cursor() && !s.bracketed_paste()
        });
    }

    fn modes(&self) -> [u64; 4] {
        modes(&tcgetattr(&self.line).expect("settings"))
    }
}

fn modes(t: &Termios) -> [u64; 4] {
    [
        t.input_modes.bits().into(),
        t.output_modes.bits().into(),
        t.control_modes.bits().into(),
        t.local_modes.bits().into(),
    ]
}

fn some(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).expect("a terminal has rows and columns")
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
