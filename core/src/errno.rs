//! Names of error numbers, for those who group failures by them.

use std::borrow::Cow;

/// Of 1 to 133, as Linux numbers them (`asm-generic/errno.h`); two numbers have no name.
#[rustfmt::skip]
const NAMES: [&str; 133] = [
    "EPERM", "ENOENT", "ESRCH", "EINTR", "EIO", "ENXIO", "E2BIG", "ENOEXEC", "EBADF", "ECHILD", "EAGAIN",
    "ENOMEM", "EACCES", "EFAULT", "ENOTBLK", "EBUSY", "EEXIST", "EXDEV", "ENODEV", "ENOTDIR", "EISDIR",
    "EINVAL", "ENFILE", "EMFILE", "ENOTTY", "ETXTBSY", "EFBIG", "ENOSPC", "ESPIPE", "EROFS", "EMLINK",
    "EPIPE", "EDOM", "ERANGE", "EDEADLK", "ENAMETOOLONG", "ENOLCK", "ENOSYS", "ENOTEMPTY", "ELOOP", "",
    "ENOMSG", "EIDRM", "ECHRNG", "EL2NSYNC", "EL3HLT", "EL3RST", "ELNRNG", "EUNATCH", "ENOCSI", "EL2HLT",
    "EBADE", "EBADR", "EXFULL", "ENOANO", "EBADRQC", "EBADSLT", "", "EBFONT", "ENOSTR", "ENODATA", "ETIME",
    "ENOSR", "ENONET", "ENOPKG", "EREMOTE", "ENOLINK", "EADV", "ESRMNT", "ECOMM", "EPROTO", "EMULTIHOP",
    "EDOTDOT", "EBADMSG", "EOVERFLOW", "ENOTUNIQ", "EBADFD", "EREMCHG", "ELIBACC", "ELIBBAD", "ELIBSCN",
    "ELIBMAX", "ELIBEXEC", "EILSEQ", "ERESTART", "ESTRPIPE", "EUSERS", "ENOTSOCK", "EDESTADDRREQ",
    "EMSGSIZE", "EPROTOTYPE", "ENOPROTOOPT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EOPNOTSUPP",
    "EPFNOSUPPORT", "EAFNOSUPPORT", "EADDRINUSE", "EADDRNOTAVAIL", "ENETDOWN", "ENETUNREACH", "ENETRESET",
    "ECONNABORTED", "ECONNRESET", "ENOBUFS", "EISCONN", "ENOTCONN", "ESHUTDOWN", "ETOOMANYREFS",
    "ETIMEDOUT", "ECONNREFUSED", "EHOSTDOWN", "EHOSTUNREACH", "EALREADY", "EINPROGRESS", "ESTALE",
    "EUCLEAN", "ENOTNAM", "ENAVAIL", "EISNAM", "EREMOTEIO", "EDQUOT", "ENOMEDIUM", "EMEDIUMTYPE",
    "ECANCELED", "ENOKEY", "EKEYEXPIRED", "EKEYREVOKED", "EKEYREJECTED", "EOWNERDEAD", "ENOTRECOVERABLE",
    "ERFKILL", "EHWPOISON",
];

/// What file systems answer beyond those that programs should see (`linux/errno.h`): NFS and Lustre do.
const MORE: [(i32, &str); 8] = [
    (512, "ERESTARTSYS"),
    (521, "EBADHANDLE"),
    (522, "ENOTSYNC"),
    (523, "EBADCOOKIE"),
    (524, "ENOTSUPP"),
    (525, "ETOOSMALL"),
    (526, "ESERVERFAULT"),
    (528, "EJUKEBOX"),
];

/// The class of a failure: the name of its error number, `none` where the finding is ours and has none.
pub fn class(errno: i32) -> Cow<'static, str> {
    let named =
        usize::try_from(errno).ok().and_then(|n| NAMES.get(n.wrapping_sub(1))).filter(|n| !n.is_empty());
    match (errno, named, MORE.iter().find(|(n, _)| *n == errno)) {
        (0, ..) => "none".into(),
        (_, Some(name), _) | (_, None, Some((_, name))) => (*name).into(),
        _ => format!("errno_{errno}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::class;

    #[test]
    fn numbers_have_the_names_that_the_system_gives_them() {
        for (n, name) in [
            (0, "none"),
            (1, "EPERM"),
            (2, "ENOENT"),
            (5, "EIO"),
            (13, "EACCES"),
            (28, "ENOSPC"),
            (34, "ERANGE"),
            (41, "errno_41"),
            (61, "ENODATA"),
            (75, "EOVERFLOW"),
            (95, "EOPNOTSUPP"),
            (116, "ESTALE"),
            (117, "EUCLEAN"),
            (122, "EDQUOT"),
            (133, "EHWPOISON"),
            (134, "errno_134"),
            (524, "ENOTSUPP"),
            (-1, "errno_-1"),
            (i32::MIN, "errno_-2147483648"),
        ] {
            assert_eq!(class(n), name);
        }
    }
}
