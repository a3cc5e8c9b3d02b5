//! Entries of two trees, drawn evenly without walking them.
//!
//! A draw goes down from the root and at each directory takes one of its entries, or goes on into one of its
//! subdirectories, by chance. How likely a path was is known, and its inverse is the weight of what was drawn: so sums
//! over all entries are estimated without bias, whatever the odds were (Knuth, *Estimating the efficiency of backtrack
//! programs*, 1975). The odds are learned: a subdirectory is entered in proportion to what is believed to be below it,
//! which is counted where somebody has been and taken from the others of its depth where nobody has. The better that is
//! known, the more alike the weights become; [`effective`] says how many equal draws they are worth.
//!
//! Drawn from are the entries of the source, and those of the target that the source does not have. Whether it has one is
//! only asked when it was drawn: what is in both belongs to the source's part, and such a draw of the target's is void. (To
//! draw the target's less often would save that, and what only the target has, though not seen, would weigh the more: no bound
//! could tell of it.)

use std::ffi::{CStr, CString};
use treeferry_core::{Failure, RelPath, Side};

/// Names kept of a directory, of each side, where there are more than are wanted; others take their turn when it is listed again.
const NAMES: usize = 256;
/// Subdirectories kept of a directory, of each side: a random part stands for all.
const DIRS: usize = 4096;
/// A directory of more names is not listed anew for each draw.
const LARGE: u64 = 4096;

/// The two trees.
pub trait Trees {
    /// Tells all entries of a directory with whether they are directories. `Ok(false)`: it is not there.
    fn list(&mut self, side: Side, dir: &RelPath, each: &mut dyn FnMut(&CStr, bool))
    -> Result<bool, Failure>;
    /// Whether an entry is there, and whether it is a directory.
    fn find(&mut self, side: Side, path: &RelPath) -> Result<Option<bool>, Failure>;
}

/// What was drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// The entry.
    pub path: RelPath,
    /// How many entries it stands for.
    pub weight: f64,
}

/// Draws.
pub struct Sampler<T> {
    trees: T,
    rng: fastrand::Rng,
    nodes: Vec<Node>,
    /// What is expected below a directory in which nobody was, by depth.
    expected: Vec<f64>,
    expected_of: usize,
    /// Names, and subdirectories, kept of a directory of each side.
    keep: (usize, usize),
    /// Draws go on for long while the trees change.
    lasts: bool,
    /// Directories known, and names and subdirectories kept of them.
    held: usize,
    /// Directories that could not be read. What is in them is not part of any figure.
    pub failures: Vec<Failure>,
}

struct Node {
    path: RelPath,
    depth: usize,
    parts: [Part; 2],
    /// Somebody was in every directory below.
    explored: bool,
    /// What is believed to be in it and below it, in entries of either side.
    mass: f64,
}

/// What one side has in a directory.
#[derive(Default)]
struct Part {
    there: bool,
    count: u64,
    names: Vec<CString>,
    dirs: Vec<Child>,
    dir_count: u64,
}

struct Child {
    name: CString,
    node: Option<usize>,
    /// It is not there any more, cannot be read, or belongs to the other part.
    dead: bool,
}

const SIDES: [Side; 2] = [Side::Source, Side::Target];

/// As many equal draws as these weights are worth (Kish, *Survey Sampling*, 1965).
pub fn effective(weights: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut squares) = (0.0, 0.0);
    for w in weights {
        sum += w;
        squares += w * w;
    }
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

