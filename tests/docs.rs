//! The documentation: its pages about columns and losses are what the command prints, its links lead somewhere, its words
//! and those of errors and help are those of the field (`words.txt`), man pages and completions are made. `tests/live/docs.rs` runs its commands.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn trapline(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_trapline")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Each page for users: its path from the root of the repository, and its text.
fn pages() -> Vec<(String, String)> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn the_page_of_a_topic_is_what_help_prints() {
    for topic in ["losses", "columns", "variants", "containers"] {
        let page = fs::read_to_string(root().join(format!("docs/{topic}.md"))).unwrap();
        assert!(
            page == trapline(&["help", topic]),
            "docs/{topic}.md is out of date: trapline help {topic} > docs/{topic}.md"
        );
    }
}

#[test]
fn help_knows_commands_subcommands_and_topics() {
    assert_eq!(trapline(&["help", "kvm", "count"]), trapline(&["kvm", "count", "--help"]));
    assert_eq!(trapline(&["help"]), trapline(&["--help"]));
    let output = Command::new(env!("CARGO_BIN_EXE_trapline")).args(["help", "nothing"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("losses, columns, variants, containers"));
}

#[test]
fn man_pages_and_completions_are_of_every_command() {
    let share = tempfile::tempdir().unwrap();
    trapline(&["generate", share.path().to_str().unwrap()]);
    let read = |path: &str| fs::read_to_string(share.path().join(path)).unwrap();
    let mut open = vec![vec![]];
    let mut count = 0;
    while let Some(command) = open.pop() {
        let help = trapline(&[&command[..], &["--help"]].concat());
        let listed = help.split_once("Commands:\n").map_or("", |(_, list)| list);
        let listed = listed.lines().take_while(|line| !line.is_empty());
        let names = listed.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
        for name in names.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help") {
            open.push([&command[..], &[&*name.to_owned().leak()]].concat());
        }
        let page = read(&format!("man/man1/{}.1", [&["trapline"], &command[..]].concat().join("-")));
        for word in help.split_whitespace().filter(|word| word.starts_with("--") && !word.ends_with(']')) {
            let option: String = word.chars().take_while(|c| c.is_ascii_alphabetic() || *c == '-').collect();
            assert!(page.contains(&option.replace('-', "\\-")), "{command:?}: {option}");
        }
        count += 1;
    }
    let help = share.path().join("man/man1/trapline-help.1");
    assert!(help.exists());
    assert_eq!(fs::read_dir(help.parent().unwrap()).unwrap().count(), count + 1);
    for path in [
        "bash-completion/completions/trapline",
        "zsh/site-functions/_trapline",
        "fish/vendor_completions.d/trapline.fish",
    ] {
        assert!(read(path).contains("log-step"), "{path}");
    }
    let script = share.path().join("bash-completion/completions/trapline");
    assert!(Command::new("bash").arg("-n").arg(script).status().unwrap().success());
}

#[test]
fn links_lead_to_files_and_headings() {
    let pages = pages();
    let anchors = |text: &str| -> Vec<String> {
        let headings = text.lines().filter(|line| line.starts_with('#'));
        let plain = |line: &str| line.trim_start_matches('#').trim().to_lowercase();
        let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
        headings.map(|line| plain(line).chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
    };
    for (name, text) in &pages {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let from = root().join(name);
            let to = if path.is_empty() { from.clone() } else { from.parent().unwrap().join(path) };
            assert!(to.exists(), "{name}: {link}");
            assert!(
                anchor.is_empty()
                    || anchors(&fs::read_to_string(&to).unwrap()).iter().any(|has| has == anchor),
                "{name}: {link}"
            );
        }
    }
}

/// The text without what is quoted: fenced blocks, and code between backticks; in single spaces.
fn prose(text: &str) -> String {
    let mut is_fenced = false;
    let lines = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence
    });
    let joined = lines.collect::<Vec<_>>().join(" ");
    let outside: Vec<_> = joined.split('`').step_by(2).collect();
    outside.join("`").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Every place where a word is used, with what stands around it.
fn uses(text: &str, word: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let text = if lower.len() == text.len() { text } else { &lower };
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let whole = |at: usize| {
        !is_letter(lower[..at].chars().next_back()) && !is_letter(lower[at + word.len()..].chars().next())
    };
    let around = |at: usize| {
        let before = text[..at].char_indices().rev().nth(30).map_or(0, |(from, _)| from);
        text[before..].chars().take(70).collect()
    };
    lower.match_indices(word).filter(|(at, _)| whole(*at)).map(|(at, _)| around(at)).collect()
}

/// What the sources print: string literals with a space in them, outside of tests.
fn printed(source: &str) -> String {
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut texts = String::new();
    for line in source.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let line = line.replace("\\\"", "'").replace("'\"'", "");
        let literals = line.split('"').skip(1).step_by(2).filter(|literal| literal.contains(' '));
        literals.for_each(|literal| texts += &format!("{literal}\n"));
    }
    texts
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        if entry.is_dir() && name != "tests" && name != "target" {
            sources(&entry, found);
        } else if name.ends_with(".rs") && name != "tests.rs" {
            found.push(entry);
        }
    }
}

#[test]
fn words_are_those_of_the_field() {
    let list = fs::read_to_string(root().join("tests/words.txt")).unwrap();
    let rules: Vec<_> = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let allowed: Vec<_> =
        rules.iter().filter_map(|rule| rule.strip_prefix("allow ")?.split_once(": ")).collect();
    let mut texts: Vec<_> = pages().into_iter().map(|(name, text)| (name, prose(&text))).collect();
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    sources(&root().join("crates"), &mut files);
    files.extend(fs::read_dir(root().join("tests/golden")).unwrap().map(|entry| entry.unwrap().path()));
    for file in files {
        let name = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        texts.push((name, if file.extension().is_some_and(|is| is == "rs") { printed(&text) } else { text }));
    }
    let mut found = Vec::new();
    for (name, mut text) in texts {
        if allowed.contains(&(&*name, "*")) {
            continue;
        }
        for (_, phrase) in allowed.iter().filter(|(page, _)| *page == name || *page == "*") {
            text = text.replace(phrase, "");
        }
        for (words, instead) in rules.iter().filter_map(|rule| rule.split_once(" -> ")) {
            for word in words.split(", ") {
                let uses = uses(&text, word);
                found.extend(uses.iter().map(|at| format!("{name}: `{word}` ({instead}): …{at}…")));
            }
        }
    }
    assert!(found.is_empty(), "{} words to replace:\n{}", found.len(), found.join("\n"));
}

#[test]
fn words_are_found_where_they_are_used_and_not_where_they_are_quoted() {
    let text = "The `birth` of\na Birth.\n```\nbirth\n```\nRebirths and births";
    assert_eq!(uses(&prose(text), "birth"), ["The ` of a Birth. Rebirths and births"]);
}
