//! Any text, as the params of each payment notification.
#![no_main]

#[path = "../../tests/support/properties.rs"]
mod properties;

use tollkeeper::wire::{PAYMENT_ACCEPTED, PAYMENT_REJECTED, PAYMENT_REQUIRED};

libfuzzer_sys::fuzz_target!(|params: &str| {
    for method in [PAYMENT_REQUIRED, PAYMENT_ACCEPTED, PAYMENT_REJECTED] {
        properties::notification(&format!(
            r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#
        ));
    }
});
