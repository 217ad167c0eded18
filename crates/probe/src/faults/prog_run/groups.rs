//! Who may make groups, and that each fault is in one.

use bytemuck::{Zeroable, bytes_of, pod_read_unaligned};
use fastrand::Rng;
use libbpf_rs::{MapCore, MapFlags};

use super::load;
use crate::abi::maps::faults as maps;
use crate::abi::{self, FaultsConfig, FaultsControl, FaultsGroup, FaultsLosses, FaultsMade, FaultsProcess};
use crate::prog_run::resize;
use crate::variant::Attached;

/// Capacity, and what of it is not for the rows of others.
const GROUPS: u32 = 512;
const MOST: u64 = 448;
/// A process has a fourth of what is left.
const SHARE: u32 = 3;

fn half() -> Attached {
    let config =
        FaultsConfig { group: abi::GROUP_FILE, groups: GROUPS, share: SHARE, ..FaultsConfig::zeroed() };
    load(config, |object| {
        resize(object, maps::GROUPS, GROUPS);
        resize(object, maps::USERS, 64);
        resize(object, maps::RELEASED, 64);
    })
}

/// A process's fault in a group of that name; whether the group is one of others.
fn fault(half: &Attached, process: u64, name: u64) -> bool {
    let other = half.run("test_group", &[process, name]);
    assert!(other <= 1, "the fault is in no group");
    other == 1
}

/// Faults in all groups, and groups.
fn total(half: &Attached) -> (u64, usize) {
    let groups = half.handle(maps::GROUPS).unwrap();
    let values = groups.keys().map(|key| groups.lookup(&key, MapFlags::ANY).unwrap().unwrap());
    let counts: Vec<u64> =
        values.map(|value| pod_read_unaligned::<FaultsGroup>(&value).stats.minor).collect();
    (counts.iter().sum(), counts.len())
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn each_process_gets_its_share_of_what_those_before_it_left() {
    let half = half();
    let mut left = MOST;
    for process in 0..3 {
        let own = (0..600).filter(|name| !fault(&half, process, process << 32 | name)).count() as u64;
        let share = left / u64::from(SHARE + 1);
        assert!(own.abs_diff(share) <= 1, "process {process} made {own} of {left} that were left");
        left -= own;
        // What it has it keeps, and a name that is there is anybody's.
        assert!(!fault(&half, process, process << 32));
        assert!(!fault(&half, process + 1, process << 32));
    }
    let losses: FaultsLosses = half.read(maps::LOSSES).unwrap();
    assert_eq!((losses.unattributed, losses.over_quota), (0, 3 * 600 - (MOST - left)));
    let made: FaultsMade = half.read(maps::MADE).unwrap();
    // A row of others for each process.
    assert_eq!((made.groups, total(&half)), (MOST - left + 3, (3 * 602, (MOST - left) as usize + 3)));
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn what_was_taken_out_may_be_made_again() {
    let half = half();
    let make = |names: std::ops::Range<u64>| names.filter(|&name| !fault(&half, 0, name)).count() as u64;
    let own = make(0..600);
    assert_eq!(make(600..700), 0);
    let taken = 50u64;
    let process = FaultsProcess { start_ns: 1, pid: 1, pad: 0 };
    let released = half.handle(maps::RELEASED).unwrap();
    released.update(bytes_of(&process), &taken.to_ne_bytes(), MapFlags::ANY).unwrap();
    half.write(maps::CONTROL, &FaultsControl { taken_groups: taken, ..super::began() }).unwrap();
    let again = make(700..1300);
    assert!(again.abs_diff(taken) <= 1, "{again} after {taken} of {own} were taken out");
}

/// All processes are root's here, so together they have what a user may have: three times what is left.
#[test]
#[ignore = "needs root: `make test` runs it"]
fn whatever_processes_do_each_fault_is_in_one_group() {
    for seed in 0..8 {
        let half = half();
        let mut random = Rng::with_seed(seed);
        let (greedy, runs) = (random.u64(0..8), 3000);
        let mut own = [0u64; 8];
        let mut others = 0;
        for _ in 0..runs {
            let process = if random.bool() { greedy } else { random.u64(0..8) };
            let name = process << 32 | random.u64(0..500);
            if fault(&half, process, name) {
                others += 1;
            } else {
                own[process as usize] += 1;
            }
        }
        let losses: FaultsLosses = half.read(maps::LOSSES).unwrap();
        let (faults, groups) = total(&half);
        assert_eq!((faults, losses.unattributed, losses.over_quota), (runs, 0, others), "seed {seed}");
        // Three quarters of what is not kept for others, and their own row each and the user's.
        assert!(groups as u64 <= MOST * 3 / 4 + 1 + 9, "seed {seed}: {groups} groups");
        assert!(own.iter().all(|&own| own > 0), "seed {seed}: {own:?}");
    }
}
