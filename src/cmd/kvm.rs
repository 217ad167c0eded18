//! `trapline kvm`: exits of virtual machines.

use std::time::Duration;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use trapline_model::kvm::{
    By, COUNT, EVENT, EVENT_WITH_STACK, Exit, HIST, HIST_EACH, Isa, Layout, Level, Names, NoSuchExit, SLOWER,
    TIME,
};
use trapline_model::layout::{self, DECLARED};
use trapline_model::{Facts, Item, Schema};
use trapline_probe::kvm::{
    Choice, Kvm, OTHER_VM_EXITS, Options, UNSEEN_RETURNS, exits_by_kvm, isa, names, warnings,
};
use trapline_probe::{Keep, Launch};

use crate::args::{self, Order, Shown};
use crate::cmd::run::{self, Opened, Start};
use crate::format::Ask;
use crate::status::{refuse, warn};
use crate::values;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  trapline kvm count               which exits, and their number each second
  trapline kvm time --split        where their time is spent
  trapline kvm slower 10           each exit of more than 10 ms, as it happens")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

impl Args {
    /// Refuses options that have no effect.
    #[cfg(test)]
    pub(crate) fn check(&self) -> Result<()> {
        Job::of(&self.what, &names(), isa())?.check()
    }
}

#[derive(Debug, Subcommand)]
enum What {
    /// Count exits by reason, of the guest (L1) and of its own guests (L2)
    #[command(after_help = "Examples:
  trapline kvm count                  all VMs, each second
  trapline kvm count --by vm -i 5s    a row per VM, each 5 seconds")]
    Count {
        #[command(flatten)]
        shared: Shared,
    },
    /// Count and time exits, from the exit to the next entry, in nanoseconds
    #[command(after_help = "Examples:
  trapline kvm time -p 1234 -d 10s    one VM for 10 seconds
  trapline kvm time --split           with the time in KVM, in the VMM, blocked and preempted")]
    Time {
        #[command(flatten)]
        shared: Shared,
    },
    /// Print a log2 histogram of exit times, in nanoseconds
    #[command(after_help = "Examples:
  trapline kvm hist -d 10s            one histogram of all exits
  trapline kvm hist HLT MSR_WRITE --each -d 10s")]
    Hist {
        /// Count only these exits, by number or name: 12, 0x78, HLT [default: all]
        #[arg(value_name = "EXIT")]
        exits: Vec<String>,
        /// Print a histogram per exit reason, not one of all
        #[arg(long)]
        each: bool,
        #[command(flatten)]
        shared: Shared,
    },
    /// Print each exit that takes longer than MS milliseconds, as it happens
    #[command(after_help = "Examples:
  trapline kvm slower                 exits of more than 10 ms
  trapline kvm slower 500us --excludes HLT")]
    Slower {
        /// Milliseconds (fractions allowed), or a time with its unit
        #[arg(value_name = "MS", default_value = "10", value_parser = values::duration_in_ms)]
        than: Duration,
        /// Leave out these exits, by number or name, separated by commas: 12,HLT
        #[arg(long, value_name = "EXITS")]
        excludes: Vec<String>,
        /// Memory for exits that wait to be shown, MiB (a power of two)
        #[arg(long, value_name = "MB", default_value = "8", value_parser = values::ring_mib)]
        ring_size: u32,
        /// Also print the VMM's call chain: where its thread was off its processor longest while it handled the exit
        #[arg(long)]
        stacks: bool,
        #[command(flatten)]
        shared: Shared,
    },
}

#[derive(Debug, clap::Args)]
struct Shared {
    /// Trace only the VM of this name: QEMU's -name, libvirt's, Firecracker's --id, cloud-hypervisor's socket
    #[arg(long, value_name = "NAME")]
    vm: Option<String>,

    /// Trace only vCPUs of this number
    #[arg(long, value_name = "N")]
    vcpu: Option<u32>,

    /// Count only exits of the guest (l1), or of its own guests (l2)
    #[arg(long, value_name = "LEVEL")]
    level: Option<LevelName>,

    /// Print a row per WHAT
    #[arg(long, value_name = "WHAT", default_value = "reason")]
    by: ByName,

    /// Divide the time into KVM, the VMM in user space, blocked, preempted, and page faults of the host
    #[arg(long)]
    split: bool,

    #[command(flatten)]
    memory: args::Memory,

    #[command(flatten)]
    whose: args::Whose,

