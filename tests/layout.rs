//! Keeps the picture of the crate true: which module may import which, where each vendor crate lives, and a few habits
//! that no lint knows.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "support/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// What each module may import. A module that is not listed may not exist.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("payment", &["error"]),
    ("wire", &["payment", "error"]),
    ("ledger", &["payment", "error"]),
    // Links to relays: MCP travels over them, and so does the talk with a NIP-47 wallet.
    ("relays", &["error"]),
    ("transport", &["relays", "wire", "payment", "error"]),
    ("rails", &["relays", "payment", "error"]),
    // What is bought from a rail entitles: `entitlement/stripe/` asks it who has paid.
    ("entitlement", &["rails", "payment", "ledger", "error"]),
    ("gate", &["payment", "wire", "ledger", "transport", "error"]),
    (
        "server",
        &[
            "gate",
            "transport",
            "wire",
            "payment",
            "ledger",
            "entitlement",
            "error",
        ],
    ),
    (
        "client",
        &["transport", "wire", "payment", "ledger", "error"],
    ),
    // The harness puts both ends together, so it stands above them.
    (
        "testing",
        &[
            "server",
            "client",
            "payment",
            "wire",
            "ledger",
            "transport",
            "error",
        ],
    ),
    (
        "gateway",
        &[
            "server",
            "client",
            "gate",
            "entitlement",
            "rails",
            "transport",
            "ledger",
            "wire",
            "payment",
            "error",
        ],
    ),
    ("main", &["gateway"]),
    // The root says what there is, and what of it is at hand without a path.
    (
        "lib",
        &[
            "server",
            "client",
            "gate",
            "entitlement",
            "rails",
            "relays",
            "transport",
            "ledger",
            "wire",
            "payment",
            "error",
            "gateway",
            "testing",
        ],
    ),
];

/// Modules that know the transports by their traits only.
const TRAITS_ONLY: &[&str] = &["gate", "server", "client"];
/// The transports that they must not know.
const TRANSPORTS: &[&str] = &["nostr", "plain", "rmcp", "memory"];

/// Where a vendor crate may be named, as beginnings of paths below `src`. Nowhere else: each can then be exchanged in one
/// place.
const HOMES: &[(&str, &[&str])] = &[
    (
        "nostr",
        &[
            "relays/",
            "transport/nostr/",
            "rails/lightning/",
            "entitlement/licence/public.rs",
        ],
    ),
    ("nostr_relay_builder", &["transport/nostr/"]),
    (
        "tokio_tungstenite",
        &[
            "relays/",
            "transport/nostr/dev_relay.rs",
            "rails/lightning/lnbits/",
        ],
    ),
    (
        "tokio_rustls",
        &["relays/", "rails/http.rs", "entitlement/licence/"],
    ),
    (
        "rustls",
        &["relays/", "rails/http.rs", "entitlement/licence/"],
    ),
    (
        "webpki_roots",
        &["relays/", "rails/http.rs", "entitlement/licence/"],
    ),
    ("lru", &["transport/nostr/", "transport/plain/"]),
    (
        "futures_util",
        &["relays/", "transport/", "rails/", "gateway/"],
    ),
    ("rmcp", &["transport/rmcp", "gateway/"]),
    ("lightning_invoice", &["rails/lightning/"]),
    ("reqwest", &["rails/", "entitlement/licence/"]),
    (
        "hmac",
        &[
            "entitlement/licence/",
            "rails/stripe/",
            "transport/plain/",
            "wire/mpp/",
        ],
    ),
    ("base64", &["entitlement/licence/", "wire/mpp/"]),
    ("rusqlite", &["ledger/sqlite", "client/ledger/sqlite"]),
    ("serde_json_canonicalizer", &["wire/"]),
    // The memory pair makes event ids, as a relay transport does.
    (
        "sha2",
        &[
            "wire/",
            "transport/memory.rs",
            "transport/plain/",
            "entitlement/licence/",
            "rails/stripe/",
        ],
    ),
    ("glob", &["payment/"]),
    ("boon", &["gateway/"]),
    ("clap", &["gateway/"]),
    ("regex", &["gateway/"]),
    ("toml", &["gateway/"]),
    ("tracing_subscriber", &["gateway/"]),
    ("rustix", &["gateway/"]),
    ("hyper", &["gateway/", "transport/plain/"]),
    ("hyper_util", &["gateway/", "transport/plain/"]),
    ("http_body_util", &["gateway/", "transport/plain/"]),
];

