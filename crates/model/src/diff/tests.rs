use super::*;
use crate::faults::By;
use crate::field::Record;
use crate::{faults, kvm, sgx, table};

const SECOND: u64 = 1_000_000_000;

/// A run of this table whose rows have these values, and whose other values are not known.
fn run(name: &str, id: &str, rows: &[&[(&str, Value)]]) -> Run {
    let table = table(id).unwrap();
    let record = |values: &&[(&str, Value)]| {
        let find =
            |name: &str| values.iter().find(|(field, _)| *field == name).map(|(_, value)| value.clone());
        Record::named(table, |name| find(name).into())
    };
    let header = Header {
        tool: table.tool().to_owned().into(),
        variant: "tracepoint".into(),
        tables: vec![table],
        ..Header::default()
    };
    let end = Facts { duration_ns: SECOND, sampled: 1, ..Facts::default() };
    let totals = vec![Block::new(table, SECOND, rows.iter().map(record).collect())];
    Run { name: name.into(), header, totals, end }
}

/// A run of `faults --by file` with these numbers of minor faults on each file, in processes and on inodes of its own.
fn files(name: &str, minor: &[(&str, u64)]) -> Run {
    let inode = name.len() as u64 * 7;
    let rows: Vec<[(&str, Value); 5]> = minor
        .iter()
        .map(|&(file, n)| {
            let counts = [("minor", n.into()), ("major", 0u64.into()), ("total_ns", (n * 1000).into())];
            let [minor, major, total] = counts;
            [("file", file.into()), ("inode", inode.into()), minor, major, total]
        })
        .collect();
    let rows: Vec<&[(&str, Value)]> = rows.iter().map(<[_; 5]>::as_slice).collect();
    run(name, "faults.file", &rows)
}

fn compared(before: &[Run], after: &[Run], per: &Per) -> Vec<Item> {
    diff(before, after, per, &Figures::Shown).unwrap().into()
}

/// The values of these columns of a figure's rows.
fn rows(items: &[Item], figure: &str, columns: &[&str]) -> Vec<Vec<Value>> {
    let blocks =
        items.iter().filter_map(|item| if let Item::Totals(block) = item { Some(block) } else { None });
    let of_figure = |row: &&Record| row.get("figure") == Some(&figure.into());
    let values = |row: &Record| columns.iter().map(|column| row.get(column).unwrap().clone()).collect();
    blocks.flat_map(|block| &block.rows).filter(of_figure).map(values).collect()
}

fn end(items: &[Item]) -> &Facts {
    let Some(Item::End(end)) = items.last() else { panic!("{items:?}") };
    end
}

#[test]
fn rows_are_joined_by_name_and_are_per_second() {
    let before = [files("x", &[("/a", 100), ("/b", 50), ("/same", 7)])];
    let mut after = [files("another", &[("/a", 400), ("/same", 14), ("/new", 2)])];
    after[0].end.duration_ns = 2 * SECOND;
    let items = compared(&before, &after, &Per::Second);
    let columns = ["name", "before", "after", "diff", "change_ppm", "only", "noise", "within_noise"];
    let (n, i, none) = (Value::U64, Value::I64, Value::Null);
    let row = |name: &str, before, after, change: Value, only: Value| {
        let diff = i64::try_from(after).unwrap() - i64::try_from(before).unwrap();
        vec![name.into(), n(before), n(after), i(diff), change, only, none.clone(), none.clone()]
    };
    let expected = [
        row("/a", 100_000, 200_000, i(1_000_000), none.clone()),
        row("/b", 50_000, 0, i(-1_000_000), "before".into()),
        row("/new", 0, 1000, none.clone(), "after".into()),
        row("/same", 7000, 7000, i(0), none.clone()),
    ];
    assert_eq!(rows(&items, "minor", &columns), expected);
    // Times come first; where nothing happened, there is no figure.
    let figures = items.iter().filter_map(|item| match item {
        Item::Totals(block) => block.rows[0].get("figure").cloned(),
        _ => None,
    });
    assert_eq!(figures.collect::<Vec<_>>(), ["total_ns".into(), "minor".into()]);
    let sum =
        items.iter().find_map(|item| if let Item::Totals(block) = item { block.sum.clone() } else { None });
    assert_eq!(sum.unwrap().get("before"), Some(&n(157_000_000)));
    assert_eq!(end(&items).get("repeated"), None);
    assert_eq!(end(&items).value("repeated"), Some(&Value::Bool(false)));
}

