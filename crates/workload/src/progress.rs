//! Progress of long work, on a terminal only.
//!
//! The bar is drawn by a thread of its own, from counters that the work keeps anyway: a thread whose faults
//! are measured never draws, allocates or waits for it.

use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::Control;

/// Work that ends sooner shows no bar.
const FIRST_DRAW: Duration = Duration::from_millis(300);
const REDRAW: Duration = Duration::from_millis(100);

/// Runs `work`, and shows meanwhile how far `done` is on the way to `total` (in any unit).
pub(crate) fn watch<R>(
    control: &Control,
    label: &'static str,
    total: u64,
    done: &(dyn Fn() -> u64 + Sync),
    work: impl FnOnce() -> R,
) -> R {
    if !control.progress || !stderr().is_terminal() {
        return work();
    }
    thread::scope(|scope| {
        let (ended, end) = channel::<()>();
        // Without a bar the work goes on all the same, so that a thread that cannot start is no error.
        let drawer = thread::Builder::new().name("progress".to_owned()).spawn_scoped(scope, move || {
            let mut pause = FIRST_DRAW;
            let mut bar = None;
            while matches!(end.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                bar.get_or_insert_with(|| drawn_bar(label, total)).set_position(done().min(total));
                pause = REDRAW;
            }
            if let Some(bar) = bar {
                bar.finish_and_clear();
            }
        });
        let result = work();
        drop(ended);
        if let Ok(drawer) = drawer {
            let _ = drawer.join();
        }
        result
    })
}

fn drawn_bar(label: &'static str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:40} {percent:>3} %, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(label)
}
