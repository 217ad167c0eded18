//! Each key and each button of the mouse does what the help says of it. A key that is added has no place here yet, and
//! then this does not compile.

use std::mem::discriminant;
use std::time::Duration;

use jiff::tz::TimeZone;
use trapline_model::Item;
use trapline_model::faults::By;

use super::super::keys::{Does, KEYS, does, help, is_now};
use super::super::press::Press;
use super::super::{Begin, Command, Input, Look, State, Want};
use super::{FAULTS, drawn, fed, feed, header, press, row};

/// The pane of faults, of 80 columns and 24 lines, with the twelfth of its 30 rows chosen.
fn pane(played: bool) -> State {
    let mut state = if played { recording() } else { fed(Look::default()) };
    drawn(&mut state, 80, 24);
    state.shown = Some(0);
    state.tools[0].choose(11);
    state
}

/// A recording of single faults that is played, 30 s after its start.
fn recording() -> State {
    let tools = vec![(&FAULTS, Begin::Now)];
    let state = State::new(tools, Look::default(), Duration::from_secs(1), TimeZone::UTC);
    let mut state = state.with_pane(0, None).playing("run.trapline".into(), false);
    state.begin();
    state.update(Input::Item { tool: 0, run: 1, item: Item::Header(header()) });
    feed(&mut state, By::Process, 30, (0..30).map(|n| row(By::Process, n, n + 9)));
    state
}

fn open(commands: &[Command]) -> &Want {
    let [Command::Open { tool: 0, want, .. }] = commands else { panic!("{commands:?}") };
    want
}

/// Presses a key in a pane, and checks what it did.
fn check(does: Does, key: Press, played: bool) {
    let mut state = pane(played);
    let sorted = |state: &State| state.tools[0].sorted_by().unwrap();
    let (at, order, shown) = (state.tools[0].at, state.tools[0].rows.clone(), drawn(&mut state, 80, 24));
    let before = sorted(&state);
    let chosen = state.tools[0].chosen.clone();
    let commands = state.update(Input::Press(key));
    let now = state.tools[0].at;
    let page = state.page();
    match does {
        Does::Quit => assert_eq!(commands, [Command::Quit]),
        Does::Help => {
            assert!(drawn(&mut state, 80, 24).contains("? h F1     this help"));
            state.update(Input::Press(key));
            assert_eq!(drawn(&mut state, 80, 24), shown);
        }
        Does::Up => assert_eq!(now, at - 1),
        Does::Down => assert_eq!(now, at + 1),
        Does::PageUp => assert_eq!((now, page > 5), (at - page.min(at), true)),
        Does::PageDown => assert_eq!((now, page > 5), (at + page, true)),
        Does::First => assert_eq!(now, 0),
        Does::Last => assert_eq!(now, 29),
        Does::Enter => {
            let (want, pid) = (open(&commands), chosen.unwrap().get("pid").unwrap().clone());
            assert_eq!((want.group, want.keys.as_slice()), ("thread", &[("pid", pid)][..]));
        }
        Does::Back => {
            assert_eq!(state.shown, None, "the overview");
            state.shown = Some(0);
            press(&mut state, "/x\r");
            state.update(Input::Press(key));
            assert!(state.tools[0].pattern.is_none() && state.shown.is_some(), "all rows");
            press(&mut state, "\r");
            let want = state.update(Input::Press(key));
            assert_eq!((open(&want).group, open(&want).keys.len()), ("process", 0));
        }
        Does::Pane(back) => assert_eq!(state.shown, if back { None } else { Some(1) }),
        Does::Overview => assert_eq!(state.shown, None),
        Does::Sort(back) => {
            let place = |at: usize| {
                let table = state.tools[0].block().unwrap().table;
                table.iter().take(at).filter(|field| field.cell.is_some()).count()
            };
            let step = if back { place(before) - 1 } else { place(before) + 1 };
            assert_eq!(place(sorted(&state)), step);
            assert_eq!(state.tools[0].chosen, chosen);
        }
        Does::Reverse => {
            let values = |state: &State| {
                let tool = &state.tools[0];
                tool.rows.iter().map(|&row| tool.block().unwrap().rows[row].number("total_ns")).collect()
            };
            let (turned, straight): (Vec<_>, Vec<_>) = (values(&state), values(&pane(played)));
            assert!(
                straight.is_sorted_by(|a, b| a >= b) && turned.is_sorted() && turned.len() == order.len()
            );
        }
        Does::Filter => {
            press(&mut state, "postgres\r");
            assert!(drawn(&mut state, 80, 24).contains("filter: postgres"));
            let all = state.tools[0].rows.len();
            assert!(all > 0 && all < order.len(), "{all} rows");
        }
        Does::Cumulative => {
            assert_eq!(commands, [Command::Cumulative(true)]);
            assert!(drawn(&mut state, 80, 24).contains("since the start"));
            assert_eq!(state.update(Input::Press(key)), [Command::Cumulative(false)]);
        }
        Does::Pause => {
            let orders = |plays: bool| if played { vec![Command::Play(plays)] } else { vec![] };
            assert_eq!(commands, orders(false));
            assert!(drawn(&mut state, 80, 24).contains("paused"));
            assert_eq!(state.update(Input::Press(key)), orders(true));
            assert!(!drawn(&mut state, 80, 24).contains("paused"));
        }
        Does::Refresh => {
            assert_eq!(commands, [Command::Refresh]);
            let run = state.tools[0].run;
            state.update(Input::Failed { tool: 0, run, why: "another traces already".into() });
            assert!(drawn(&mut state, 80, 24).contains("r tries again"));
            assert_eq!(open(&state.update(Input::Press(key))).group, "process");
        }
        Does::Faster(less) if played => {
            assert_eq!(commands, [Command::Speed(if less { 50 } else { 200 })]);
        }
        Does::Faster(less) => {
            assert_eq!(commands, [Command::Interval(Duration::from_millis(if less { 500 } else { 2000 }))]);
            assert!(drawn(&mut state, 80, 24).contains(if less { "every 500ms" } else { "every 2s" }));
        }
        Does::Group => assert_eq!((open(&commands).group, open(&commands).keys.len()), ("thread", 0)),
        Does::Split => {
            assert!(open(&commands).split);
            assert!(!open(&state.update(Input::Press(key))).split);
        }
        Does::Events => {
            assert!(open(&commands).events && !open(&commands).keys.is_empty());
        }
        Does::Measure => assert_eq!(commands, [Command::Measure]),
        Does::Write => assert!(matches!(&commands[..], [Command::Write(_)]) && state.paused),
        Does::Leap(back) => {
            assert_eq!(commands, [Command::Seek(Duration::from_secs(if back { 20 } else { 40 }))]);
        }
        Does::Step(true) => assert_eq!(commands, [Command::StepTo(Duration::from_nanos(29_999_999_999))]),
        Does::Step(false) => assert_eq!(commands, [Command::Step]),
    }
}