    #[command(flatten)]
    live: args::Live,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LevelName {
    L1,
    L2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ByName {
    /// Why the guest was left
    Reason,
    /// The process that runs the guest
    Vm,
    /// The vCPU
    Vcpu,
    /// Reason and model-specific register
    Msr,
    /// Reason and I/O port
    Port,
    /// Reason and guest-physical address of a device
    Mmio,
    /// Reason and the guest's instruction
    Rip,
    /// Reason, and why KVM returned to the VMM in user space
    Userspace,
    /// The process that runs the guest, and reason
    #[value(name = "vm,reason")]
    VmReason,
}

impl From<ByName> for By {
    fn from(by: ByName) -> Self {
        match by {
            ByName::Reason => Self::Reason,
            ByName::Vm => Self::Vm,
            ByName::Vcpu => Self::Vcpu,
            ByName::Msr => Self::Msr,
            ByName::Port => Self::Port,
            ByName::Mmio => Self::Mmio,
            ByName::Rip => Self::Rip,
            ByName::Userspace => Self::Userspace,
            ByName::VmReason => Self::VmReason,
        }
    }
}

impl Shared {
    /// Whether the exits of all VMs are meant, of those that the filter means.
    fn means_all(&self) -> bool {
        self.vm.is_none() && self.vcpu.is_none() && self.level.is_none()
    }
}

/// What one of the four does that the others do not.
struct Job<'a> {
    shared: &'a Shared,
    choice: Choice,
    layout: Layout,
    /// The familiar table.
    form: &'static layout::Layout,
    /// What is left out, in words.
    excludes: Vec<String>,
    slower: Option<Duration>,
    ring_bytes: u32,
    /// With the VMM's stack.
    stacks: bool,
}

impl<'a> Job<'a> {
    fn new(shared: &'a Shared, timed: bool, form: &'static layout::Layout) -> Self {
        let buckets = [&HIST, &HIST_EACH, &SLOWER].contains(&form);
        let (by, split) = (shared.by.into(), shared.split);
        let layout = Layout { by, timed: timed || split, buckets, split };
        Self {
            shared,
            choice: Choice::All,
            layout,
            form,
            slower: None,
            excludes: vec![],
            ring_bytes: 0,
            stacks: false,
        }
    }

    fn of(what: &'a What, names: &Names, here: Option<Isa>) -> Result<Self> {
        Ok(match what {
            What::Count { shared } => Self::new(shared, false, &COUNT),
            What::Time { shared } => Self::new(shared, true, &TIME),
            What::Hist { exits, each, shared } => {
                let only = chosen(names, here, exits)?;
                let choice = if only.is_empty() { Choice::All } else { Choice::Only(only) };
                Self { choice, ..Self::new(shared, true, if *each { &HIST_EACH } else { &HIST }) }
            }
            What::Slower { than, excludes, ring_size, stacks, shared } => {
                let except = chosen(names, here, excludes)?;
                Self {
                    excludes: spoken(names, here, &except),
                    choice: if except.is_empty() { Choice::All } else { Choice::Except(except) },
                    slower: Some(*than),
                    ring_bytes: ring_size << 20,
                    stacks: *stacks,
                    ..Self::new(shared, true, &SLOWER)
                }
            }
        })
    }

    /// Refuses options that have no effect on what is shown.
    fn check(&self) -> Result<()> {
        let live = &self.shared.live;
        let slower = self.slower();
        let each = *self.form == HIST_EACH;
        let format = live.format()?.about();
        let table = format.for_people;
        let lines = table && slower;
        let histogram = table && self.histogram();
        let by = self.layout.by != By::Reason;
        let csv = format.one_table && slower;
        refuse(&[
            (
                (lines || csv) && by,
                "this prints single exits, not rows: leave out --by, or use --format jsonl",
            ),
            (
                (lines || csv) && self.layout.split,
                "this prints single exits, not rows: leave out --split, or use --format jsonl",
            ),
            (
                lines
                    && (live.rows.sort.is_some() || live.rows.top.is_some() || live.rows.interval.is_some()),
                "this prints single exits, not rows: leave out -i, --sort and --top, or use --format jsonl",
            ),
            (
                histogram && by,
                "a histogram counts all exits, or with --each one reason: leave out --by, or use --format jsonl",
            ),
            (
                histogram && self.layout.split,
                "a histogram counts whole times: leave out --split, or use `trapline kvm time`",
            ),
            (
                histogram && !each && (live.rows.sort.is_some() || live.rows.top.is_some()),
                "this prints one histogram: leave out --sort and --top, or add --each",
            ),
            (
                !format.histograms() && self.histogram(),
                "this format has no histograms: use --format jsonl, or `trapline kvm time`",
            ),
            (each && !table, "in this format each row has its histogram: leave out --each"),
        ])?;
        self.shared.whose.check()?;
        live.check(if slower { Shown::Events } else { Shown::Totals })
    }

