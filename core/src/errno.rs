//! Names of error numbers, as errno(3) has them for Linux (`asm-generic/errno.h`; the same on x86-64, arm64, riscv64
//! and s390x). People ask for `ENOSPC`, logs and failures have 28.

/// Number and name, in the order of the numbers. Where two names mean one number the one of POSIX stands here.
const NAMES: &[(i32, &str)] = &[
    (1, "EPERM"),
    (2, "ENOENT"),
    (3, "ESRCH"),
    (4, "EINTR"),
    (5, "EIO"),
    (6, "ENXIO"),
    (7, "E2BIG"),
    (8, "ENOEXEC"),
    (9, "EBADF"),
    (10, "ECHILD"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (15, "ENOTBLK"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (18, "EXDEV"),
    (19, "ENODEV"),
    (20, "ENOTDIR"),
    (21, "EISDIR"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (25, "ENOTTY"),
    (26, "ETXTBSY"),
    (27, "EFBIG"),
    (28, "ENOSPC"),
    (29, "ESPIPE"),
    (30, "EROFS"),
    (31, "EMLINK"),
    (32, "EPIPE"),
    (33, "EDOM"),
    (34, "ERANGE"),
    (35, "EDEADLK"),
    (36, "ENAMETOOLONG"),
    (37, "ENOLCK"),
    (38, "ENOSYS"),
    (39, "ENOTEMPTY"),
    (40, "ELOOP"),
    (42, "ENOMSG"),
    (43, "EIDRM"),
    (60, "ENOSTR"),
    (61, "ENODATA"),
    (62, "ETIME"),
    (64, "ENONET"),
    (66, "EREMOTE"),
    (67, "ENOLINK"),
    (70, "ECOMM"),
    (71, "EPROTO"),
    (72, "EMULTIHOP"),
    (74, "EBADMSG"),
    (75, "EOVERFLOW"),
    (77, "EBADFD"),
    (78, "EREMCHG"),
    (84, "EILSEQ"),
    (85, "ERESTART"),
    (87, "EUSERS"),
    (88, "ENOTSOCK"),
    (90, "EMSGSIZE"),
    (93, "EPROTONOSUPPORT"),
    (95, "EOPNOTSUPP"),
    (98, "EADDRINUSE"),
    (99, "EADDRNOTAVAIL"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (103, "ECONNABORTED"),
    (104, "ECONNRESET"),
    (105, "ENOBUFS"),
    (107, "ENOTCONN"),
    (108, "ESHUTDOWN"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
    (112, "EHOSTDOWN"),
    (113, "EHOSTUNREACH"),
    (114, "EALREADY"),
    (115, "EINPROGRESS"),
    (116, "ESTALE"),
    (117, "EUCLEAN"),
    (121, "EREMOTEIO"),
    (122, "EDQUOT"),
    (123, "ENOMEDIUM"),
    (124, "EMEDIUMTYPE"),
    (125, "ECANCELED"),
    (126, "ENOKEY"),
    (127, "EKEYEXPIRED"),
    (128, "EKEYREVOKED"),
    (129, "EKEYREJECTED"),
    (130, "EOWNERDEAD"),
    (131, "ENOTRECOVERABLE"),
];

/// Other names of a number.
const ALIASES: &[(&str, i32)] = &[("EWOULDBLOCK", 11), ("EDEADLOCK", 35), ("ENOTSUP", 95)];

/// The name of an error number, if it has one.
pub fn name(errno: i32) -> Option<&'static str> {
    NAMES.iter().find(|(n, _)| *n == errno).map(|(_, name)| *name)
}

/// Reads a name, in either case, or a number.
pub fn parse(text: &str) -> Option<i32> {
    let text = text.trim();
    let known = NAMES.iter().map(|(n, name)| (*name, *n)).chain(ALIASES.iter().copied());
    let named = known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|x| x.1);
    named.or_else(|| text.parse().ok().filter(|n| (0..4096).contains(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_stands_for_one_number() {
        for (n, name) in NAMES {
            assert_eq!((parse(name), super::name(*n)), (Some(*n), Some(*name)));
        }
        assert!(NAMES.windows(2).all(|w| w[0].0 < w[1].0));
        assert_eq!(
            (parse("enospc"), parse("28"), parse("ENOTSUP"), parse("0")),
            (Some(28), Some(28), Some(95), Some(0))
        );
        assert_eq!(
            (parse("EWHAT"), parse("-1"), parse(""), parse("9999"), name(0)),
            (None, None, None, None, None)
        );
    }

    /// The system's own words are of another origin than the table.
    #[test]
    fn numbers_are_those_of_this_system() {
        use crate::failure::errno_text;
        for (name, words) in [
            ("ENOSPC", "No space left on device"),
            ("ESTALE", "Stale file handle"),
            ("EDQUOT", "Disk quota exceeded"),
            ("EOPNOTSUPP", "Operation not supported"),
            ("ENOTEMPTY", "Directory not empty"),
            ("ENODATA", "No data available"),
            ("EUCLEAN", "Structure needs cleaning"),
        ] {
            assert_eq!(parse(name).map(errno_text).as_deref(), Some(words), "{name}");
        }
    }
}