#[test]
fn every_key_does_what_the_help_says() {
    for (presses, does, when, ..) in KEYS {
        for played in [false, true].into_iter().filter(|played| is_now(*when, *played)) {
            presses.iter().for_each(|&key| check(*does, key, played));
        }
    }
}

/// The keys that a name in the help means.
fn named(name: &str) -> Vec<Press> {
    match name {
        "1-9" => ('1'..='9').map(Press::Char).collect(),
        "space" => vec![Press::Char(' ')],
        "Tab" => vec![Press::Tab],
        "Enter" => vec![Press::Enter],
        "Esc" => vec![Press::Escape],
        "Up" => vec![Press::Up],
        "Down" => vec![Press::Down],
        "Left" => vec![Press::Left],
        "Right" => vec![Press::Right],
        name => match name.strip_prefix('F').and_then(|n| n.parse().ok()) {
            Some(n) => vec![Press::Function(n)],
            None => name.chars().map(Press::Char).collect(),
        },
    }
}

#[test]
fn the_help_names_keys_that_do_what_it_says() {
    for played in [false, true] {
        let mut count = 0;
        for (names, what, _) in help(played) {
            for key in names.split(' ').flat_map(named).filter(|key| !matches!(key, Press::Char('1'..='9'))) {
                let other = match what {
                    Does::Up => Does::Down,
                    what => what,
                };
                let is_it =
                    |found: Does| [what, other].map(|of| discriminant(&of)).contains(&discriminant(&found));
                assert!(does(key, played).is_some_and(is_it), "{key:?} of {names:?}");
                count += 1;
            }
        }
        assert!(count > 25, "{count}");
    }
}

#[test]
fn numbers_choose_what_the_help_has_under_them() {
    let mut state = pane(false);
    press(&mut state, "?");
    assert!(drawn(&mut state, 80, 24).contains("group by: 1 process, 2 thread, 3 file, 4 stack\n"));
    press(&mut state, "?");
    for (key, group) in [("2", "thread"), ("3", "file"), ("4", "stack"), ("1", "process")] {
        assert_eq!(open(&press(&mut state, key)).group, group);
    }
    assert_eq!(press(&mut state, "1"), [], "it is that already");
    assert_eq!(press(&mut state, "5"), []);
    assert!(open(&press(&mut state, "v")).events);
    assert!(!open(&press(&mut state, "1")).events, "rows again");
    press(&mut state, "o?");
    assert!(drawn(&mut state, 80, 24).contains("show a tool: 1 faults, 2 sgx\n"));
    press(&mut state, "?2");
    assert_eq!(state.shown, Some(1));
}

#[test]
fn the_mouse_chooses_panes_tools_and_rows() {
    let mut state = fed(Look::default());
    drawn(&mut state, 80, 24);
    let click =
        |state: &mut State, column: u16, line: u16| state.update(Input::Press(Press::Click { column, line }));
    // The line of sgx: chosen, and then shown.
    click(&mut state, 30, 11);
    assert_eq!((state.at, state.shown), (1, None));
    click(&mut state, 30, 11);
    assert_eq!(state.shown, Some(1));
    // Tabs: `trapline  overview  faults  sgx`.
    for (column, shown) in [(12, None), (22, Some(0)), (29, Some(1)), (22, Some(0))] {
        click(&mut state, column, 0);
        assert_eq!(state.shown, shown, "column {column}");
    }
    assert_eq!(click(&mut state, 5, 7), []);
    assert_eq!(state.tools[0].at, 4);
    assert!(state.tools[0].chosen.is_some());
    assert_eq!(open(&click(&mut state, 5, 7)).group, "thread");
    let mut state = pane(false);
    for (up, at) in [(true, 8), (false, 11), (false, 14)] {
        state.update(Input::Press(Press::Wheel(up)));
        assert_eq!(state.tools[0].at, at);
    }
    // Any click closes the help.
    press(&mut state, "?");
    click(&mut state, 5, 7);
    assert!(!state.help && state.tools[0].at == 14);
}

/// Keys that do nothing where there is no row, table or tool yet.
#[test]
fn keys_before_the_first_rows_do_no_harm() {
    for (presses, ..) in KEYS {
        let mut state =
            State::new(vec![(&FAULTS, Begin::Now)], Look::default(), Duration::from_secs(1), TimeZone::UTC);
        state.begin();
        for shown in [None, Some(0)] {
            for &key in *presses {
                state.shown = shown;
                state.update(Input::Press(key));
                state.update(Input::Press(Press::Escape));
                drawn(&mut state, 80, 24);
            }
        }
    }
}
