//! The order of what comes through several rings.

use crate::clock;

/// Drains rings into what waits, and takes out what happened up to now, in the order in which it happened.
///
/// What comes while the rings are read waits: what a process did before that may be in a ring that was read already, such
/// as the exec that says whose stack it is, or its last access before its end.
pub fn up_to_now<E>(
    waiting: &mut Vec<E>,
    time_ns: impl Fn(&E) -> u64,
    drain: impl FnOnce(&mut Vec<E>),
) -> Vec<E> {
    let now = clock::monotonic_ns();
    drain(waiting);
    waiting.sort_by_key(&time_ns);
    let ready = waiting.partition_point(|event| time_ns(event) <= now);
    waiting.drain(..ready).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One ring is read before something happens, of which another then tells.
    #[test]
    fn what_comes_while_rings_are_read_waits_for_what_was_before_it() {
        let mut waiting = vec![];
        let mut later = 0;
        let ready = up_to_now(
            &mut waiting,
            |&(time, _)| time,
            |events: &mut Vec<(u64, &str)>| {
                events.push((1, "access"));
                later = clock::monotonic_ns() + 1_000_000;
                events.extend([(later, "end"), (0, "begin")]);
            },
        );
        assert_eq!(ready, [(0, "begin"), (1, "access")]);
        while clock::monotonic_ns() <= later {}
        let ready =
            up_to_now(&mut waiting, |&(time, _)| time, |events| events.push((later - 1, "last access")));
        assert_eq!(ready, [(later - 1, "last access"), (later, "end")]);
        assert!(waiting.is_empty());
    }
}
