"""Operations on names that only this writer touches (`own_*`), and the facts that they log.

The number before the colon of an operation's docstring says how often it is drawn. One that cannot be done now returns None.
"""
import json
import os
import shutil

from .facts import last_number, now_us


class Own:
    """Part of a Writer, which has o, number, life, rng, src and serial."""

    def __init__(self):
        self.trees, self.facts = {}, 0
        self.proof = b"proof-%d" % self.number
        self.proven = last_number(os.path.join(self.src, self.proof))

    # what is true

    def true(self, kind, path, value=None):
        """Logs what is true from now on, and returns how to say that it is not."""
        self.facts += 1
        self.log({"n": self.facts, "k": kind, "p": path.decode("latin-1"), "v": value, "t": now_us()})
        return self.facts

    def over(self, facts):
        for n in facts:
            self.log({"e": n})

    def log(self, record):
        os.write(1, json.dumps(record).encode() + b"\n")

    # names of its own

    def at(self, path):
        return os.path.join(self.src, path)

    def fresh(self):
        self.serial += 1
        odd = self.rng.choice([b"", b"", b"", b"\xff", b"\n", b" "])
        return b"own-%d-%d-%d%s" % (self.number, self.life, self.serial, odd)

    def told(self, tree, name):
        """Logs what is true of an entry of a tree."""
        t = self.trees[tree]
        kind, value, _ = t[name]
        t[name] = (kind, value, [self.true(kind, tree + b"/" + name, value)])

    def untold(self, tree, name=None):
        for n in [name] if name else list(self.trees[tree]):
            kind, value, facts = self.trees[tree][n]
            self.over(facts)
            self.trees[tree][n] = (kind, value, [])

    def entry(self, kinds):
        """One of its own entries."""
        all = [(t, n) for t in self.trees for n in self.trees[t] if self.trees[t][n][0] in kinds]
        return self.rng.choice(all) if all else None

    def put(self, path, flags):
        text = "%d %d %d" % (self.number, self.life, self.rng.randrange(1 << 40)) + "x" * self.rng.randrange(200)
        fd = os.open(self.at(path), os.O_WRONLY | flags, 0o640)
        os.write(fd, text.encode())
        os.close(fd)
        return text

    def own_proof(self):
        "12"
        self.proven += 1
        path = self.at(self.proof)
        line = b"%d\n" % self.proven
        if self.rng.random() < 0.7:
            # a line that a killed one left unfinished ends here
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            os.write(fd, b"\n" + line)
            os.close(fd)
        else:
            temporary = self.at(b".%s-%d.tmp" % (self.proof, self.life))
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.write(fd, line)
            os.close(fd)
            os.rename(temporary, path)
        self.true("least", self.proof, self.proven)
        return self.proven

    def own_plant(self):
        "6"
        if len(self.trees) >= 8:
            return None
        tree = self.fresh()
        above = self.rng.choice([b"", b"own/", b"own/%d/" % self.number])
        os.makedirs(self.at(above), exist_ok=True)
        tree = above + tree
        os.mkdir(self.at(tree))
        self.trees[tree] = {}
        for n in range(self.rng.randrange(5)):
            name = b"e%d" % n
            if self.rng.random() < 0.2:
                os.symlink("to %d" % n, self.at(tree + b"/" + name))
                self.trees[tree][name] = ("link", "to %d" % n, [])
            else:
                self.trees[tree][name] = ("file", self.put(tree + b"/" + name, os.O_CREAT | os.O_EXCL), [])
        self.trees[tree][b"."] = ("dir", None, [])
        for name in self.trees[tree]:
            self.told(tree, name)
        return tree

    def own_rewrite(self):
        "10"
        e = self.entry(["file"])
        if not e:
            return None
        self.untold(*e)
        self.trees[e[0]][e[1]] = ("file", self.put(b"/".join(e), os.O_TRUNC), [])
        self.told(*e)
        return b"/".join(e)

    def own_replace(self):
        "6"
        e = self.entry(["file"])
        if not e:
            return None
        tree, name = e
        temporary = tree + b"/." + self.fresh()
        text = self.put(temporary, os.O_CREAT | os.O_EXCL)
        self.untold(tree, name)
        os.rename(self.at(temporary), self.at(tree + b"/" + name))
        self.trees[tree][name] = ("file", text, [])
        self.told(tree, name)
        self.true("gone", temporary)
        return tree + b"/" + name

    def own_mark(self):
        "5"
        e = self.entry(["file"])
        if not e:
            return None
        path = b"/".join(e)
        kind, text, facts = self.trees[e[0]][e[1]]
        self.over(facts)
        mode, value = 0o600 + self.rng.randrange(64), "%d" % self.rng.randrange(1 << 30)
        os.chmod(self.at(path), mode)
        os.setxattr(self.at(path), "user.mark", value.encode())
        facts = [self.true("mode", path, mode), self.true("mark", path, value), self.true("file", path, text)]
        self.trees[e[0]][e[1]] = (kind, text, facts)
        return path

    def own_take(self):
        "6: an entry gets another name, maybe in another tree"
        e = self.entry(["file", "link"])
        if not e:
            return None
        tree, name = e
        to, new = self.rng.choice(list(self.trees)), self.fresh()
        self.untold(tree, name)
        os.rename(self.at(tree + b"/" + name), self.at(to + b"/" + new))
        self.trees[to][new] = self.trees[tree].pop(name)
        self.told(to, new)
        self.true("gone", tree + b"/" + name)
        return tree + b"/" + name, to + b"/" + new

    def own_drop(self):
        "4"
        e = self.entry(["file", "link"])
        if not e:
            return None
        tree, name = e
        self.untold(tree, name)
        os.unlink(self.at(tree + b"/" + name))
        del self.trees[tree][name]
        self.true("gone", tree + b"/" + name)
        return tree + b"/" + name

    def own_rename(self):
        "6: a tree gets another name, and is written to at once"
        if not self.trees:
            return None
        tree = self.rng.choice(list(self.trees))
        new = os.path.join(self.rng.choice([b"", b"own", b"own/%d" % self.number]), self.fresh())
        if not os.path.isdir(self.at(os.path.dirname(new))):
            return None
        self.untold(tree)
        entries = self.trees.pop(tree)
        os.rename(self.at(tree), self.at(new))
        self.trees[new] = entries
        if self.rng.random() < 0.5:
            name = self.fresh()
            entries[name] = ("file", self.put(new + b"/" + name, os.O_CREAT | os.O_EXCL), [])
        for name in list(entries):
            self.told(new, name)
        self.true("gone", tree)
        return tree, new

    def own_twin(self):
        "6: two names of a file, which is left alone then"
        if not self.trees:
            return None
        tree = self.rng.choice(list(self.trees))
        a, b = tree + b"/t1-" + self.fresh(), tree + b"/t2-" + self.fresh()
        text = self.put(a, os.O_CREAT | os.O_EXCL)
        os.link(self.at(a), self.at(b))
        for p in (a, b):
            self.trees[tree][p[len(tree) + 1 :]] = ("twin", text, [])
        for p in (a, b):
            self.told(tree, p[len(tree) + 1 :])
        same = self.true("same", a, b.decode("latin-1"))
        kind, value, facts = self.trees[tree][a[len(tree) + 1 :]]
        self.trees[tree][a[len(tree) + 1 :]] = (kind, value, facts + [same])
        return a, b

    def own_split(self):
        "5: a file is written by one of its two names, which goes away at once; the other one has it all"
        if not self.trees:
            return None
        twins = [(t, n) for t in self.trees for n in self.trees[t] if self.trees[t][n][0] == "twin" and n.startswith(b"t1-")]
        # those that were made a while ago are on the target already
        if len(twins) < 4:
            return None
        tree, name = twins[0]
        rest = next(n for n in self.trees[tree] if n != name and self.trees[tree][n][1] == self.trees[tree][name][1])
        for n in (name, rest):
            self.untold(tree, n)
        path = self.at(tree + b"/" + name)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.write(fd, b"more")
        os.close(fd)
        text = self.trees[tree].pop(name)[1] + "more"
        how = self.rng.randrange(3)
        if how == 0:
            os.unlink(path)
            self.true("gone", tree + b"/" + name)
        elif how == 1:
            temporary = tree + b"/" + self.fresh()
            self.trees[tree][name] = ("file", self.put(temporary, os.O_CREAT | os.O_EXCL), [])
            os.rename(self.at(temporary), path)
            self.told(tree, name)
        else:
            os.rename(path, self.at(tree + b"/.away"))
            os.unlink(self.at(tree + b"/.away"))
            self.true("gone", tree + b"/" + name)
        self.trees[tree][rest] = ("file", text, [])
        self.told(tree, rest)
        return tree, name, rest, how

    def own_fell(self):
        "4"
        if len(self.trees) < 3:
            return None
        tree = self.rng.choice(list(self.trees))
        self.untold(tree)
        names = list(self.trees.pop(tree))
        shutil.rmtree(self.at(tree))
        self.true("gone", tree)
        for name in names[:2]:
            self.true("gone", tree + b"/" + name)
        return tree
