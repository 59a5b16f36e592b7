//! Keeps `docs/security.md` and the tests in step: what the page says guards something is there, and is a test.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "this is a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const PAGE: &str = "docs/security.md";

/// Every test of the crate, and every rule of the suite for ledgers.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in ["src", "tests"] {
        collect(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut names,
        );
    }
    names
}

fn collect(folder: &Path, names: &mut BTreeSet<String>) {
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            collect(&path, names);
        } else if path.extension().is_some_and(|it| it == "rs") {
            names.extend(tests_in(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The names of the functions that are marked as tests, and of those that a suite runs with `make()`.
fn tests_in(source: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut marked = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            marked = true;
        } else if let Some(rest) = line
            .strip_prefix("async fn ")
            .or_else(|| line.strip_prefix("fn "))
        {
            let name = rest.split(['(', '<']).next().unwrap().to_owned();
            if marked || source.contains(&format!("    {name}(make().await).await;")) {
                names.push(name);
            }
            marked = false;
        } else if !line.starts_with("#[") && !line.starts_with("//") {
            marked = false;
        }
    }
    names
}

/// The words between back ticks that can only be names of tests.
fn named(page: &str) -> Vec<String> {
    page.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.matches('_').count() >= 3
                && word.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_test_that_the_page_names_exists() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap();
    let tests = tests();
    let named = named(&page);
    assert!(named.len() > 60, "the page names tests: {}", named.len());
    let missing: Vec<&String> = named.iter().filter(|name| !tests.contains(*name)).collect();
    assert!(
        missing.is_empty(),
        "{PAGE} names tests that do not exist: {missing:#?}"
    );
}

/// Rows by defect, with the tests that they name.
fn rows(page: &str) -> BTreeMap<u32, Vec<String>> {
    let rows = page.lines().filter_map(|line| {
        let (number, rest) = line.strip_prefix("| D-")?.split_once(' ')?;
        Some((number.parse().unwrap(), named(rest)))
    });
    rows.collect()
}

#[test]
fn every_defect_has_a_row_and_its_test_is_named_after_it() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap();
    let rows = rows(&page);
    let all: Vec<u32> = rows.keys().copied().collect();
    assert_eq!(all, (1..=51).collect::<Vec<_>>(), "a row for each defect");
    let after: BTreeSet<String> = tests()
        .into_iter()
        .filter(|name| defect(name).is_some())
        .collect();
    for (number, tests) in &rows {
        for name in tests {
            assert_eq!(
                defect(name),
                Some(*number),
                "D-{number:02}: {name} is named after another"
            );
        }
    }
    let listed: BTreeSet<String> = rows.into_values().flatten().collect();
    assert_eq!(
        listed, after,
        "what is named after a defect is in the table"
    );
}

/// `d_07_…` is about D-07.
fn defect(name: &str) -> Option<u32> {
    let (number, _) = name.strip_prefix("d_")?.split_once('_')?;
    number.parse().ok()
}

#[test]
fn tests_are_told_from_other_functions() {
    let source = "#[test]\n#[cfg(unix)]\nfn one() {}\nfn two() {}\n/// Why.\n#[tokio::test(start_paused = true)]\nasync fn three() {}\n\
                  run(|| {\n    four(make().await).await;\n})\nasync fn four<L>() {}";
    assert_eq!(tests_in(source), ["one", "three", "four"]);
    assert_eq!(
        named("`a_b_c_d` is, `entry_state` and `a/b_c_d_e.rs` are not"),
        ["a_b_c_d"]
    );
}
