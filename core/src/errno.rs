//! Names of error numbers, as errno(3) has them for Linux (`asm-generic/errno.h`; the same on x86-64, arm64, riscv64
//! and s390x). People ask for `ENOSPC`, logs and failures have 28.

use std::borrow::Cow;

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
    (44, "ECHRNG"),
    (45, "EL2NSYNC"),
    (46, "EL3HLT"),
    (47, "EL3RST"),
    (48, "ELNRNG"),
    (49, "EUNATCH"),
    (50, "ENOCSI"),
    (51, "EL2HLT"),
    (52, "EBADE"),
    (53, "EBADR"),
    (54, "EXFULL"),
    (55, "ENOANO"),
    (56, "EBADRQC"),
    (57, "EBADSLT"),
    (59, "EBFONT"),
    (60, "ENOSTR"),
    (61, "ENODATA"),
    (62, "ETIME"),
    (63, "ENOSR"),
    (64, "ENONET"),
    (65, "ENOPKG"),
    (66, "EREMOTE"),
    (67, "ENOLINK"),
    (68, "EADV"),
    (69, "ESRMNT"),
    (70, "ECOMM"),
    (71, "EPROTO"),
    (72, "EMULTIHOP"),
    (73, "EDOTDOT"),
    (74, "EBADMSG"),
    (75, "EOVERFLOW"),
    (76, "ENOTUNIQ"),
    (77, "EBADFD"),
    (78, "EREMCHG"),
    (79, "ELIBACC"),
    (80, "ELIBBAD"),
    (81, "ELIBSCN"),
    (82, "ELIBMAX"),
    (83, "ELIBEXEC"),
    (84, "EILSEQ"),
    (85, "ERESTART"),
    (86, "ESTRPIPE"),
    (87, "EUSERS"),
    (88, "ENOTSOCK"),
    (89, "EDESTADDRREQ"),
    (90, "EMSGSIZE"),
    (91, "EPROTOTYPE"),
    (92, "ENOPROTOOPT"),
    (93, "EPROTONOSUPPORT"),
    (94, "ESOCKTNOSUPPORT"),
    (95, "EOPNOTSUPP"),
    (96, "EPFNOSUPPORT"),
    (97, "EAFNOSUPPORT"),
    (98, "EADDRINUSE"),
    (99, "EADDRNOTAVAIL"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (102, "ENETRESET"),
    (103, "ECONNABORTED"),
    (104, "ECONNRESET"),
    (105, "ENOBUFS"),
    (106, "EISCONN"),
    (107, "ENOTCONN"),
    (108, "ESHUTDOWN"),
    (109, "ETOOMANYREFS"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
    (112, "EHOSTDOWN"),
    (113, "EHOSTUNREACH"),
    (114, "EALREADY"),
    (115, "EINPROGRESS"),
    (116, "ESTALE"),
    (117, "EUCLEAN"),
    (118, "ENOTNAM"),
    (119, "ENAVAIL"),
    (120, "EISNAM"),
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
    (132, "ERFKILL"),
    (133, "EHWPOISON"),
    // what NFS and Lustre answer beyond those that programs should see (linux/errno.h)
    (512, "ERESTARTSYS"),
    (521, "EBADHANDLE"),
    (522, "ENOTSYNC"),
    (523, "EBADCOOKIE"),
    (524, "ENOTSUPP"),
    (525, "ETOOSMALL"),
    (526, "ESERVERFAULT"),
    (528, "EJUKEBOX"),
];

/// Other names of a number.
const ALIASES: &[(&str, i32)] = &[("EWOULDBLOCK", 11), ("EDEADLOCK", 35), ("ENOTSUP", 95)];

/// The name of an error number, if it has one.
pub fn name(errno: i32) -> Option<&'static str> {
    NAMES.iter().find(|(n, _)| *n == errno).map(|(_, name)| *name)
}

/// The class of a failure: the name of its error number, `none` where the finding is ours and has none.
pub fn class(errno: i32) -> Cow<'static, str> {
    match (errno, name(errno)) {
        (0, _) => "none".into(),
        (_, Some(name)) => name.into(),
        (_, None) => format!("errno_{errno}").into(),
    }
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

    #[test]
    fn each_number_has_a_class() {
        for (n, class) in [(0, "none"), (28, "ENOSPC"), (41, "errno_41"), (524, "ENOTSUPP"), (-1, "errno_-1")]
        {
            assert_eq!(super::class(n), class);
        }
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