/// Vendor crates that are at home everywhere.
const EVERYWHERE: &[&str] = &[
    "async_trait",
    "serde",
    "serde_json",
    "tokio",
    "tokio_util",
    "tracing",
];

/// A file of the crate, by its path below `src`.
struct File {
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The module at the root of the crate that this file belongs to.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// The module that this file is, as a path from the root of the crate.
    fn module_path(&self) -> Vec<&str> {
        let mut parts: Vec<&str> = self.path.split('/').collect();
        if let Some(file) = parts.pop()
            && !matches!(file, "mod.rs" | "lib.rs" | "main.rs")
        {
            parts.push(file.strip_suffix(".rs").unwrap_or(file));
        }
        parts
    }
}

/// What the root of the crate re-exports, and from which module.
fn reexports(lib: &str) -> BTreeMap<String, String> {
    Source::new(lib)
        .code()
        .split(';')
        .filter_map(|statement| {
            let (module, names) = statement.split_once("pub use ")?.1.split_once("::")?;
            let names = names.trim_matches(|c: char| c == '{' || c == '}' || c.is_whitespace());
            let names: Vec<(String, String)> = names
                .split(',')
                .map(|name| (name.trim().to_owned(), module.to_owned()))
                .collect();
            Some(names)
        })
        .flatten()
        .collect()
}

/// A path of a file as it reads from the root of the crate; `None` if it leads outside.
fn from_root(file: &File, path: &[String]) -> Option<Vec<String>> {
    let own = |parts: &[&str]| {
        parts
            .iter()
            .map(|part| (*part).to_owned())
            .collect::<Vec<_>>()
    };
    let module = file.module_path();
    match path[0].as_str() {
        "crate" | "tollkeeper" => Some(path[1..].to_vec()),
        "self" => Some([own(&module), path[1..].to_vec()].concat()),
        "super" => {
            let ups = path.iter().take_while(|part| *part == "super").count();
            let base = &module[..module.len().saturating_sub(ups)];
            Some([own(base), path[ups..].to_vec()].concat())
        }
        _ => None,
    }
}

/// Everything in `file` that the rules forbid.
fn violations(file: &File, reexports: &BTreeMap<String, String>) -> Vec<String> {
    let source = Source::new(&file.text);
    let mut found = Vec::new();
    let mut say = |what: String| found.push(format!("src/{}: {what}", file.path));

    if !file.text.starts_with("//!") && !file.text.starts_with("#![doc = include_str!") {
        say("does not begin by saying what it is (//!)".to_owned());
    }
    if source.has_word("unbounded_channel") {
        say("unbounded_channel: a queue without a bound is memory without a bound".to_owned());
    }
    if !file.path.starts_with("gateway/") {
        for name in ["println", "eprintln", "print", "eprint", "dbg"] {
            if source.macros().contains(name) {
                say(format!("{name}!: a library logs, it does not print"));
            }
        }
    }

    let module = file.module();
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
        say(format!(
            "the module {module} is not in the table of modules"
        ));
        return found;
    };
    for path in source.paths() {
        let Some(target) = from_root(file, &path) else {
            let vendor = path[0].as_str();
            let home = HOMES.iter().find(|(name, _)| *name == vendor);
            if home.is_some_and(|(_, homes)| !homes.iter().any(|home| file.path.starts_with(home)))
            {
                say(format!(
                    "names the crate {vendor}, which does not belong here"
                ));
            }
            continue;
        };
        let Some(first) = target.first() else {
            continue;
        };
        let to = reexports.get(first).unwrap_or(first).as_str();
        let is_module = MAY_IMPORT.iter().any(|(name, _)| *name == to);
        if is_module && to != module && !allowed.contains(&to) {
            say(format!(
                "{module} may not import {to} ({})",
                path.join("::")
            ));
        }
        let transport = target
            .get(1)
            .filter(|_| to == "transport" && TRAITS_ONLY.contains(&module));
        if transport.is_some_and(|name| TRANSPORTS.contains(&name.as_str())) {
            say(format!(
                "{module} may know the transports by their traits only ({})",
                path.join("::")
            ));
        }
    }
    found
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files() -> Vec<File> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let src = root().join("src");
    let mut found = Vec::new();
    walk(&src, &mut found);
    found.sort();
    found
        .iter()
        .map(|path| {
            let below = path
                .strip_prefix(&src)
                .unwrap()
                .to_str()
                .unwrap()
                .replace('\\', "/");
            File {
                path: below,
                text: fs::read_to_string(path).unwrap(),
            }
        })
        .collect()
}

