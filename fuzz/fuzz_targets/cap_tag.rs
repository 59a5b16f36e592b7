//! Any text, cut at its line breaks, as the values of a price tag.
#![no_main]

#[path = "../../tests/support/properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let values = text.split('\n').map(str::to_owned);
    properties::cap_tag(
        &std::iter::once("cap".to_owned())
            .chain(values)
            .collect::<Vec<_>>(),
    );
});
