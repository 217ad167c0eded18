//! The functions of the instructions that access memory.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use anyhow::Result;
use trapline_model::access::Step;
use trapline_model::faults::Process;
use trapline_symbols::{Image, Lives, Scope, Symbols, Why};

/// Steps that wait behind one whose name is looked for, at most: then it goes without.
const MOST: usize = 1 << 16;

/// Names the instructions of the processes that are traced, also of those that have ended.
#[derive(Debug)]
pub(crate) struct Functions {
    symbols: Symbols,
    lives: Lives,
    /// Steps, each with the instruction that is to be named.
    waiting: VecDeque<(Step, Option<(Image, u64)>)>,
}

impl Functions {
    /// Follows what processes map from now on, and looks at those that are there.
    ///
    /// # Errors
    /// When that is not allowed.
    pub(crate) fn watch(whose: Scope) -> Result<Self> {
        // Of everybody only those matter that become another program while we look.
        let wanted = !matches!(whose, Scope::All);
        let (mut lives, mut symbols) = (Lives::watch(whose)?, Symbols::new());
        if wanted {
            lives.adopt(&mut symbols);
        }
        Ok(Self { symbols, lives, waiting: VecDeque::new() })
    }

    /// Before accesses are read: those of whoever is over by now are among them, or were before.
    pub(crate) fn settle(&mut self) {
        if self.lives.is_full_of_ended() {
            self.lives.settle();
        }
    }

    /// Learns what processes have mapped: before the accesses that were read are named.
    pub(crate) fn follow(&mut self) {
        self.lives.drain(&mut self.symbols);
    }

    /// Puts steps behind those that wait for the names of their functions, and forgets who was over when that was settled.
    pub(crate) fn put(&mut self, steps: impl Iterator<Item = Step>) {
        for step in steps {
            let ip = step.page.as_ref().and_then(|page| page.ip);
            let at = ip.map(|ip| {
                let known = self.lives.at(step.pid, step.time_ns).map(|(image, _)| image);
                // Its birth was not seen: it may still be there to be asked.
                (known.unwrap_or_else(|| Image::from(Process { pid: step.pid, start_ns: 0 })), ip)
            });
            self.waiting.push_back((step, at));
        }
        let asked: HashSet<Image> = self.waiting.iter().filter_map(|(_, at)| Some(at.as_ref()?.0)).collect();
        self.lives.forget(&mut self.symbols, |image| asked.contains(&image));
    }

    /// Whether steps wait.
    pub(crate) fn have_work(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives the steps, in order, up to the first whose name is not known at a moment; all of them if there is no later one.
    pub(crate) fn take(&mut self, until: Instant, is_last: bool) -> Vec<Step> {
        let mut named = Vec::new();
        self.symbols.wait_until(Some(until));
        while let Some((mut step, at)) = self.waiting.pop_front() {
            if let (Some(page), Some((image, ip))) = (&mut step.page, at) {
                let names = self.symbols.resolve(image, &[ip]);
                let late = names.first().is_some_and(|name| name.functions == Err(Why::Late));
                // What is not even asked for is not waited for: its user's files have had their time.
                if late && !is_last && self.waiting.len() < MOST && self.symbols.wait().is_some() {
                    self.waiting.push_front((step, at));
                    break;
                }
                // Without a function, the file and where in it. Nothing if not even that is known.
                let known = names.first().filter(|name| name.functions.is_ok() || name.module.is_some());
                page.symbol = known.map(ToString::to_string);
            }
            named.push(step);
        }
        named
    }

    /// How many records of births, programs and mappings had no room.
    pub(crate) fn lost(&self) -> u64 {
        self.lives.lost()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use trapline_model::access::{Way, What};
    use trapline_symbols::maps::Maps;

    use super::super::from_abi::PageAccess;
    use super::super::target::Target;
    use super::*;
    use crate::system;

    #[test]
    #[ignore = "needs root: `make test` runs it"]
    fn ones_own_function_and_nothing_at_all() {
        let own = std::process::id();
        let mut functions = Functions::watch(Scope::These([own].into())).unwrap();
        let here = ones_own_function_and_nothing_at_all as fn() as usize as u64;
        let now = system::monotonic_ns();
        let mut of = |pid, ip| {
            let access = PageAccess { pid, ip: Some(ip), ..PageAccess::of_inode(now, Way::Read, 0) };
            let page = Target::new(pid, Maps::default()).page(&access, 0, false);
            functions.put([Target::access(&access, page)].into_iter());
            let until = Instant::now() + Duration::from_secs(60);
            let [step] = functions.take(until, true).try_into().unwrap();
            step.page.unwrap().symbol
        };
        let name = of(own, here).unwrap();
        assert!(name.contains("ones_own_function_and_nothing_at_all"), "{name}");
        assert_eq!(of(own, 8), None);
        assert_eq!(of(u32::MAX >> 1, here), None);
        assert_eq!(functions.lost(), 0);
    }

    /// The names of a large file take longer than the time that there is: nothing waits for them, and nothing overtakes.
    #[test]
    #[ignore = "needs root: `make test` runs it"]
    fn steps_wait_in_order_while_names_are_looked_for() {
        let own = std::process::id();
        let mut functions = Functions::watch(Scope::These([own].into())).unwrap();
        let here = steps_wait_in_order_while_names_are_looked_for as fn() as usize as u64;
        let target = Target::new(own, Maps::default());
        let access = PageAccess { pid: own, ip: Some(here), ..PageAccess::of_inode(1, Way::Read, 0) };
        let named = Target::access(&access, target.page(&access, 0, false));
        let steps = [target.step(What::Start, 0), named, target.step(What::End, 2)];
        functions.put(steps.into_iter());
        let times = |steps: Vec<Step>| steps.iter().map(|step| step.time_ns).collect::<Vec<_>>();
        assert_eq!(times(functions.take(Instant::now(), false)), [0]);
        assert!(functions.have_work());
        let until = Instant::now() + Duration::from_secs(60);
        assert_eq!(times(functions.take(until, false)), [1, 2]);
        assert!(!functions.have_work());
    }
}
