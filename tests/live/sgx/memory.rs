//! The memory that the marks of pages take.

use crate::run::{Beside, u, version};
use crate::sgx::driver::Double;
use crate::sgx::frame::CHUNK;
use crate::sgx::{Asked, sgx};

/// An enclave of 64 GB. One page of each chunk of marks makes all chunks, and the pages that follow cost nothing.
pub fn sixty_four_gigabytes(_: &'static str) {
    let double = Double::load("auto", 3000);
    let trapline = Beside::start(sgx("auto", &["-c"]));
    let mut enclave = Asked::start("auto", 64 << 18);
    let nothing = map_memory(trapline.pid());
    enclave.touch_each(CHUNK / 2, 0, 64 << 18);
    let sparse = map_memory(trapline.pid());
    let fully = CHUNK;
    enclave.touch(0, fully);
    let dense = map_memory(trapline.pid());
    enclave.end();
    let said = trapline.interrupt();
    assert_eq!(u(&said.totals[0]["pages"]), double.counts()["pages"]);
    assert!(u(&said.totals[0]["pages"]) > (fully + (64 << 18) / CHUNK) as u64);
    assert_eq!(said.totals[0]["unaccounted"], 0);
    println!(
        "marks of 64 GB: {nothing} bytes, {sparse} with two pages in each chunk, {dense} with all of one"
    );
    assert_eq!(sparse, dense);
    // Up to 6.3 the kernel says what a map could hold, not what it holds.
    if version() >= (6, 4) {
        assert!(nothing < 600_000, "{nothing} bytes for nothing");
        assert!(nothing < sparse && sparse <= 3 << 20, "{sparse} bytes");
    }
}

/// Bytes of the map that holds the marks, as the kernel tells them.
fn map_memory(pid: u32) -> u64 {
    let infos = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let texts: Vec<String> = infos.filter_map(|info| std::fs::read_to_string(info.path()).ok()).collect();
    let marks = texts.iter().find(|text| text.contains("value_size:\t944\n")).unwrap();
    let line = marks.lines().find_map(|line| line.strip_prefix("memlock:")).unwrap();
    line.trim().parse().unwrap()
}
