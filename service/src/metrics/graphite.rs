//! Graphite's plaintext protocol: a line for each value, over one TCP connection that is made again when it breaks.
//!
//! Graphite confirms nothing, and what was written to a connection that then broke may not have arrived. So what was
//! sent is kept for a while, and sent again over the next connection: a value that comes twice changes nothing, since
//! it has its name and its time. What is kept is bounded; beyond that the oldest values are dropped, counted and told.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A connection that takes nothing for so long is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts to connect: from this, doubled, to [`MOST_REST`].
const FIRST_REST: Duration = Duration::from_millis(500);
const MOST_REST: Duration = Duration::from_secs(60);
/// A value that was sent over a connection that lives so much longer has arrived.
const SETTLED: Duration = Duration::from_secs(30);
/// Values in one write.
const AT_ONCE: usize = 500;
/// At the end of a process what is left may take so long.
const FAREWELL: Duration = Duration::from_secs(3);

/// A sender to one Graphite.
pub struct Graphite {
    shared: Arc<Shared>,
}

struct Shared {
    address: String,
    capacity: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// What is to be sent, and what was.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<String>,
    /// With the time of sending, over the present connection.
    sent: VecDeque<(Instant, String)>,
    dropped: u64,
    /// No more comes; and by when what there is must have gone.
    end: Option<Instant>,
    /// The sender has ended.
    is_over: bool,
}

impl Queue {
    /// Takes a line in, and drops the oldest if there is no room.
    fn push(&mut self, line: String, capacity: usize) {
        self.waiting.push_back(line);
        while self.waiting.len() + self.sent.len() > capacity {
            if self.sent.pop_front().is_none() {
                self.waiting.pop_front();
                self.dropped += 1;
            }
        }
    }

    /// Moves the next lines to those that were sent, and gives their text.
    fn next(&mut self, now: Instant) -> Option<String> {
        while self.sent.front().is_some_and(|(at, _)| now.duration_since(*at) > SETTLED) {
            self.sent.pop_front();
        }
        let n = self.waiting.len().min(AT_ONCE);
        let lines: Vec<String> = self.waiting.drain(..n).collect();
        let text = lines.concat();
        self.sent.extend(lines.into_iter().map(|l| (now, l)));
        (n > 0).then_some(text)
    }

    /// The connection broke: what was sent over it is to be sent again.
    fn undo(&mut self) {
        while let Some((_, line)) = self.sent.pop_back() {
            self.waiting.push_front(line);
        }
    }
}

impl Graphite {
    /// Starts to send to HOST:PORT, whether it is there or not.
    pub fn start(address: &str, capacity: usize) -> io::Result<Graphite> {
        let shared = Arc::new(Shared {
            address: address.to_owned(),
            capacity,
            queue: Mutex::default(),
            changed: Condvar::new(),
        });
        let s = Arc::clone(&shared);
        std::thread::Builder::new().name("tf-graphite".to_owned()).spawn(move || {
            send(&s);
            s.lock().is_over = true;
            s.changed.notify_all();
        })?;
        Ok(Graphite { shared })
    }

    /// Takes values on: a line each, with its end. Never waits for the network.
    pub fn push(&self, lines: impl IntoIterator<Item = String>) {
        let mut q = self.shared.lock();
        lines.into_iter().for_each(|l| q.push(l, self.shared.capacity));
        drop(q);
        self.shared.changed.notify_all();
    }

    /// How many values were dropped.
    pub fn dropped(&self) -> u64 {
        self.shared.lock().dropped
    }

