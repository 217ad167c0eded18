//! How a fault's time becomes figures.

use bytemuck::Zeroable;
use fastrand::Rng;
use trapline_model::Extremes;
use trapline_model::faults::Stats;
use trapline_model::{BUCKETS, Hist, bounds, bucket};

use super::load;
use crate::abi::maps::{MapName, faults as maps};
use crate::abi::{self, FaultsConfig, FaultsControl, FaultsStats};
use crate::faults::from_abi;
use crate::prog_run::of_any_magnitude;

const STATS: MapName<'static> = MapName(".bss.test_stats");

#[test]
#[ignore = "needs root: `make test` runs it"]
fn a_time_is_in_the_bucket_that_the_model_reads_it_from() {
    let half = load(FaultsConfig::zeroed(), |_| ());
    let in_kernel = |value| half.run("test_bucket", &[value]) as usize;
    for b in 0..BUCKETS {
        let (low, high) = bounds(b);
        assert_eq!((in_kernel(low), in_kernel(high)), (b, b), "the borders of bucket {b}: {low} and {high}");
    }
    let mut random = Rng::with_seed(1);
    for _ in 0..20_000 {
        let value = of_any_magnitude(&mut random, 64);
        assert_eq!(in_kernel(value), bucket(value), "{value}");
    }
}

#[test]
#[ignore = "needs root: `make test` runs it"]
fn figures_are_those_of_all_times_and_extremes_those_of_the_interval() {
    let half = load(FaultsConfig::zeroed(), |_| ());
    let mut random = Rng::with_seed(2);
    for shared in [0, 1] {
        half.write(STATS, &FaultsStats::zeroed()).unwrap();
        let (mut stats, mut hist, mut of_major) = (Stats::default(), [0; BUCKETS], [0; BUCKETS]);
        let mut all = Extremes { max_ns: 0, min_ns: u64::MAX };
        let mut epoch = 0;
        for _ in 0..500 {
            // Nothing happens in some intervals, and the numbers of some are never seen by this row.
            epoch += random.u64(1..4);
            half.write(maps::CONTROL, &FaultsControl { epoch, ..super::began() }).unwrap();
            let mut recent = Extremes { max_ns: 0, min_ns: u64::MAX };
            for _ in 0..random.u32(0..5) {
                let (ns, weight) = (of_any_magnitude(&mut random, 48), random.u64(1..100));
                let major = random.bool();
                half.run("test_time", &[major.into(), ns, weight, shared]);
                let (timed, total, n) = match major {
                    true => (&mut stats.timed_major, &mut stats.major_ns, 1),
                    false => (&mut stats.timed_minor, &mut stats.minor_ns, weight),
                };
                *timed += 1;
                *total += ns;
                hist[bucket(ns)] += n;
                if major {
                    // Of major ones only the powers of two are kept, and what is beyond them.
                    let at = bucket(ns);
                    of_major[if at == BUCKETS - 1 { at } else { at / 4 * 4 }] += 1;
                }
                for of in [&mut all, &mut recent] {
                    of.max_ns = of.max_ns.max(ns.min(abi::LONGEST_TIME));
                    if ns < abi::LONGEST_TIME {
                        of.min_ns = of.min_ns.min(ns);
                    }
                }
            }
            (stats.hist, stats.major_hist) = (Hist::new(&hist), Hist::new(&of_major));
            let read: FaultsStats = half.read(STATS).unwrap();
            assert_eq!(from_abi::figures(&read, epoch), (stats.clone(), all, recent), "interval {epoch}");
        }
    }
}
