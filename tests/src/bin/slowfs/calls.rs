//! Calls of the kernel, each of which waits first.

use crate::tree::{NewAttr, Res, Tree, attr, by_fd, code, lock};
use fuser::{
    BsdFileFlags, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{self as sys, AtFlags};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// One mount of the tree.
pub struct Slow(pub Arc<Tree>);

impl Slow {
    /// The tree, after the delay of a call.
    fn wait(&self, call: &'static str) -> &Tree {
        std::thread::sleep(self.0.delay);
        *lock(&self.0.calls).entry(call).or_default() += 1;
        &self.0
    }

    fn entry(&self, found: Res<FileAttr>, reply: ReplyEntry) {
        match found {
            Ok(a) => reply.entry(&self.0.ttl, &a, Generation(0)),
            Err(e) => reply.error(code(e)),
        }
    }

    fn attr(&self, found: Res<FileAttr>, reply: ReplyAttr) {
        match found {
            Ok(a) => reply.attr(&self.0.ttl, &a),
            Err(e) => reply.error(code(e)),
        }
    }
}

pub fn done(result: Res<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(code(e)),
    }
}

pub fn opened(result: Res<FileHandle>, reply: ReplyOpen) {
    match result {
        Ok(fh) => reply.opened(fh, FopenFlags::empty()),
        Err(e) => reply.error(code(e)),
    }
}

pub fn bytes(result: Res<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(v) if size == 0 => reply.size(v.len() as u32),
        Ok(v) if v.len() > size as usize => reply.error(fuser::Errno::ERANGE),
        Ok(v) => reply.data(&v),
        Err(e) => reply.error(code(e)),
    }
}

impl Filesystem for Slow {
    fn init(&mut self, _: &Request, kernel: &mut KernelConfig) -> std::io::Result<()> {
        // Lookups and listings of one directory side by side; and only one question for file capabilities when a
        // file is written, not one before each write: the real file system drops them itself. A kernel without these
        // only waits more.
        for wish in [InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_HANDLE_KILLPRIV_V2] {
            let _ = kernel.add_capabilities(wish);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let tree = self.wait("lookup");
        self.entry(tree.node(parent).and_then(|dir| tree.look_up(&dir, name)), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, times: u64) {
        self.0.forget(ino, times);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let tree = self.wait("getattr");
        self.attr(tree.node(ino).and_then(|fd| sys::fstat(&*fd)).map(|s| attr(&s)), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let new = NewAttr { mode, uid, gid, size, atime, mtime };
        self.attr(self.wait("setattr").set_attr(ino, &new, fh), reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let tree = self.wait("readlink");
        match tree.node(ino).and_then(|fd| sys::readlinkat(&*fd, c"", Vec::new())) {
            Ok(text) => reply.data(text.as_bytes()),
            Err(e) => reply.error(code(e)),
        }
    }

    fn mknod(
        &self,
        _: &Request,
        dir: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.entry(self.wait("mknod").mknod(dir, name, mode, rdev), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        self.entry(self.wait("mkdir").mkdir(parent, name, mode), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let dir = self.wait("unlink").node(parent);
        done(dir.and_then(|dir| sys::unlinkat(&*dir, name, AtFlags::empty())), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let dir = self.wait("rmdir").node(parent);
        done(dir.and_then(|dir| sys::unlinkat(&*dir, name, AtFlags::REMOVEDIR)), reply);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, text: &Path, reply: ReplyEntry) {
        self.entry(self.wait("symlink").symlink(parent, name, text), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(self.wait("rename").rename((parent, name), (new_parent, new_name), flags), reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.wait("link").link(ino, parent, name), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        opened(self.wait("open").open(ino, flags), reply);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buf = vec![0; size as usize];
        let mut len = 0;
        let whole = self.0.file(fh).and_then(|fd| {
            // less than was asked for means the end
            while len < buf.len() {
                match rustix::io::pread(&*fd, &mut buf[len..], offset + len as u64)? {
                    0 => break,
                    n => len += n,
                }
            }
            Ok(())
        });
        match whole {
            Ok(()) => reply.data(&buf[..len]),
            Err(e) => reply.error(code(e)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.file(fh).and_then(|fd| rustix::io::pwrite(&*fd, data, offset)) {
            Ok(n) => reply.written(n as u32),
            Err(e) => reply.error(code(e)),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.close(fh);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, data: bool, reply: ReplyEmpty) {
        let fd = self.0.file(fh);
        done(fd.and_then(|fd| if data { sys::fdatasync(&*fd) } else { sys::fsync(&*fd) }), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        opened(self.wait("opendir").open_dir(ino), reply);
    }

    fn readdir(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.wait("readdir").read_dir(fh, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(code(e)),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.close(fh);
        reply.ok();
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, fh: FileHandle, data: bool, reply: ReplyEmpty) {
        self.fsync(request, ino, fh, data, reply);
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.wait("statfs").node(ino).and_then(|fd| sys::fstatvfs(&*fd)) {
            Ok(s) => {
                let (bsize, frsize) = (s.f_bsize as u32, s.f_frsize as u32);
                let name = s.f_namemax as u32;
                reply.statfs(s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, bsize, name, frsize);
            }
            Err(e) => reply.error(code(e)),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let flags = sys::XattrFlags::from_bits_retain(flags as u32);
        done(
            self.wait("setxattr").node(ino).and_then(|fd| sys::setxattr(by_fd(&fd), name, value, flags)),
            reply,
        );
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        bytes(self.wait("getxattr").get_xattr(ino, name), size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        bytes(self.wait("listxattr").list_xattrs(ino), size, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.wait("removexattr").node(ino).and_then(|fd| sys::removexattr(by_fd(&fd), name)), reply);
    }

    fn lseek(&self, _: &Request, _: INodeNo, fh: FileHandle, from: i64, whence: i32, reply: ReplyLseek) {
        // the kernel asks for these two only
        let to = match whence {
            libc::SEEK_DATA => sys::SeekFrom::Data(from as u64),
            _ => sys::SeekFrom::Hole(from as u64),
        };
        match self.0.file(fh).and_then(|fd| sys::seek(&*fd, to)) {
            Ok(at) => reply.offset(at as i64),
            Err(e) => reply.error(code(e)),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.wait("create").create(parent, name, mode, flags) {
            Ok((a, fh)) => reply.created(&self.0.ttl, &a, Generation(0), fh, FopenFlags::empty()),
            Err(e) => reply.error(code(e)),
        }
    }
}