    /// The familiar table where there is one, else the common one.
    fn ask(&self, schema: &'static Schema) -> Ask {
        let is_common =
            !self.slower() && !self.histogram() && (self.layout.by != By::Reason || self.layout.split);
        let layout = if is_common { &DECLARED } else { self.form };
        Ask {
            layout,
            // The first ones by number are not those that matter.
            is_whole: self.shared.live.rows.sort.is_none(),
            redrawn: self.shared.live.rows.interval.is_some() && !self.slower(),
            ..Ask::new(match (self.slower(), self.stacks) {
                (false, _) => schema,
                (true, false) => EVENT,
                (true, true) => EVENT_WITH_STACK,
            })
        }
    }

    fn slower(&self) -> bool {
        self.slower.is_some()
    }

    fn histogram(&self) -> bool {
        *self.form == HIST || *self.form == HIST_EACH
    }
}

/// Runs until the end and gives the exit status.
///
/// # Errors
/// When there is no KVM, nothing can be attached, an exit is not known, or the output cannot be written.
pub(crate) fn run(args: &Args) -> Result<u8> {
    let names = names();
    let job = Job::of(&args.what, &names, isa())?;
    job.check()?;
    let (live, whose) = (&job.shared.live, &job.shared.whose);
    let schema = job.layout.schema();
    let frame = live.frame(None, whose.pids())?;
    // As the exits are numbered, if no other order is asked for.
    let order = live.order(schema, "count")?;
    let order = Order { by: order.by.filter(|_| live.rows.sort.is_some()), ..order };
    let ask = job.ask(schema);
    let options = Options {
        filter: whose.filter(live)?,
        vm: job.shared.vm.clone(),
        vcpu: job.shared.vcpu,
        level: job.shared.level.map(|level| match level {
            LevelName::L1 => Level::L1,
            LevelName::L2 => Level::L2,
        }),
        choice: job.choice,
        layout: job.layout,
        slower: job.slower,
        stacks: job.stacks,
        variant: live.variant.clone(),
        ring_bytes: job.ring_bytes,
        memory_bytes: job.shared.memory.memory,
    };
    run::run(
        live,
        frame,
        order,
        ask,
        Exits { shared: job.shared, options, excludes: job.excludes, before: None, nothing: false },
    )
}

struct Exits<'a> {
    shared: &'a Shared,
    options: Options,
    excludes: Vec<String>,
    /// The exits by KVM's own statistics, if they can be compared.
    before: Option<u64>,
    /// No exit was counted.
    nothing: bool,
}

impl Start for Exits<'_> {
    fn open(&mut self, launch: Option<&Launch>) -> Result<Opened> {
        let kvm = Kvm::open(&self.options, launch)?;
        warnings(&self.options.filter.pids, launch.is_some()).iter().for_each(|warning| warn(warning));
        let of_all = self.options.filter.words().is_none()
            && self.shared.means_all()
            && matches!(self.options.choice, Choice::All);
        self.before = exits_by_kvm().filter(|_| of_all);
        Ok((Box::new(kvm), Keep::READING.and_if(Keep::NAMES, self.options.stacks)))
    }

    fn shown(&self) -> trapline_model::Shown {
        let excludes = Some(self.excludes.join(",")).filter(|words| !words.is_empty());
        trapline_model::Shown { excludes, ..Default::default() }
    }

    /// A zero that is none is explained.
    fn written(&mut self, item: &Item) {
        match item {
            Item::Totals(block) => self.nothing = block.rows.is_empty(),
            Item::End(end) if self.nothing => {
                let by_kvm = self.before.and_then(|before| exits_by_kvm()?.checked_sub(before));
                unseen(end, by_kvm).iter().for_each(|warning| warn(warning));
            }
            _ => {}
        }
    }
}