    /// Sends what is left, and waits a moment for Graphite to have taken it. Returns how many values were not sent.
    pub fn finish(&self) -> usize {
        let mut q = self.shared.lock();
        q.end = Some(Instant::now() + FAREWELL);
        self.shared.changed.notify_all();
        // the sender may hang in the search for a name, which has no end that could be set: it is left alone then
        let patience = FAREWELL + Duration::from_millis(500);
        let over = self.shared.changed.wait_timeout_while(q, patience, |q| !q.is_over);
        q = over.unwrap_or_else(PoisonError::into_inner).0;
        q.waiting.len()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to send. `false`: there is nothing, and nothing more comes.
    fn wait(&self) -> bool {
        let mut q = self.lock();
        while q.waiting.is_empty() {
            if q.end.is_some() {
                return false;
            }
            q = self.changed.wait(q).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Rests, or until the end has come. `false`: there is no time for another attempt.
    fn rest(&self, rest: Duration) -> bool {
        let until = Instant::now() + rest;
        let mut q = self.lock();
        let had_end = q.end.is_some();
        loop {
            let now = Instant::now();
            match q.end {
                // one attempt more is made at once when the end comes
                Some(end) if !had_end => return now < end,
                Some(end) if now >= end => return false,
                _ if now >= until => return true,
                _ => q = self.changed.wait_timeout(q, until - now).unwrap_or_else(PoisonError::into_inner).0,
            }
        }
    }

    fn end(&self) -> Option<Instant> {
        self.lock().end
    }
}

fn send(s: &Shared) {
    let (mut open, mut rest, mut away) = (None::<TcpStream>, FIRST_REST, None::<u64>);
    loop {
        if !s.wait() {
            // what was sent last is known to have arrived when Graphite, too, ends the connection
            match open.take().map(say_farewell) {
                Some(Err(e)) if s.end().is_some_and(|end| Instant::now() < end) => {
                    tracing::debug!("Graphite at {}: {e}", s.address);
                    s.lock().undo();
                    if s.lock().waiting.is_empty() {
                        return;
                    }
                }
                _ => return,
            }
        }
        if open.as_ref().is_some_and(has_ended) {
            open = None;
            s.lock().undo();
        }
        let wrote = match open.take() {
            Some(stream) => Ok(stream),
            None => connect(&s.address, s.end()),
        }
        .and_then(|mut stream| {
            let text = s.lock().next(Instant::now()).unwrap_or_default();
            stream.write_all(text.as_bytes())?;
            Ok(stream)
        });
        match wrote {
            Ok(stream) => {
                if let Some(before) = away.take() {
                    let dropped = s.lock().dropped - before;
                    tracing::warn!("Graphite at {} is back; {dropped} values were dropped", s.address);
                }
                (open, rest) = (Some(stream), FIRST_REST);
            }
            Err(e) => {
                let mut q = s.lock();
                q.undo();
                if away.is_none() {
                    away = Some(q.dropped);
                    let n = s.capacity;
                    tracing::warn!(
                        "Graphite at {}: {e}: up to {n} values are kept until it is back",
                        s.address
                    );
                }
                drop(q);
                if !s.rest(rest) {
                    return;
                }
                rest = (rest * 2).min(MOST_REST);
            }
        }
    }
}

/// Connects to the first address of the host that answers.
fn connect(address: &str, end: Option<Instant>) -> io::Result<TcpStream> {
    let left = end.map_or(PATIENCE, |end| end.saturating_duration_since(Instant::now()).min(PATIENCE));
    let left = left.max(Duration::from_millis(100));
    let mut error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for a in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&a, left) {
            Ok(stream) => {
                stream.set_write_timeout(Some(left))?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(e) => error = e,
        }
    }
    Err(error)
}

/// Whether the other side has ended the connection, as far as is known here.
fn has_ended(stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return true;
    }
    // Graphite never says anything
    let ended = match (&*stream).read(&mut [0; 64]) {
        Ok(n) => n == 0,
        Err(e) => e.kind() != io::ErrorKind::WouldBlock,
    };
    ended || stream.set_nonblocking(false).is_err()
}

/// Ends our half of the connection and waits for the other half to end, which it does when all was read.
fn say_farewell(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    stream.set_read_timeout(Some(FAREWELL))?;
    while stream.read(&mut [0; 64])? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::io::BufRead;
    use std::net::TcpListener;
    use std::sync::mpsc;

    fn lines(range: std::ops::Range<usize>) -> Vec<String> {
        range.map(|n| format!("a.b {n} 1000\n")).collect()
    }

    #[test]
    fn the_oldest_values_are_dropped_and_counted_and_those_sent_already_are_no_loss() {
        let mut q = Queue::default();
        lines(0..7).into_iter().for_each(|l| q.push(l, 5));
        assert_eq!((q.dropped, q.waiting.front().unwrap().as_str()), (2, "a.b 2 1000\n"));
        let now = Instant::now();
        assert_eq!(q.next(now).unwrap(), lines(2..7).concat());
        assert_eq!(q.next(now), None);
        lines(7..9).into_iter().for_each(|l| q.push(l, 5));
        assert_eq!((q.dropped, q.sent.len(), q.waiting.len()), (2, 3, 2));
        q.undo();
        assert_eq!(q.next(now).unwrap(), lines(4..9).concat(), "in their order");
        assert!(q.next(now + SETTLED * 2).is_none() && q.sent.is_empty(), "they have arrived");
    }

    /// Reads so many lines of a connection and then closes it, with what it has not read.
    fn read_some(server: &TcpListener, most: usize) -> Vec<String> {
        let (stream, _) = server.accept().unwrap();
        let mut got = Vec::new();
        for line in io::BufReader::new(stream).split(b'\n').take(most) {
            match line {
                Ok(l) => got.push(String::from_utf8(l).unwrap()),
                Err(_) => break,
            }
        }
        got
    }

    #[test]
    fn nothing_is_lost_by_a_server_that_closes_connections() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let g = Graphite::start(&server.local_addr().unwrap().to_string(), 100_000).unwrap();
        let (out, got) = mpsc::channel();
        std::thread::spawn(move || {
            for most in [1, 700, 3, 40, usize::MAX] {
                read_some(&server, most).into_iter().for_each(|l| out.send(l).unwrap());
            }
        });
        for n in 0..20 {
            g.push(lines(n * 100..(n + 1) * 100));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!((g.finish(), g.dropped()), (0, 0));
        let got: BTreeSet<String> = got.iter().map(|l| l + "\n").collect();
        let missing: Vec<String> = lines(0..2000).into_iter().filter(|l| !got.contains(l)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn what_comes_while_nobody_listens_is_sent_later_and_beyond_the_bound_it_is_counted() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        drop(server);
        let g = Graphite::start(&address.to_string(), 150).unwrap();
        g.push(lines(0..200));
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(g.dropped(), 50);
        let server = TcpListener::bind(address).unwrap();
        let reader = std::thread::spawn(move || read_some(&server, usize::MAX));
        std::thread::sleep(FIRST_REST * 4);
        g.push(lines(200..210));
        assert_eq!(g.finish(), 0);
        let got: BTreeSet<String> = reader.join().unwrap().into_iter().map(|l| l + "\n").collect();
        assert_eq!(got, lines(50..210).into_iter().collect());
    }

    #[test]
    fn the_end_does_not_wait_for_one_that_never_was_there() {
        let g = Graphite::start("graphite.invalid:2003", 10).unwrap();
        g.push(lines(0..3));
        let began = Instant::now();
        assert_eq!(g.finish(), 3);
        assert!(began.elapsed() < FAREWELL * 2, "{:?}", began.elapsed());
    }

    #[test]
    fn the_end_does_not_wait_for_one_that_takes_nothing() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let g = Graphite::start(&server.local_addr().unwrap().to_string(), 10).unwrap();
        g.push(lines(0..3));
        let began = Instant::now();
        g.finish();
        assert!(began.elapsed() < FAREWELL * 3, "{:?}", began.elapsed());
    }
}