impl<T: Trees> Sampler<T> {
    /// Of these trees, of which all entries are wanted if they are at most so many.
    pub fn new(trees: T, seed: u64, most: u64) -> Result<Sampler<T>, Failure> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        Sampler::with(trees, seed, (NAMES.max(most), DIRS.max(most)), false)
    }

    /// Of trees that change while draws go on for hours: names are drawn from what a directory has then (of one with
    /// very many, from what it had when it was last listed). What is made in a directory that was not there when the one
    /// above was first seen cannot be drawn: so after a while another one has to begin.
    pub fn lasting(trees: T, seed: u64) -> Result<Sampler<T>, Failure> {
        Sampler::with(trees, seed, (0, DIRS), true)
    }

    fn with(trees: T, seed: u64, keep: (usize, usize), lasts: bool) -> Result<Sampler<T>, Failure> {
        let mut s = Sampler {
            trees,
            rng: fastrand::Rng::with_seed(seed),
            nodes: Vec::new(),
            expected: Vec::new(),
            expected_of: 0,
            keep,
            lasts,
            held: 0,
            failures: Vec::new(),
        };
        s.visit(RelPath::root(), 0, [true, true])?;
        Ok(s)
    }

    /// Draws once. `None`: void.
    pub fn draw(&mut self) -> Option<Drawn> {
        self.expect();
        let (mut at, mut trail, mut likely) = (0, vec![0], 1.0);
        let drawn = loop {
            match self.choose(at) {
                Choice::Nothing => break None,
                Choice::Name(side, p) => break self.name(at, side, likely * p),
                Choice::Below(side, i, p) => {
                    likely *= p;
                    let Some(next) = self.enter(at, side, i) else { break None };
                    at = next;
                    trail.push(at);
                }
            }
        };
        for n in trail.into_iter().rev() {
            self.nodes[n].mass = self.mass(n);
        }
        drawn
    }

    /// Learns: goes down to where no directory is left in which nobody was, each as likely as its siblings.
    pub fn explore(&mut self) {
        self.expect();
        let (mut at, mut trail) = (0, vec![0]);
        // what a wrong guess costs grows with what is below, and that shows at the bottom only
        while let Some((side, i)) = self.unexplored(at) {
            let Some(next) = self.enter(at, side, i) else { continue };
            at = next;
            trail.push(at);
        }
        for n in trail.into_iter().rev() {
            self.nodes[n].mass = self.mass(n);
            self.nodes[n].explored |= self.unexplored(n).is_none();
        }
    }

    /// How much is remembered: directories, and names and subdirectories kept of them.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Whether nothing is left to be learned.
    pub fn is_explored(&self) -> bool {
        self.nodes[0].explored
    }

    fn unexplored(&mut self, at: usize) -> Option<(usize, usize)> {
        let (mut chosen, mut n) = (None, 0u64);
        for side in 0..2 {
            for (i, c) in self.nodes[at].parts[side].dirs.iter().enumerate() {
                if !c.dead && c.node.is_none_or(|n| !self.nodes[n].explored) {
                    n += 1;
                    // most of the target's are the source's too
                    let odds = if side == 1 && chosen.is_some() { 8 * n } else { n };
                    if self.rng.u64(..odds) == 0 {
                        chosen = Some((side, i));
                    }
                }
            }
        }
        chosen
    }

    /// All entries there are, if they are at most so many; each stands for itself. If not, much is known afterwards of
    /// the upper levels, where a wrong guess would cost most.
    pub fn all(&mut self, most: u64) -> Option<Vec<Drawn>> {
        let all = self.walk(most);
        self.keep = (NAMES, DIRS);
        // below comes after above
        for n in (0..self.nodes.len()).rev() {
            self.nodes[n].mass = self.mass(n);
        }
        self.expect();
        all
    }

    fn walk(&mut self, most: u64) -> Option<Vec<Drawn>> {
        let mut next = 0;
        let mut sum = 0;
        while next < self.nodes.len() {
            sum += self.nodes[next].parts[0].count;
            let fits = |p: &Part| p.count as usize == p.names.len() && p.dir_count as usize == p.dirs.len();
            if sum > most || next as u64 > most || !self.nodes[next].parts.iter().all(fits) {
                return None;
            }
            for side in 0..2 {
                for i in 0..self.nodes[next].parts[side].dirs.len() {
                    // it is pushed to the end, and has its turn
                    self.enter(next, side, i);
                }
            }
            next += 1;
        }
        let mut all = Vec::new();
        for n in 0..self.nodes.len() {
            for side in 0..2 {
                for name in self.nodes[n].parts[side].names.clone() {
                    let path = self.nodes[n].path.child(&name);
                    if self.is_part(n, side, &path) {
                        all.push(Drawn { path, weight: 1.0 });
                    }
                }
            }
        }
        Some(all)
    }

    fn visit(&mut self, path: RelPath, depth: usize, sides: [bool; 2]) -> Result<usize, Failure> {
        let mut node = Node { path, depth, parts: Default::default(), explored: false, mass: 0.0 };
        for (n, side) in SIDES.into_iter().enumerate().filter(|(n, _)| sides[*n]) {
            node.parts[n] = self.read(side, &node.path, self.keep)?;
        }
        self.held += 1 + node.parts.iter().map(|p| p.names.len() + p.dirs.len()).sum::<usize>();
        self.nodes.push(node);
        let n = self.nodes.len() - 1;
        self.nodes[n].mass = self.mass(n);
        Ok(n)
    }

    /// `keep`: so many names and subdirectories.
    fn read(&mut self, side: Side, path: &RelPath, keep_of: (usize, usize)) -> Result<Part, Failure> {
        let mut part = Part::default();
        let (rng, (names, dirs)) = (&mut self.rng, keep_of);
        part.there = self.trees.list(side, path, &mut |name, is_dir| {
            part.count += 1;
            keep(rng, &mut part.names, names, part.count, || name.to_owned());
            if is_dir {
                part.dir_count += 1;
                let child = || Child { name: name.to_owned(), node: None, dead: false };
                keep(rng, &mut part.dirs, dirs, part.dir_count, child);
            }
        })?;
        // they are taken from the end
        rng.shuffle(&mut part.names);
        Ok(part)
    }

    fn choose(&mut self, at: usize) -> Choice {
        let total = self.mass(at);
        if total <= 0.0 {
            return Choice::Nothing;
        }
        let mut left = self.rng.f64() * total;
        let mut last = Choice::Nothing;
        for side in 0..2 {
            let part = &self.nodes[at].parts[side];
            let own = self.own(part);
            if own > 0.0 {
                last = Choice::Name(side, 1.0 / total);
                if left < own {
                    return last;
                }
                left -= own;
            }
            let each = part.dir_count as f64 / part.dirs.len().max(1) as f64;
            for (i, c) in part.dirs.iter().enumerate() {
                let mass = each * self.mass_of(c, self.nodes[at].depth + 1);
                if mass > 0.0 {
                    // of all that might have been kept this one was, once in `each`
                    last = Choice::Below(side, i, mass / total / each);
                    if left < mass {
                        return last;
                    }
                    left -= mass;
                }
            }
        }
        // a rounding error
        last
    }

    /// One of the names of a directory, which was this likely.
    fn name(&mut self, at: usize, side: usize, likely: f64) -> Option<Drawn> {
        let part = &self.nodes[at].parts[side];
        let mut likely = likely;
        if part.names.is_empty() || (self.lasts && part.count <= LARGE) {
            let (path, then, old) = (self.nodes[at].path.clone(), self.own(part), part.names.len());
            match self.read(SIDES[side], &path, (NAMES, 0)) {
                Ok(again) => {
                    self.held = (self.held + again.names.len()).saturating_sub(old);
                    // it was as likely as one of those that there were, and is one of those that there are
                    likely *= then / again.count.max(1) as f64;
                    let part = &mut self.nodes[at].parts[side];
                    (part.count, part.names) = (again.count, again.names);
                }
                Err(e) => self.failures.push(e),
            }
        }
        let part = &mut self.nodes[at].parts[side];
        let name = part.names.pop()?;
        self.held = self.held.saturating_sub(1);
        if self.lasts && part.count <= LARGE {
            self.held = self.held.saturating_sub(part.names.len());
            part.names = Vec::new();
        }
        let path = self.nodes[at].path.child(&name);
        self.is_part(at, side, &path).then(|| Drawn { path, weight: 1.0 / likely })
    }

    /// Whether an entry that a side had when it was listed is of that side's part: what is in both is of the source's.
    fn is_part(&mut self, at: usize, side: usize, path: &RelPath) -> bool {
        let in_source = match self.nodes[at].parts[0].there {
            true => self.trees.find(Side::Source, path).map(|found| found.is_some()),
            false => Ok(false),
        };
        in_source.map(|is| is == (side == 0)).unwrap_or_else(|e| {
            self.failures.push(e);
            false
        })
    }

    /// Goes into a subdirectory.
    fn enter(&mut self, at: usize, side: usize, i: usize) -> Option<usize> {
        let node = &self.nodes[at];
        let child = &node.parts[side].dirs[i];
        if child.dead || child.node.is_some() {
            return child.node;
        }
        let (path, depth) = (node.path.child(&child.name), node.depth + 1);
        let both = node.parts[0].there && node.parts[1].there;
        let entered = (|| {
            let sides = if side == 0 { [true, both] } else { [false, true] };
            // a directory of both is reached as one of the source
            if side == 1 && both && self.trees.find(Side::Source, &path)? == Some(true) {
                return Ok(None);
            }
            let n = self.visit(path, depth, sides)?;
            Ok(Some(n).filter(|n| self.nodes[*n].parts[side].there))
        })();
        let entered = entered.unwrap_or_else(|e| {
            self.failures.push(e);
            None
        });
        let child = &mut self.nodes[at].parts[side].dirs[i];
        child.node = entered;
        child.dead = entered.is_none();
        entered
    }

    /// How often an entry of this part is drawn, rather than one below. Where nothing is there may be something later.
    fn own(&self, part: &Part) -> f64 {
        let least = u64::from(self.lasts && part.there);
        part.count.max(least) as f64
    }

    fn mass(&self, n: usize) -> f64 {
        let node = &self.nodes[n];
        let of = |side: usize| {
            let part = &node.parts[side];
            let each = part.dir_count as f64 / part.dirs.len().max(1) as f64;
            let below: f64 = part.dirs.iter().map(|c| self.mass_of(c, node.depth + 1)).sum();
            self.own(part) + each * below
        };
        of(0) + of(1)
    }

    fn mass_of(&self, c: &Child, depth: usize) -> f64 {
        match c.node {
            _ if c.dead => 0.0,
            Some(n) => self.nodes[n].mass,
            None => self.expected.get(depth).copied().unwrap_or(1.0).max(1.0),
        }
    }

    /// Learns what to expect, each time that a quarter more is known.
    fn expect(&mut self) {
        if self.nodes.len() < self.expected_of + self.expected_of / 4 + 1 {
            return;
        }
        self.expected_of = self.nodes.len();
        let mut sums: Vec<(f64, f64)> = Vec::new();
        for n in self.nodes.iter().filter(|n| n.parts[0].there) {
            if sums.len() <= n.depth {
                sums.resize(n.depth + 1, (0.0, 0.0));
            }
            sums[n.depth].0 += n.mass;
            sums[n.depth].1 += 1.0;
        }
        self.expected = sums.into_iter().map(|(sum, n)| sum / f64::max(n, 1.0)).collect();
        // where nobody was there may be as much as one level above
        self.expected.extend(self.expected.last().copied());
    }
}

enum Choice {
    Nothing,
    /// One of the names of a side; how likely each is.
    Name(usize, f64),
    /// A subdirectory of a side; how likely it is.
    Below(usize, usize, f64),
}

/// Keeps `most` of a stream, each as likely as any other (Vitter's algorithm R); `n`: how many there were with this one.
fn keep<X>(rng: &mut fastrand::Rng, all: &mut Vec<X>, most: usize, n: u64, x: impl FnOnce() -> X) {
    if all.len() < most {
        all.push(x());
    } else {
        let at = rng.u64(..n) as usize;
        if at < most {
            all[at] = x();
        }
    }
}

#[cfg(test)]
mod tests;
