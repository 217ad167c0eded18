//! In a container, made by runc of the machine's own files: what docs/containers.md says works there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::faults::namespaces::equals_truth;
use crate::faults::rootless::Level;
use crate::run::{Said, faults, fixture, scratch};

/// Those that runc gives a container by itself.
const DEFAULT: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

/// A container's directory; its root file system is the machine's.
struct Bundle(PathBuf);

impl Bundle {
    fn new(capabilities: &[&str], words: &[String]) -> Self {
        let bundle = Self(scratch().join(format!("container-{}", std::process::id())));
        let root = bundle.0.join("rootfs");
        std::fs::create_dir_all(&root).unwrap();
        assert!(Command::new("mount").args(["--bind", "/"]).arg(&root).status().unwrap().success());
        // The checkout may be on a file system of its own.
        let built = Path::new(env!("CARGO_BIN_EXE_trapline")).parent().unwrap();
        let namespaces =
            ["pid", "mount", "ipc", "uts", "network", "cgroup"].map(|kind| json!({"type": kind}));
        let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": words,
                "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
                "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
                "noNewPrivileges": true,
            },
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [
                mount("/proc", "proc", &[]),
                mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
                mount("/sys", "sysfs", &["ro"]),
                mount(scratch().to_str().unwrap(), "tmpfs", &[]),
                {"destination": built, "type": "bind", "source": built, "options": ["rbind", "ro"]},
            ],
            "linux": {"namespaces": namespaces},
        });
        std::fs::write(bundle.0.join("config.json"), config.to_string()).unwrap();
        bundle
    }

    fn run(&self) -> Command {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(self.0.join("state")).args(["run", "--bundle"]).arg(&self.0);
        runc.arg(self.0.file_name().unwrap()).stdin(Stdio::null());
        runc
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        // The machine's files are below it: it is not removed before they are let go.
        let root = self.0.join("rootfs");
        if Command::new("umount").arg("--lazy").arg(&root).status().is_ok_and(|status| status.success())
            && std::fs::remove_dir(&root).is_ok()
        {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A command in it is counted as it counts itself, under the container's own ids: timed with CAP_BPF and CAP_PERFMON, and
/// without them by the variant that needs no privilege.
pub fn a_command_equals_wait4(variant: &'static str) {
    let _level = Level::of("2");
    let capabilities = match variant {
        "rootless" => DEFAULT.to_vec(),
        _ => [&DEFAULT[..], &["CAP_BPF", "CAP_PERFMON"]].concat(),
    };
    let command = faults("auto", &[]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let mut words: Vec<String> = words.map(|word| word.to_str().unwrap().to_owned()).collect();
    words.push("--".into());
    words.extend(fixture("wait4"));
    let said = Said::by(&mut Bundle::new(&capabilities, &words).run());
    assert_eq!(said.header["variant"], variant);
    equals_truth(&said);
    let is_own = |total: &Value| total["pid"].as_u64().is_none_or(|pid| pid < 100);
    assert!(said.totals.iter().all(is_own), "{:#?}", said.totals);
}
