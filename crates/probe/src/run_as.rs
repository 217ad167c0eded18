//! `--run-as`: the user that a command runs as, if it is another one.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;

use anyhow::{Context, Result, anyhow};
use nix::unistd::{Gid, Uid, User, getgrouplist};

use crate::system;
use crate::variant::OpenError;

/// A user, with all groups that are theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl RunAs {
    /// Looks a user up by name or number, as initgroups(3) looks up the groups.
    ///
    /// # Errors
    /// When there is no such user, or we may not become somebody else.
    pub fn find(user: &str) -> Result<Self> {
        let found = match User::from_name(user) {
            Ok(None) => user.parse().map_or(Ok(None), |uid| User::from_uid(Uid::from_raw(uid))),
            found => found,
        };
        let User { name, uid, gid, .. } =
            found
                .with_context(|| format!("cannot look up the user {user}"))?
                .with_context(|| format!("cannot run the command as {user}: there is no such user"))?;
        if !system::may_become_others() {
            let why = anyhow!(
                "cannot run the command as {user}: EPERM, that takes CAP_SETUID and CAP_SETGID; run as root"
            );
            return Err(OpenError::Unavailable(why).into());
        }
        let name = CString::new(name).context("the name of the user contains a NUL")?;
        let groups =
            getgrouplist(&name, gid).with_context(|| format!("cannot look up the groups of {user}"))?;
        Ok(Self { uid, gid, groups })
    }

    /// Becomes that user, for good. To be called between fork and exec: it makes system calls only, and bare ones, for
    /// libc's would have all threads of the parent follow.
    pub(crate) fn become_them(&self) -> io::Result<()> {
        let groups: *const Gid = self.groups.as_ptr();
        let [uid, gid] = [self.uid.as_raw(), self.gid.as_raw()];
        let allowed = |done: libc::c_long| if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        // SAFETY: numbers, and as many groups as said; a Gid is a number (repr(transparent)).
        unsafe {
            allowed(libc::syscall(libc::SYS_setgroups, self.groups.len(), groups))?;
            allowed(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
            allowed(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let error = RunAs::find("no-such-user").unwrap_err().to_string();
        assert!(error.ends_with("as no-such-user: there is no such user"), "{error}");
        if system::may_become_others() {
            let [by_name, by_number] = ["root", "0"].map(|user| RunAs::find(user).unwrap());
            assert_eq!(by_name, by_number);
            assert!(by_name.groups.contains(&by_name.gid));
        } else {
            let error = RunAs::find("root").unwrap_err();
            assert!(matches!(error.downcast_ref(), Some(OpenError::Unavailable(_))), "{error}");
        }
    }
}
