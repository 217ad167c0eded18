//! The symbolizer: a process without privileges that reads what others wrote.
//!
//! Executables, their debug information and perf maps are anybody's: a file can be truncated while it is read, crash its
//! parser, or make it take all memory. So trapline itself never reads one. It starts itself again, in a cage
//! (`confine.rs`), opens files, checks that they are regular ones, and passes descriptors; what comes back are names, or
//! nothing.

mod binary;
mod client;
mod confine;
pub(super) mod function;
mod needs;
mod perf_map;
mod program;
mod serve;
mod unwind;
pub(super) mod wire;

#[cfg(any(test, fuzzing))]
pub(crate) use self::serve::fuzz;
#[cfg(any(test, fuzzing))]
pub use self::unwind::eh_frame;

#[cfg(test)]
mod misbehave;
#[cfg(test)]
mod tests;

use std::os::fd::AsFd;

use nix::sys::prctl;

pub use self::client::worked_ns;
pub(super) use self::client::{Client, Lost};

/// What the symbolizer is started as, instead of by a program's name.
const NAME: &str = "trapline-symbolizer";

/// Becomes the symbolizer, if this process was started as that: then it ends here. To be called before anything else.
pub fn symbolize_if_asked() {
    if std::env::args_os().next().is_none_or(|name| name != NAME) {
        return;
    }
    std::process::exit(i32::from(!symbolize()));
}

fn symbolize() -> bool {
    // A panic is an answer; nobody reads what it says.
    std::panic::set_hook(Box::new(|_| {}));
    // For `ps`; without it everything goes on.
    let _ = prctl::set_name(c"trapline-symbol");
    let stdin = std::io::stdin();
    let confined = confine::confine();
    let greeting =
        confined.as_ref().map_or_else(|e| wire::Reply::Bad(format!("{e:#}")), |_| wire::Reply::Done);
    let greeted = wire::send(stdin.as_fd(), &greeting, None);
    confined.is_ok_and(|memory| greeted.and_then(|()| serve::serve(stdin.as_fd(), memory)).is_ok())
}

/// Test programs have no `main` of ours: the C library calls this before theirs, as it calls all such functions.
#[cfg(test)]
#[allow(unsafe_code)]
mod started_by_a_test {
    extern "C" fn start(count: libc::c_int, names: *const *const libc::c_char) {
        if count < 1 || names.is_null() {
            return;
        }
        // SAFETY: the C library passes what `main` would have: `count` strings, of which the first is there.
        let name = unsafe { std::ffi::CStr::from_ptr(*names) };
        if name.to_bytes() == super::NAME.as_bytes() {
            std::process::exit(i32::from(!super::symbolize()));
        }
    }

    // SAFETY: the section holds pointers to functions of this type.
    #[unsafe(link_section = ".init_array")]
    #[used]
    static START: extern "C" fn(libc::c_int, *const *const libc::c_char) = start;
}
