//! The page of `trapline report` in Chromium, which Debian's driver of it runs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{hostile, recording_of};

/// A browser and a session of it.
struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    /// Starts it; nothing, with a line that says so, if it is not installed.
    fn start() -> Option<Self> {
        let driver =
            Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut driver) = driver else {
            eprintln!("not opened: chromium-driver is not installed");
            return None;
        };
        let lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines
            .filter_map(|line| line.split("successfully on port ").nth(1)?.trim_end_matches('.').parse().ok())
            .next();
        let mut this = Self { driver, port: port.unwrap(), session: String::new() };
        let options =
            json!({"args": ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]});
        let asked = json!({"goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": options});
        let made = this.ask("POST", "/session", &json!({"capabilities": {"alwaysMatch": asked}}));
        this.session = format!("/session/{}", made["sessionId"].as_str().unwrap());
        Some(this)
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "{method} {}{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.session,
            body.len()
        )
        .unwrap();
        let mut answer = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            assert!(answer.read_line(&mut line).unwrap() > 0, "{path}: no answer");
            match line.trim_end().to_ascii_lowercase().split_once(':') {
                Some(("content-length", n)) => length = n.trim().parse().unwrap(),
                Some(_) => {}
                None if line.trim_end().is_empty() => break,
                None => {}
            }
        }
        let mut body = vec![0; length];
        answer.read_exact(&mut body).unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert!(answer["value"]["error"].is_null(), "{path}: {answer}");
        answer["value"].clone()
    }

    fn open(&self, page: &Path) {
        self.ask("POST", "/url", &json!({"url": format!("file://{}", page.display())}));
    }

    /// What a script gives when the page has drawn what is chosen.
    fn run(&self, script: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; const made = (() => {{ {script} }})(); \
             requestAnimationFrame(() => requestAnimationFrame(() => done(typeof made === 'function' ? made() : made)));"
        );
        self.ask("POST", "/execute/async", &json!({"script": script, "args": []}))
    }

    fn look(&self, width: u64, theme: &str) {
        let command = |name: &str, params: Value| {
            self.ask("POST", "/goog/cdp/execute", &json!({"cmd": name, "params": params}));
        };
        command(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}),
        );
        let feature = json!([{"name": "prefers-color-scheme", "value": theme}]);
        command("Emulation.setEmulatedMedia", json!({"features": feature}));
    }

    /// Errors and warnings of the page.
    fn complaints(&self) -> Value {
        self.ask("POST", "/se/log", &json!({"type": "browser"}))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.ask("DELETE", "", &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn report(folder: &TempDir, recording: &str, name: &str) -> std::path::PathBuf {
    let page = folder.path().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_trapline"));
    let output = command.args(["report", recording, "-o"]).arg(&page).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(fs::metadata(&page).unwrap().len() < 5 << 20);
    page
}

/// Faults of two processes on three files: of process 7 five times as many as of 8, and each of those four times as long.
fn faults(comm: &str) -> Vec<String> {
    let fault = |n: u64| {
        let is_second = n.is_multiple_of(6);
        json!({
            "type": "event", "time_ns": 1_000 + n * 1_000_000, "pid": 7 + u64::from(is_second), "tid": 7 + u64::from(is_second),
            "start_ns": 5, "comm": comm, "kind": if n.is_multiple_of(2) { "major" } else { "minor" }, "addr": 4096, "rw": "R",
            "latency_ns": if is_second { 40_000 } else { 10_000 }, "cause": "file-read",
            "file": format!("/data/{}{comm}", n % 3),
        })
        .to_string()
    };
    (0..600).map(fault).collect()
}

const FIRST_ROW: &str = "return document.querySelector('#who tbody tr').innerText;";
const ROWS: &str = "return document.querySelectorAll('#who tbody tr').length;";

#[test]
fn the_page_sorts_filters_and_drills_down_and_everything_follows_a_chosen_time() {
    let Some(browser) = Browser::start() else { return };
    let folder = TempDir::new().unwrap();
    let recording =
        recording_of(("faults", 600), &folder, "faults.fault", "\"faults.fault\"", &faults("app"));
    browser.open(&report(&folder, &recording, "a.html"));
    let row = |script: &str| browser.run(script).as_str().unwrap_or_default().replace('\t', " ");
    assert!(row(FIRST_ROW).contains("app (7)"), "{}", row(FIRST_ROW));
    let heading = |n: usize| {
        format!(
            "document.querySelectorAll('#who thead button')[{n}].click(); return () => {{ {FIRST_ROW} }};"
        )
    };
    // By number of faults, then from the least on.
    assert!(row(&heading(1)).contains("500"));
    assert!(row(&heading(1)).contains("app (8)"));
    // Into the process, its thread, then its files.
    let click = "document.querySelector('#who td.key button').click();";
    browser.run(click);
    let files = row(&format!("{click} return () => {{ {FIRST_ROW} }};"));
    assert!(files.contains("/data/0app"), "{files}");
    assert_eq!(browser.run(ROWS), 1);
    let reset = "[...document.querySelectorAll('.bar button')].at(-1).click();";
    assert_eq!(browser.run(&format!("{reset} return () => {{ {ROWS} }};")), 3);
    let search = "const of = document.querySelector('#who input'); of.value = 'DATA/1'; of.dispatchEvent(new Event('input'));";
    assert_eq!(browser.run(&format!("{search} return () => {{ {ROWS} }};")), 1);
    browser.run("const of = document.querySelector('#who input'); of.value = ''; of.dispatchEvent(new Event('input'));");
    // A time, by pointer and by keys.
    let said = "return document.querySelector('.bar').innerText;";
    let brush = "const canvas = document.querySelector('canvas'); canvas.setPointerCapture = () => {}; const { width } = canvas.getBoundingClientRect();
        for (const [type, at] of [['pointerdown', 0.4], ['pointermove', 0.7], ['pointerup', 0.7]]) {
          const box = canvas.getBoundingClientRect();
          canvas.dispatchEvent(new PointerEvent(type, { clientX: box.left + width * at, clientY: box.top + 50, pointerId: 1, bubbles: true }));
        }";
    let part = row(&format!("{brush} return () => {{ {said} }};"));
    assert!(part.contains(" – ") && !part.contains("Faults 600"), "{part}");
    let sum = row("return document.querySelector('#who tfoot').innerText;");
    let faults = part.split("Faults ").nth(1).and_then(|rest| rest.split(',').next()).unwrap().to_owned();
    assert!(sum.contains(&faults), "{sum}: {faults}");
    let key = |key: &str| {
        format!(
            "document.querySelector('canvas').dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }}));"
        )
    };
    assert!(row(&format!("{} return () => {{ {said} }};", key("Escape"))).contains("Faults 600"));
    assert!(!row(&format!("{} return () => {{ {said} }};", key("ArrowRight"))).contains("Faults 600"));
    assert_eq!(browser.complaints(), json!([]));
}

#[test]
fn the_page_fits_from_a_phone_to_a_wall_in_both_themes_and_names_what_it_draws() {
    let Some(browser) = Browser::start() else { return };
    let folder = TempDir::new().unwrap();
    let name = hostile();
    let recording =
        recording_of(("faults", 600), &folder, "faults.fault", "\"faults.fault\"", &faults(&name));
    let page = report(&folder, &recording, "b.html");
    let mut papers = vec![];
    for (width, theme) in [(400, "light"), (400, "dark"), (3840, "light")] {
        browser.look(width, theme);
        browser.open(&page);
        assert_eq!(
            browser.run("return document.documentElement.scrollWidth <= innerWidth;"),
            true,
            "{width}"
        );
        papers.push(browser.run("return getComputedStyle(document.documentElement).backgroundColor;"));
    }
    assert!(papers[0] != papers[1] && papers[0] == papers[2], "{papers:?}");
    // What processes chose to be called is text.
    assert_eq!(browser.run("return document.querySelectorAll('script').length;"), 2);
    assert_eq!(
        browser
            .run("return document.querySelector('#who').textContent.includes('<script>alert(1)</script>');"),
        true
    );
    let unnamed = "return [...document.querySelectorAll('canvas, button, input, select, [role=img]')].filter((node) =>
        !(node.getAttribute('aria-label') || node.textContent.trim() || node.closest('label'))).map((node) => node.outerHTML);";
    assert_eq!(browser.run(unnamed), json!([]));
    assert_eq!(browser.complaints(), json!([]));
}
