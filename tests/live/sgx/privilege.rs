//! What `sgx` may do while it watches.

use crate::privilege::{TOOLS, listed, watched};
use crate::sgx::driver::Double;

pub fn sgx_keeps_what_reading_takes(_: &'static str) {
    let _double = Double::load("auto", 200);
    watched(&["sgx", "--format", "jsonl", "-i", "50ms"], listed(&[TOOLS]));
}