/// What shows that guests ran although no exit was counted: that is no zero.
fn unseen(end: &Facts, by_kvm: Option<u64>) -> Option<String> {
    let loss = |name| end.get(name).unwrap_or(0);
    let (returns, others) = (loss(UNSEEN_RETURNS), loss(OTHER_VM_EXITS));
    let why = "KVM without VMX and SVM (PVM) fires no kvm_exit";
    if returns > 0 {
        return Some(format!("no exit was counted, but KVM returned {returns} times to the VMM: {why}"));
    }
    if others > 0 {
        return Some(format!("no exit of a VM with that name was counted, but {others} of other VMs"));
    }
    let exits = by_kvm.filter(|&n| n > 0)?;
    Some(format!("no exit was counted, but KVM's statistics in debugfs, kvm/exits, count {exits}: {why}"))
}

/// The exits in a list such as `12,HLT,` or `[12, 30]`. What no processor of this machine's kind has is allowed beside what
/// it has, with a word about it: a list may be written for several machines.
///
/// # Errors
/// When a name or a number is not known, or this machine has none of those exits.
fn chosen(names: &Names, here: Option<Isa>, lists: &[String]) -> Result<Vec<Exit>> {
    let words = lists.iter().flat_map(|list| list.trim_matches(['[', ']', '(', ')']).split(','));
    let words = words.map(str::trim).filter(|word| !word.is_empty());
    let mut all = Vec::new();
    let mut foreign = Vec::new();
    for word in words {
        let found = names.find(word, here)?;
        if let (Some(here), Some(&Exit { isa, .. })) = (here, found.first())
            && found.iter().all(|exit| exit.isa != here)
        {
            foreign.push(NoSuchExit::Elsewhere { name: word.to_owned(), isa, here });
        }
        all.extend(found);
    }
    match foreign.as_slice() {
        [first, ..] if all.iter().all(|exit| here != Some(exit.isa)) => Err(first.clone().into()),
        some => {
            some.iter().for_each(|no| warn(&no.to_string()));
            Ok(all)
        }
    }
}

/// The names of exits on this machine; where its kind is not known, on Intel's.
fn spoken(names: &Names, here: Option<Isa>, exits: &[Exit]) -> Vec<String> {
    let here = here.unwrap_or(Isa::Vmx);
    exits.iter().filter(|exit| exit.isa == here).map(|&exit| names.name(exit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trapline_model::kvm::{LOSSES, Losses};

    #[test]
    fn lists_are_forgiving() {
        let names = Names::default();
        let list = |text: &str| chosen(&names, None, &[text.to_owned()]).unwrap();
        assert_eq!(list("12,"), list("12"));
        assert_eq!(list("[12, 30]"), list("12,30"));
        assert_eq!(list("HLT"), names.find("hlt", None).unwrap());
        assert_eq!(chosen(&names, None, &["12".into(), "30,".into()]).unwrap(), list("12,30"));
        assert_eq!(list(""), []);
        let error = chosen(&names, None, &["HLT,CPIUD".into()]).unwrap_err();
        assert_eq!(error.to_string(), "no exit has the name `CPIUD`; did you mean `CPUID`?");
    }

    #[test]
    fn a_zero_beside_guests_that_ran_is_explained() {
        let end = |unseen_returns, other_vm_exits| {
            let losses = Losses { unseen_returns, other_vm_exits, ..Losses::default() };
            Facts { more: vec![LOSSES.record(&losses)], ..Facts::default() }
        };
        assert_eq!(unseen(&end(0, None), Some(0)), None);
        let holds = |said: Option<String>, text: &str| said.is_some_and(|said| said.contains(text));
        assert!(holds(unseen(&end(3, None), None), "returned 3 times to the VMM"));
        assert!(holds(unseen(&end(0, Some(4)), None), "but 4 of other VMs"));
        assert!(holds(unseen(&end(0, None), Some(5)), "count 5"));
    }

    #[test]
    fn exits_of_another_processor_alone_are_refused() {
        let names = Names::default();
        let here =
            |text: &str| chosen(&names, Some(Isa::Svm), &[text.to_owned()]).map_err(|no| no.to_string());
        assert!(here("EPT_VIOLATION").is_err_and(|no| no.starts_with("`EPT_VIOLATION` is an exit of vmx, ")));
        assert!(here("IO_INSTRUCTION,io").is_ok_and(|exits| exits.len() == 2));
        assert!(here("0xfffff").is_err_and(|no| no.starts_with("no exit of svm has the number 0xfffff;")));
    }
}