#[test]
fn noise_is_the_larger_spread_of_repeated_recordings() {
    let runs = |counts: &[u64]| counts.iter().map(|&n| files("x", &[("/a", n)])).collect::<Vec<_>>();
    let noise = |before: &[u64], after: &[u64]| {
        let items = compared(&runs(before), &runs(after), &Per::Second);
        rows(&items, "minor", &["before", "after", "noise", "within_noise"]).remove(0)
    };
    let (n, is) = (Value::U64, Value::Bool);
    assert_eq!(noise(&[100, 104, 99], &[103, 107]), [n(101_000), n(105_000), n(5000), is(true)]);
    assert_eq!(noise(&[100, 104, 99], &[110, 110]), [n(101_000), n(110_000), n(5000), is(false)]);
    assert_eq!(noise(&[100], &[103, 107]), [n(100_000), n(105_000), n(4000), is(false)]);
    // A run that lacks the row has none of its faults.
    let mut before = runs(&[8]);
    before.push(files("x", &[("/other", 1)]));
    let items = compared(&before, &runs(&[3]), &Per::Second);
    assert_eq!(rows(&items, "minor", &["name", "before", "noise"])[0], ["/a".into(), n(4000), n(8000)]);
}

#[test]
fn figures_are_per_operation_or_per_another_figure() {
    let (before, after) = ([files("x", &[("/a", 100)])], [files("x", &[("/a", 30)])]);
    let items = compared(&before, &after, &Per::Operations(50, 10));
    let expected = ["count/op".into(), Value::U64(2000), Value::U64(3000)];
    assert_eq!(rows(&items, "minor", &["unit", "before", "after"])[0], expected);
    let exits = |count: u64, ns: u64| {
        let values = [("name", "HLT".into()), ("count", count.into()), ("total_ns", ns.into())];
        run("x", "kvm.time_reason", &[&values])
    };
    let items = compared(&[exits(10, 5000)], &[exits(40, 10_000)], &Per::Figure("count".into()));
    let columns = ["name", "unit", "before", "after"];
    let expected = vec!["HLT".into(), "ns/op".into(), Value::U64(500_000), Value::U64(250_000)];
    assert_eq!(rows(&items, "total_ns", &columns), [expected]);
    assert!(rows(&items, "count", &columns).is_empty());
    let why = diff(&before, &after, &Per::Figure("calls".into()), &Figures::All).unwrap_err();
    assert_eq!(
        why,
        "--per calls: faults.file counts major, minor, waits, total_ns, major_ns, wait_ns, timed"
    );
}

/// Names stand for the ids of one run, and rows of one name are one.
#[test]
fn ids_of_one_run_are_no_names() {
    let thread = |pid: u64, minor: u64| {
        [
            ("pid", pid.into()),
            ("tid", pid.into()),
            ("comm", "app".into()),
            ("minor", minor.into()),
            ("p50_ns", 9u64.into()),
        ]
    };
    let before = run("x", "faults.thread", &[&thread(7, 3), &thread(8, 4)]);
    let after = run("y", "faults.thread", &[&thread(90, 10)]);
    let items: Vec<Item> = diff(&[before], &[after], &Per::Second, &Figures::All).unwrap().into();
    let expected = vec!["app".into(), Value::U64(7000), Value::U64(10_000)];
    assert_eq!(rows(&items, "minor", &["name", "before", "after"]), [expected]);
    // A quantile of two rows is not known.
    let expected = vec!["ns".into(), Value::Null, Value::U64(9000), Value::Null];
    assert_eq!(rows(&items, "p50_ns", &["unit", "before", "after", "diff"]), [expected]);
    let names = |table: &Schema| -> Vec<&str> {
        let fields: Vec<_> = table.iter().collect();
        stable(table).into_iter().map(|at| fields[at].name).collect()
    };
    let named = |by: By| names(by.schema());
    assert_eq!(
        [By::Thread, By::Process, By::Cgroup, By::File, By::Span, By::Cause, By::Stack].map(named),
        [["comm"], ["comm"], ["cgroup"], ["file"], ["span"], ["cause"], ["stack"]]
    );
    let kvm = |by| names(kvm::Layout { by, timed: true, split: false, buckets: false }.schema());
    assert_eq!(kvm(kvm::By::Reason), ["name"]);
    assert_eq!(kvm(kvm::By::Vcpu), ["vm", "vcpu"]);
    assert_eq!(kvm(kvm::By::Msr), ["name", "msr", "rw"]);
    assert_eq!(names(sgx::By::Enclave.schema()), ["comm", "class"]);
    assert!(names(sgx::By::All.schema()).is_empty());
}

