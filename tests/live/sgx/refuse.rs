//! What `trapline sgx` refuses, and says.

use crate::run::{lines, trapline, version};
use crate::sgx::driver::{Double, unload};
use crate::sgx::sgx;

/// Without the stand-in: the probes attach to the kernel's own driver, and it is said that nothing will come of it.
pub fn the_kernels_own_functions(_: &'static str) {
    unload();
    let doctor = trapline().args(["doctor", "--format", "jsonl"]).output().unwrap();
    let said = lines(&doctor.stdout);
    for (variant, attaches) in [("fentry", "yes"), ("kprobe", "yes"), ("legacy", "no")] {
        let row = said.iter().find(|row| row["tool"] == "sgx" && row["variant"] == variant).unwrap();
        assert_eq!(row["attaches"], attaches, "{row}");
    }
    assert!(said[0]["sgx"].as_str().unwrap().starts_with("SGX is unavailable: "), "{}", said[0]);
    let output = trapline().arg("sgx").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.starts_with("trapline: SGX is unavailable: ") && error.lines().count() == 1, "{error}");
    let output = trapline().args(["sgx", "--module", "sgx_double"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "it is not loaded");
}

/// The kernel's own driver has functions of the stand-in's names. `fentry` on a module's function takes those of the
/// kernel instead, up to 6.3; then it must be refused, and the next variant used.
pub fn fentry_on_a_module(_: &'static str) {
    let _double = Double::load("auto", 100);
    let options = ["--module", "sgx_double", "--variant", "fentry", "-d", "100ms"];
    let output = trapline().arg("sgx").args(options).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    if version() >= (6, 4) {
        assert!(output.status.success(), "{error}");
        return;
    }
    assert_eq!(output.status.code(), Some(3), "{error}");
    let why = "fentry: the kernel attached it to another function of that name, not to sgx_double's";
    assert!(error.contains(why) && error.lines().count() == 1, "{error}");
    let auto = sgx("auto", &["-d", "100ms"]).output().unwrap();
    assert_eq!(lines(&auto.stdout)[0]["variant"], "kprobe");
}
