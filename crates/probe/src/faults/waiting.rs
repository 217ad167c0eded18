//! Chains that wait for their names, and whose turn it is: every user's is the same share of the time, and within that every
//! process's. So who has many, or such as take long to name, keeps nobody else waiting.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use trapline_model::faults::GroupId;
use trapline_symbols::Image;

use crate::stacks::Chain;

/// Chains that wait, at most: twice as many as the kernel half holds.
const MOST: usize = 32_768;
/// Of what the others leave of that, one user's may be this many times as many.
const SHARE: usize = 3;

/// A chain without names.
#[derive(Debug)]
pub(super) struct Unnamed {
    /// Its group in the ledger.
    pub(super) id: GroupId,
    /// Its number in a recording.
    pub(super) stack_id: u64,
    /// Whether the kernel half still has the group.
    pub(super) is_open: bool,
    pub(super) image: Image,
    pub(super) comm: Rc<str>,
    pub(super) user: Chain,
    pub(super) kernel: Chain,
    /// Who runs the process.
    pub(super) uid: u32,
    /// How many faults there are of it.
    pub(super) faults: u64,
}

/// Those of one user.
#[derive(Debug, Default)]
struct User {
    /// How long their names have taken.
    spent: Duration,
    waiting: usize,
    /// Of each process, in the order of their turns.
    turns: VecDeque<u32>,
    of_process: HashMap<u32, VecDeque<u64>>,
}

impl User {
    fn put(&mut self, pid: u32, number: u64) {
        self.of_process.entry(pid).or_default().push_back(number);
        if self.of_process.get(&pid).is_some_and(|waiting| waiting.len() == 1) {
            self.turns.push_back(pid);
        }
    }

    fn next(&mut self) -> Option<u64> {
        let pid = self.turns.pop_front()?;
        let waiting = self.of_process.get_mut(&pid)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.of_process.remove(&pid);
        } else {
            self.turns.push_back(pid);
        }
        next
    }
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    chains: HashMap<u64, Unnamed>,
    users: HashMap<u32, User>,
    /// How many there are in each address space.
    images: HashMap<Image, usize>,
    newest: u64,
}

impl Waiting {
    /// Whether another one of a user's may wait.
    pub(super) fn has_space_for(&self, uid: u32) -> bool {
        let waiting = self.users.get(&uid).map_or(0, |user| user.waiting);
        waiting <= MOST.saturating_sub(self.chains.len()).saturating_mul(SHARE) && self.chains.len() < MOST
    }

    /// Adds one; gives its number.
    pub(super) fn add(&mut self, unnamed: Unnamed) -> u64 {
        self.newest += 1;
        // Who comes now has no claim to what the others have had.
        let least = self.users.values().map(|user| user.spent).min().unwrap_or_default();
        let user = self.users.entry(unnamed.uid).or_insert_with(|| User { spent: least, ..User::default() });
        user.waiting += 1;
        *self.images.entry(unnamed.image).or_default() += 1;
        user.put(unnamed.image.process.pid, self.newest);
        self.chains.insert(self.newest, unnamed);
        self.newest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chains.is_empty()
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Unnamed> {
        self.chains.get_mut(&number)
    }

    /// Whose turn it is. It is named then, or put back.
    pub(super) fn next(&mut self) -> Option<(u64, &Unnamed)> {
        let of_users = self.users.values_mut().filter(|user| !user.turns.is_empty());
        let number = of_users.min_by_key(|user| user.spent)?.next()?;
        Some((number, self.chains.get(&number)?))
    }

    /// It has no name yet.
    pub(super) fn put_back(&mut self, number: u64) {
        if let Some(unnamed) = self.chains.get(&number)
            && let Some(user) = self.users.get_mut(&unnamed.uid)
        {
            user.put(unnamed.image.process.pid, number);
        }
    }

    /// It has its name.
    pub(super) fn take(&mut self, number: u64) -> Option<Unnamed> {
        let unnamed = self.chains.remove(&number)?;
        if let Entry::Occupied(mut left) = self.images.entry(unnamed.image) {
            *left.get_mut() -= 1;
            if *left.get() == 0 {
                left.remove();
            }
        }
        if let Some(user) = self.users.get_mut(&unnamed.uid) {
            user.waiting -= 1;
            if user.waiting == 0 {
                self.users.remove(&unnamed.uid);
            }
        }
        Some(unnamed)
    }

    /// So long it took to look for names of a user's.
    pub(super) fn spend(&mut self, uid: u32, time: Duration) {
        if let Some(user) = self.users.get_mut(&uid) {
            user.spent += time;
        }
    }

    /// Whether something is to be looked for in that memory.
    pub(super) fn asks_about(&self, image: Image) -> bool {
        self.images.contains_key(&image)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use trapline_model::faults::Process;

    use super::*;

    fn unnamed(uid: u32, pid: u32) -> Unnamed {
        let image = Image::from(Process { pid, start_ns: 1 });
        let (user, kernel) = (Chain::Lost, Chain::None);
        Unnamed {
            id: [0; 7],
            stack_id: 1,
            is_open: true,
            image,
            comm: "".into(),
            user,
            kernel,
            uid,
            faults: 1,
        }
    }

    #[test]
    fn each_user_and_each_process_has_its_turn() {
        let mut waiting = Waiting::default();
        for n in 0..100 {
            waiting.add(unnamed(1, n % 10));
        }
        waiting.add(unnamed(2, 77));
        let mut order = Vec::new();
        while let Some((number, of)) = waiting.next() {
            let (uid, pid) = (of.uid, of.image.process.pid);
            order.push((uid, pid));
            waiting.spend(uid, Duration::from_millis(1));
            waiting.take(number);
        }
        assert_eq!(order.len(), 101);
        assert!(order[..2].contains(&(2, 77)), "{order:?}");
        let first: HashSet<_> = order[..11].iter().collect();
        assert_eq!(first.len(), 11, "each process once before any comes again: {order:?}");
        assert!(waiting.is_empty() && waiting.users.is_empty() && waiting.images.is_empty());
    }

    #[test]
    fn what_is_put_back_has_its_turn_again_and_nobody_takes_all_the_space() {
        let mut waiting = Waiting::default();
        let number = waiting.add(unnamed(1, 7));
        assert_eq!(waiting.next().map(|(number, _)| number), Some(number));
        assert!(waiting.next().is_none());
        waiting.put_back(number);
        assert_eq!(waiting.next().map(|(number, _)| number), Some(number));
        waiting.put_back(number);
        let mut n = 0;
        while waiting.has_space_for(1) {
            waiting.add(unnamed(1, n % 1000));
            n += 1;
        }
        assert!((MOST / 2..MOST * 4 / 5).contains(&(n as usize)), "{n}");
        assert!(waiting.has_space_for(2));
    }
}