#[test]
fn a_run_without_names_has_one_row() {
    let epc = |loads: u64| run("x", "sgx.all", &[&[("faults", 5u64.into()), ("loads", loads.into())]]);
    let items = compared(&[epc(10)], &[epc(20)], &Per::Second);
    let expected = vec![Value::Null, Value::U64(10_000), Value::U64(20_000)];
    assert_eq!(rows(&items, "loads", &["name", "before", "after"]), [expected]);
}

#[test]
fn what_is_unknown_stays_unknown() {
    let timed = files("x", &[("/a", 10)]);
    let untimed = run("y", "faults.file", &[&[("file", "/a".into()), ("minor", 10u64.into())]]);
    let items = compared(&[timed], std::slice::from_ref(&untimed), &Per::Second);
    let columns = ["before", "after", "diff", "change_ppm"];
    let expected = vec![Value::U64(10_000_000), Value::Null, Value::Null, Value::Null];
    assert_eq!(rows(&items, "total_ns", &columns), [expected]);
    let untimed = [untimed];
    let items = compared(&untimed, &untimed, &Per::Second);
    assert!(rows(&items, "total_ns", &columns).is_empty());
}

#[test]
fn where_runs_differ_and_what_they_lost_is_in_words() {
    let mut before = [files("x", &[("/a", 1)]), files("y", &[("/a", 1)])];
    let mut after = [files("z", &[("/a", 1)])];
    after[0].header.variant = "fentry".into();
    before[0].end.lost_events = 3;
    before[1].end.lost_events = 4;
    after[0].end.more = vec![
        faults::LOSSES.record(&faults::Losses { missed_programs: Some(2), ..faults::Losses::default() }),
    ];
    let items = compared(&before, &after, &Per::Second);
    let Item::Header(header) = &items[0] else { panic!("{items:?}") };
    assert_eq!(header.setting("differences"), Some(&"variant tracepoint / fentry".into()));
    assert_eq!(header.setting("before"), Some(&"x, y".into()));
    assert_eq!(end(&items).value("before_losses"), Some(&"7 lost events".into()));
    assert_eq!(end(&items).value("after_losses"), Some(&"2 missed programs".into()));
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let one = || files("x", &[("/a", 1)]);
    let none = |id| run("y", id, &[]);
    let refused = |change: &dyn Fn(&mut Run)| {
        let mut other = Run { name: "y".into(), ..one() };
        change(&mut other);
        diff(&[one()], &[other], &Per::Second, &Figures::All).unwrap_err()
    };
    let said = refused(&|run| *run = none("kvm.count_reason"));
    assert!(said.contains("x is a recording of `faults` and y of `kvm`"), "{said}");
    let said = refused(&|run| *run = none("faults.cause"));
    assert!(said.contains("rows of faults.file and y of faults.cause"), "{said}");
    assert!(refused(&|run| run.end.sampled = 8).contains("y is sampled (1 in 8 faults is timed)"));
    assert!(refused(&|run| run.end.duration_ns = 0).contains("no duration"));
    assert!(refused(&|run| run.totals[0].hidden = 5).contains("y lacks 5 rows"));
    let events_only = refused(&|run| {
        run.header.tables.clear();
        run.totals[0].rows.clear();
    });
    assert!(events_only.contains("y has no totals to compare"), "{events_only}");
}
