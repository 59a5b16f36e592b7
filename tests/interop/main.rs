//! The ContextVM SDK for TypeScript on the other side: as a client of what this crate sells, as a server of what it buys.
//!
//! `tests/real/setup-contextvm` installs the SDK, once; these tests run it when need be. Where that cannot be done, for
//! want of a network say, they are skipped and say so, but not in CI. docs/interop.md says which version was run.

#![cfg(unix)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "`json!` is written where it is passed"
)]

#[allow(dead_code, reason = "shared with tests/cli.rs")]
#[path = "../support/binary.rs"]
mod binary;

mod sdk;

mod buying;
mod discovery;
mod explicit;
mod lightning;
mod modes;
mod oversized;
mod selling;