/// What the rules say about a file that does not exist, but for its first line.
fn complaints(path: &str, code: &str) -> Vec<String> {
    let reexports = reexports("pub use error::{Error, Result};\npub use payment::{Amount, Pmi};\n");
    violations(
        &File::new(path, &format!("//! A sample.\n{code}")),
        &reexports,
    )
}

/// The files whose modules are declared under `#[cfg(test)]`: what they import is shipped to nobody.
fn test_only(files: &[File]) -> BTreeSet<String> {
    files
        .iter()
        .flat_map(|file| {
            let source = Source::new(&file.text);
            let folder = file.module_path().join("/");
            let paths = |name: &String| {
                [
                    format!("{folder}/{name}.rs"),
                    format!("{folder}/{name}/mod.rs"),
                ]
            };
            source
                .test_modules()
                .iter()
                .flat_map(paths)
                .collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn every_file_keeps_the_layout() {
    let mut files = files();
    assert!(files.len() > 50, "only {} files were found", files.len());
    let lib = files.iter().find(|file| file.path == "lib.rs").unwrap();
    let reexports = reexports(&lib.text);
    assert_eq!(reexports.get("Amount").map(String::as_str), Some("payment"));
    let test_only = test_only(&files);
    files.retain(|file| !test_only.contains(&file.path));
    let all: Vec<String> = files
        .iter()
        .flat_map(|file| violations(file, &reexports))
        .collect();
    assert!(all.is_empty(), "\n{}\n", all.join("\n"));
}

#[test]
fn every_dependency_has_a_home() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut section = String::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line.to_owned();
        } else if section.contains("dependencies]")
            && !section.contains("dev-")
            && let Some((name, _)) = line.split_once(" = ")
        {
            let name = name.replace('-', "_");
            let known =
                EVERYWHERE.contains(&name.as_str()) || HOMES.iter().any(|(home, _)| *home == name);
            assert!(
                known,
                "say in tests/layout.rs where the crate {name} may be used"
            );
        }
    }
}

#[test]
fn a_forbidden_import_is_found_however_it_is_written() {
    for code in [
        "use crate::gate::Gate;",
        "use crate::{error::Error, gate::{self, Gate}};",
        "use crate::{\n    wire::Message,\n    gate as door,\n};",
        "fn f() { crate::gate::open() }",
        "use super::gate::Gate;",
        "type T = Vec<crate::gate::Gate>;",
        "pub(crate) use crate::gate::*;",
        "use tollkeeper::gate::Gate;",
    ] {
        let said = complaints("ledger/mod.rs", code);
        assert!(
            said.iter().any(|line| line.contains("may not import gate")),
            "{code}: {said:?}"
        );
    }
    let said = complaints(
        "ledger/deep/file.rs",
        "use super::super::super::gate::Gate;",
    );
    assert_eq!(said.len(), 1, "{said:?}");
    // A re-export of the root leads to the module where the item is.
    assert_eq!(complaints("payment/x.rs", "use crate::Amount;"), [""; 0]);
    assert_eq!(complaints("error.rs", "use crate::Amount;").len(), 1);
}

#[test]
fn what_is_allowed_is_not_complained_about() {
    for (path, code) in [
        (
            "ledger/mod.rs",
            "use crate::payment::{Amount, Pmi};\nuse crate::error::Result;\nmod memory;\nuse memory::X;",
        ),
        (
            "ledger/entry.rs",
            "use super::transition::{self, Move};\nuse self::inner::X;",
        ),
        (
            "gate/mod.rs",
            "use crate::transport::{Inbound, ServerTransport};",
        ),
        (
            "transport/mod.rs",
            "pub mod nostr;\nuse nostr::Keys;\nuse self::nostr::Settings;",
        ),
        (
            "gateway/wire_up.rs",
            "use crate::transport::nostr::{self, Keys};\nfn f() { nostr::g() }",
        ),
        (
            "transport/nostr/client.rs",
            "use nostr::Keys;\nuse lru::LruCache;",
        ),
        (
            "ledger/sqlite.rs",
            "fn f() -> rusqlite::Result<()> { x::<u8>::y() }",
        ),
    ] {
        assert_eq!(complaints(path, code), [""; 0], "{path}: {code}");
    }
}

