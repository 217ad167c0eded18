//! The last lines of a run: what trapline itself cost, and what was lost.

use trapline_model::{Facts, lost};

/// What a run cost and lost, in a line for each loss.
pub fn end_lines(end: &Facts) -> Vec<String> {
    let losses = end.losses();
    let sampled = sampled(end).map_or(String::new(), |sampled| format!("; {sampled}"));
    let verdict = if losses.is_empty() { "nothing lost" } else { "losses:" };
    let seconds = end.duration_ns as f64 / 1e9;
    let mut lines: Vec<String> = command(end).into_iter().collect();
    let own = match end.own_cpu_ns {
        Some(ns) => format!("trapline used {} of CPU in {seconds:.3} s", cpu(ns)),
        None => format!("recorded for {seconds:.3} s"),
    };
    // Of a part, nobody knows.
    let run = if end.is("whole_run") { "in the whole run, " } else { "" };
    let cut = if end.is("cut_off") { "up to shortly before the recording was cut off, " } else { "" };
    lines.push(format!("{run}{cut}{own}{sampled}; {verdict}"));
    lines.extend(losses.iter().map(|(n, field)| format!("  {}. {}", lost(*n, field.name), field.help)));
    lines
}

/// In place of that where the source broke before its end.
pub(crate) const UNKNOWN: &str = "the recording was not read to its end, so losses are unknown";

/// What is known of a part of the events alone, if it is.
pub(crate) fn sampled(end: &Facts) -> Option<String> {
    match (end.sampled, end.own_cpu_ns) {
        (0 | 1, _) => None,
        (n, Some(_)) => Some(format!("1 event in {n} was timed")),
        // Other programs time nothing: they record a part, which stands for the rest.
        (n, None) => Some(format!("1 event in {n} was recorded, so counts are estimates")),
    }
}

/// What the command took, if one ended with the run.
fn command(end: &Facts) -> Option<String> {
    let [wall, user, system] =
        ["command_wall_ns", "command_user_ns", "command_system_ns"].map(|name| end.get(name));
    let seconds = |ns: u64| format!("{:.3} s", ns as f64 / 1e9);
    Some(format!("the command took {}: {} user, {} system", seconds(wall?), seconds(user?), seconds(system?)))
}

/// The losses alone, without explanations.
pub(crate) fn in_short(end: &Facts) -> String {
    let losses = end.losses();
    let names: Vec<String> = losses.iter().map(|(n, field)| lost(*n, field.name)).collect();
    let losses = if names.is_empty() { "nothing lost".into() } else { names.join(", ") };
    if end.is("cut_off") {
        format!("{losses} up to shortly before the recording was cut off")
    } else {
        losses
    }
}

/// CPU time, to about three digits.
fn cpu(ns: u64) -> String {
    match ns {
        0..10_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        10_000_000..10_000_000_000 => format!("{:.0} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use trapline_model::faults::{LOSSES, Losses};
    use trapline_model::{COMMAND, CUT_OFF, CutOff, Took, WHOLE_RUN, WholeRun};

    use super::*;

    fn end(lost_events: u64, losses: &Losses) -> Facts {
        let facts = Facts {
            duration_ns: 2_000_000_000,
            sampled: 1,
            own_cpu_ns: Some(17_200_000),
            ..Facts::default()
        };
        Facts { lost_events, more: vec![LOSSES.record(losses)], ..facts }
    }

    #[test]
    fn a_run_that_lost_nothing_ends_in_one_line() {
        let none = end(0, &Losses { missed_programs: Some(0), ..Losses::default() });
        assert_eq!(end_lines(&none), ["trapline used 17 ms of CPU in 2.000 s; nothing lost"]);
        assert_eq!(in_short(&none), "nothing lost");
        let sampled = Facts { sampled: 8, own_cpu_ns: Some(12_345_000_000), ..none };
        let expected = "trapline used 12.3 s of CPU in 2.000 s; 1 event in 8 was timed; nothing lost";
        assert_eq!(end_lines(&sampled), [expected]);
        let by_another = Facts { own_cpu_ns: None, ..sampled };
        let expected =
            "recorded for 2.000 s; 1 event in 8 was recorded, so counts are estimates; nothing lost";
        assert_eq!(end_lines(&by_another), [expected]);
    }

    #[test]
    fn what_was_known_last_of_a_recording_that_was_cut_off_says_so() {
        let mut end = end(0, &Losses::default());
        end.more.push(CUT_OFF.record(&CutOff));
        let expected = "up to shortly before the recording was cut off, trapline used 17 ms of CPU in 2.000 s; nothing lost";
        assert_eq!(end_lines(&end), [expected]);
        assert_eq!(in_short(&end), "nothing lost up to shortly before the recording was cut off");
    }

    #[test]
    fn what_is_of_the_whole_run_says_so() {
        let mut end = end(0, &Losses::default());
        end.more.push(WHOLE_RUN.record(&WholeRun));
        assert_eq!(
            end_lines(&end),
            ["in the whole run, trapline used 17 ms of CPU in 2.000 s; nothing lost"]
        );
    }

    #[test]
    fn what_a_command_took_comes_before_that() {
        let took = Took { wall_ns: 1_204_000_000, user_ns: 830_000_000, system_ns: 120_400_000 };
        let mut end = end(0, &Losses::default());
        end.more.insert(0, COMMAND.record(&took));
        let expected = [
            "the command took 1.204 s: 0.830 s user, 0.120 s system",
            "trapline used 17 ms of CPU in 2.000 s; nothing lost",
        ];
        assert_eq!(end_lines(&end), expected);
    }

    #[test]
    fn each_loss_is_explained_and_zeros_are_left_out() {
        let some =
            end(3, &Losses { truncated_stacks: Some(7), missed_programs: Some(0), ..Losses::default() });
        assert_eq!(
            end_lines(&some),
            [
                "trapline used 17 ms of CPU in 2.000 s; losses:",
                "  3 lost events. Events that happened and are not shown: the ring buffer was full.",
                "  7 truncated stacks. With --by stack, faults whose stack is deeper than is walked, or, with the variant rootless, than is copied.",
            ]
        );
        assert_eq!(in_short(&some), "3 lost events, 7 truncated stacks");
        let one = end(1, &Losses { truncated_stacks: Some(1), ..Losses::default() });
        assert_eq!(in_short(&one), "1 lost event, 1 truncated stack");
        assert!(end_lines(&one)[1].starts_with("  1 lost event. Events that"), "{one:?}");
    }
}
