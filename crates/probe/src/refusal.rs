//! What the kernel refused, as words that help: the error by its name, and what to do about it.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use trapline_model::doctor::Refusal;

use crate::system;

/// Puts errors of the system under their names: `ENOENT: No such file or directory`.
#[must_use]
pub fn name_errnos(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some(errno) = shown_errno(&text) {
        let own = io::Error::from_raw_os_error(errno).to_string();
        let found = text.rfind(&own).map(|at| at..at + own.len());
        let number = format!("(os error {errno})");
        let Some(range) = found.or_else(|| text.rfind(&number).map(|at| at..at + number.len())) else {
            break;
        };
        text.replace_range(range, &Errno::from_raw(errno).to_string());
    }
    text
}

/// The number of the last error of the system that a text shows.
fn shown_errno(text: &str) -> Option<i32> {
    text.rsplit_once("(os error ")?.1.split(')').next()?.parse().ok()
}

/// The system's error in a chain, if there is one. libbpf-rs keeps it to itself but for its text.
pub(crate) fn errno(error: &anyhow::Error) -> Option<Errno> {
    let own = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    own.or_else(|| shown_errno(&format!("{error:#}"))).map(Errno::from_raw)
}

/// Turns the kernel's refusal into words that help.
pub(crate) fn explain(error: &anyhow::Error) -> Refusal {
    refusal(error, remedy(errno(error)))
}

/// A refusal for this reason, with what to do.
pub(crate) fn refusal(error: &anyhow::Error, remedy: String) -> Refusal {
    Refusal {
        errno: errno(error).map(|e| format!("{e:?}")),
        error: name_errnos(&format!("{error:#}")).replace('\n', " "),
        remedy,
    }
}

fn remedy(errno: Option<Errno>) -> String {
    if errno.is_none() {
        return "set kernel.ftrace_enabled and /sys/kernel/debug/kprobes/enabled to 1".into();
    }
    if !system::has_bpf_privilege() {
        return system::privilege_remedy().into();
    }
    if !Path::new("/sys/kernel").exists() {
        return "/sys is not mounted: mount -t sysfs sysfs /sys".into();
    }
    if !system::has_kernel_types() {
        return format!(
            "{} is missing or empty: use a kernel with CONFIG_DEBUG_INFO_BTF",
            system::KERNEL_BTF
        );
    }
    let lockdown = system::lockdown();
    match (errno, lockdown.as_deref()) {
        // It forbids reading the kernel's memory, whatever the error that comes of it.
        (_, Some("confidentiality")) => {
            "kernel lockdown is `confidentiality`, in which BPF cannot read kernel memory; boot with lockdown=integrity or without it"
                .into()
        }
        (Some(Errno::EPERM | Errno::EACCES), Some("none")) => {
            "this kernel refuses such programs even to root".into()
        }
        (Some(Errno::EPERM | Errno::EACCES), Some(mode)) => {
            format!("kernel lockdown is `{mode}`; boot without it, with Secure Boot off")
        }
        (Some(Errno::EPERM | Errno::EACCES), None) => {
            "this kernel refuses such programs even to root, perhaps by lockdown, which `mount -t securityfs none /sys/kernel/security` would show"
                .into()
        }
        (
            Some(
                Errno::ENOENT
                | Errno::ESRCH
                | Errno::EOPNOTSUPP
                | Errno::EINVAL
                | Errno::ENODEV
                | Errno::EBUSY,
            ),
            _,
        ) => "this kernel lacks the function or event, or it is in use"
            .into(),
        (Some(Errno::ENOMEM | Errno::E2BIG | Errno::EMFILE), _) => {
            "free memory or descriptors, and try again".into()
        }
        _ => "report this with the output of `trapline doctor`".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_system_have_their_names() {
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let text = format!("a: {denied}; b: {denied}");
        let named = "a: EACCES: Permission denied; b: EACCES: Permission denied";
        assert_eq!(name_errnos(&text), named);
        assert_eq!(name_errnos("none"), "none");
        assert_eq!(name_errnos("odd (os error 2)"), "odd ENOENT: No such file or directory");
    }
}