#[test]
fn only_shipped_code_counts() {
    for code in [
        "// use crate::gate::Gate;",
        "/// See [`Gate`](crate::gate::Gate).\nfn f() {}",
        "/* use crate::gate::Gate; /* nested */ println!() */",
        "const TEXT: &str = \"use crate::gate::Gate; println!()\";",
        "const TEXT: &str = r#\"\" use crate::gate::Gate; \"#;",
        "const QUOTE: char = '\"'; // use crate::gate::Gate;\nconst OTHER: char = '\"';",
        "#[cfg(test)]\nmod tests { use crate::gate::Gate; fn f() { println!(\"x\"); } }",
        "#[cfg(test)]\nuse crate::gate::Gate;",
        "#[cfg(all(test, feature = \"testing\"))]\nuse crate::gate::Gate;",
    ] {
        assert_eq!(complaints("ledger/mod.rs", code), [""; 0], "{code}");
    }
    // What follows a test-only item is shipped code again.
    let code = "#[cfg(test)]\nmod fixtures { fn f<'a>(x: &'a str) {} }\nuse crate::gate::Gate;";
    assert_eq!(complaints("ledger/mod.rs", code).len(), 1);
}

#[test]
fn files_for_tests_only_are_told_by_their_declaration() {
    let files = [
        File::new(
            "ledger/sqlite/mod.rs",
            "mod rows;\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\nmod inner { }",
        ),
        File::new("wire/tag.rs", "// #[cfg(test)]\nmod parts;"),
    ];
    let paths: Vec<String> = test_only(&files).into_iter().collect();
    assert_eq!(
        paths,
        ["ledger/sqlite/tests.rs", "ledger/sqlite/tests/mod.rs"]
    );
}

#[test]
fn a_vendor_crate_outside_its_home_is_found() {
    for (path, code) in [
        ("gate/mod.rs", "use nostr::Keys;"),
        ("gate/mod.rs", "fn f(keys: &nostr::Keys) {}"),
        ("gate/mod.rs", "fn f(keys: ::nostr::Keys) {}"),
        ("transport/mod.rs", "use ::rmcp::Service;"),
        ("client/mod.rs", "use {lru::LruCache, std::fmt};"),
        ("ledger/memory/mod.rs", "use rusqlite::Connection;"),
        ("payment/mod.rs", "use sha2::{Digest, Sha256};"),
        ("server/mod.rs", "#[derive(clap::Parser)]\nstruct Args;"),
    ] {
        let said = complaints(path, code);
        assert!(
            said.iter()
                .any(|line| line.contains("does not belong here")),
            "{path}: {code}: {said:?}"
        );
    }
}

#[test]
fn the_gate_and_both_ends_know_transports_by_their_traits_only() {
    for module in TRAITS_ONLY {
        let said = complaints(
            &format!("{module}/x.rs"),
            "use crate::transport::{ServerTransport, nostr::NostrKeys};",
        );
        assert!(
            said.iter().any(|line| line.contains("traits only")),
            "{said:?}"
        );
    }
}

#[test]
fn habits_are_found() {
    assert_eq!(
        complaints("gate/mod.rs", "fn f() { println!(\"x\") }").len(),
        1
    );
    assert_eq!(
        complaints("gate/mod.rs", "fn f() { eprintln!(\"x\") }").len(),
        1
    );
    assert_eq!(
        complaints("gateway/mod.rs", "fn f() { println!(\"x\") }"),
        [""; 0]
    );
    assert_eq!(
        complaints("gate/mod.rs", "use tokio::sync::mpsc::unbounded_channel;").len(),
        1
    );
    assert_eq!(complaints("attic/mod.rs", "").len(), 1);
    let silent = violations(&File::new("gate/x.rs", "use std::fmt;"), &BTreeMap::new());
    assert!(silent[0].contains("does not begin"), "{silent:?}");
}
