//! Holds `docs/conformance.md` and the suite together: every number is on the page once, with a status, and every test that
//! the page names exists.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const STATEMENTS: u32 = 135;
const EXPECTATIONS: u32 = 31;

/// A line of the page.
struct Row {
    id: String,
    status: String,
    /// What is named as a test.
    tests: Vec<String>,
    /// The rest of the last column.
    words: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rows(page: &str) -> Vec<Row> {
    page.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
            let [id, _what, status, last] = cells.as_slice() else {
                return None;
            };
            let is_id = id.starts_with("N-") || id.starts_with("T-");
            let last = last.trim_end_matches('|').trim();
            is_id.then(|| Row {
                id: (*id).to_owned(),
                status: (*status).to_owned(),
                tests: names_of_tests(last),
                words: last.to_owned(),
            })
        })
        .collect()
}

/// Words in backticks that look like a test: a sentence in snake case. A tag or a code does not.
fn names_of_tests(text: &str) -> Vec<String> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| word.matches('_').count() >= 3)
        .map(str::to_owned)
        .collect()
}

/// The functions below `folder` that are tests.
fn tests(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                if line == "#[test]" || line.starts_with("#[tokio::test") {
                    is_test = true;
                } else if let Some((_, name)) = line.split_once("fn ")
                    && is_test
                {
                    let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                    found.insert(name[..end.unwrap_or(name.len())].to_owned());
                    is_test = false;
                }
            }
        }
    }
}

#[test]
fn every_statement_is_on_the_page_once_and_every_test_that_it_names_exists() {
    let page = fs::read_to_string(root().join("docs/conformance.md")).unwrap();
    let rows = rows(&page);
    let mut known = BTreeSet::new();
    tests(&root().join("tests"), &mut known);
    tests(&root().join("src"), &mut known);

    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &rows {
        *times.entry(row.id.as_str()).or_default() += 1;
    }
    let statements = (1..=STATEMENTS).map(|n| format!("N-{n}"));
    let expectations = (1..=EXPECTATIONS).map(|n| format!("T-{n:02}"));
    for id in statements.chain(expectations) {
        assert_eq!(
            times.remove(id.as_str()),
            Some(1),
            "{id} is to be there once"
        );
    }
    assert!(times.is_empty(), "nobody knows {times:?}");

    for Row {
        id,
        status,
        tests,
        words,
    } in &rows
    {
        match status.as_str() {
            "tested" => assert!(!tests.is_empty(), "{id}: which test?"),
            "not applicable" | "different" | "open" => assert!(!words.is_empty(), "{id}: why?"),
            other => panic!("{id}: {other:?} is no status"),
        }
        for test in tests {
            assert!(known.contains(test), "{id}: there is no test {test}");
        }
    }
}

/// That the check can fail.
#[test]
fn a_page_that_is_wrong_is_found_out() {
    let read = rows(
        "| N-1 | words | tested | `a_test_that_is_named`; `tag`, why |\n| no row | a | b | c |\n",
    );
    assert_eq!(read.len(), 1);
    assert_eq!(
        (read[0].id.as_str(), read[0].status.as_str()),
        ("N-1", "tested")
    );
    assert_eq!(read[0].tests, ["a_test_that_is_named"]);
    let mut known = BTreeSet::new();
    tests(&root().join("tests"), &mut known);
    assert!(known.contains("a_page_that_is_wrong_is_found_out"));
    assert!(!known.contains("a_test_that_is_named"));
}
