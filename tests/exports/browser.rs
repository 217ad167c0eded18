//! Chromium, which Debian's driver of it runs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::tools::oracles;

/// A browser and a session of it.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
}

impl Browser {
    /// Starts it; nothing, with a line that says so, if it is not installed.
    pub(crate) fn start() -> Option<Self> {
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
        let asked = json!({"goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": options, "timeouts": {"script": 120_000}});
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

    pub(crate) fn open(&self, page: &Path) {
        self.ask("POST", "/url", &json!({"url": format!("file://{}", page.display())}));
    }

    /// What a script gives when the page has drawn what is chosen.
    pub(crate) fn run(&self, script: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; const made = (() => {{ {script} }})(); \
             requestAnimationFrame(() => requestAnimationFrame(() => done(typeof made === 'function' ? made() : made)));"
        );
        self.ask("POST", "/execute/async", &json!({"script": script, "args": []}))
    }

    /// As wide as this, in the dark or light theme.
    pub(crate) fn look(&self, width: u64, theme: &str) {
        self.command(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}),
        );
        let feature = json!([{"name": "prefers-color-scheme", "value": theme}]);
        self.command("Emulation.setEmulatedMedia", json!({"features": feature}));
    }

    /// A command of its developer tools.
    pub(crate) fn command(&self, name: &str, params: Value) -> Value {
        self.ask("POST", "/goog/cdp/execute", &json!({"cmd": name, "params": params}))
    }

    /// Presses a key where the focus is.
    pub(crate) fn press(&self, key: &str) {
        for kind in ["rawKeyDown", "keyUp"] {
            self.command("Input.dispatchKeyEvent", json!({"type": kind, "key": key, "code": key}));
        }
    }

    /// What axe-core finds wrong: the rule and the elements; nothing, with a line that says so, if it is not installed.
    pub(crate) fn violations(&self) -> Option<Value> {
        let axe = oracles().join("node_modules/axe-core/axe.min.js");
        let Ok(axe) = fs::read_to_string(axe) else {
            eprintln!("not checked: axe-core is not installed in target/oracles");
            return None;
        };
        let script = format!(
            "const done = arguments[0]; {axe}; axe.run(document, {{ resultTypes: ['violations'] }}).then((found) =>
               done(found.violations.map((wrong) => [wrong.id, wrong.nodes.map((node) => node.html)])));"
        );
        Some(self.ask("POST", "/execute/async", &json!({"script": script, "args": []})))
    }

    /// Errors and warnings of the page.
    pub(crate) fn complaints(&self) -> Value {
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
