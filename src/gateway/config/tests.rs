use clap::Parser;

use crate::payment::Unit;

use super::super::args::{Cli, Command};
use super::*;
use crate::payment::OnFailure;

fn serve(config: &str, flags: &[&str]) -> Outcome<Serving> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tollkeeper.toml");
    std::fs::write(&file, config).unwrap();
    let path = file.display().to_string();
    let words = ["tollkeeper", "serve", "--config", &path]
        .into_iter()
        .chain(flags.iter().copied())
        .chain(["--", "true"]);
    let Command::Serve(args) = Cli::try_parse_from(words).unwrap().command else {
        unreachable!()
    };
    serving(&args)
}

#[test]
fn flags_beat_the_file_and_prices_are_merged() {
    let config = r#"
        relays = ["wss://a"]
        encryption = "required"
        ledger = "x.db"
        payment_ttl = 60
        [[price]]
        capability = "tool:a"
        amount = 1
        [[price]]
        capability = "tool:b"
        amount = 2
        max_amount = 4
        unit = "usd-cents"
        on_failure = "keep"
        [limits]
        pending_total = 7
        [rails.fake]
    "#;
    let serving = serve(
        config,
        &[
            "--allow-fake",
            "--price",
            "tool:a=9 sat",
            "--relay",
            "ws://b",
        ],
    )
    .unwrap();
    assert_eq!(serving.relays, ["ws://b"]);
    assert_eq!(serving.encryption, EncryptionMode::Required);
    assert_eq!(serving.selling.payment_ttl, Duration::from_secs(60));
    assert_eq!(serving.selling.limits, OpenLimits::new(20, 7));
    let prices: Vec<String> = serving
        .selling
        .prices
        .iter()
        .map(|price| format!("{} {}", price.capability, price.price))
        .collect();
    assert_eq!(prices, ["tool:b 0.02 usd to 0.04 usd", "tool:a 9 sats"]);
    let kept: Vec<OnFailure> = serving
        .selling
        .prices
        .iter()
        .map(|p| p.on_failure)
        .collect();
    assert_eq!(kept, [OnFailure::Keep, OnFailure::Restore]);
    let LedgerPlace::File(ledger) = &serving.ledger else {
        unreachable!()
    };
    assert!(ledger.is_absolute(), "relative to the config file");
    assert!(serving.ledger.key_file().unwrap().ends_with("x.key"));
}

#[test]
fn rates_are_read_from_the_file_and_flags_replace_them() {
    let config = r#"
        relays = ["wss://a"]
        [rates]
        max_age = 300
        margin = "1.5%"
        [rates.usd]
        fixed = 65000
        [rates.eur]
        url = "https://rates.example.com/v1#/EUR"
        between = [20000, "200000.50"]
        every = 30
        [rates.jpy]
        fixed = "9500000"
    "#;
    let rates = serve(config, &["--allow-fake"]).unwrap().selling.rates;
    assert_eq!(rates.max_age, Duration::from_secs(300));
    assert_eq!(rates.margin.basis_points(), 150);
    assert_eq!((rates.fixed.len(), rates.sources.len()), (2, 1));
    for (unit, covered) in [
        ("usd-cents", true),
        ("eur-cents", true),
        ("jpy", true),
        ("gbp-pence", false),
        ("sats", false),
    ] {
        assert_eq!(rates.cover(&unit.parse().unwrap()), covered, "{unit}");
    }
    let flags = [
        "--allow-fake",
        "--rate",
        "USD=https://other.example.com/#/data/amount",
        "--rate-between",
        "usd=1-1000000",
        "--rate",
        "eur=60000",
        "--rate-margin",
        "0%",
        "--rate-max-age",
        "60",
    ];
    let rates = serve(config, &flags).unwrap().selling.rates;
    assert_eq!((rates.fixed.len(), rates.sources.len()), (2, 1));
    assert_eq!(*rates.sources[0].unit(), Unit::USD_CENTS);
    assert_eq!(rates.margin.basis_points(), 0);
    assert_eq!(rates.max_age, Duration::from_secs(60));
    let none = serve("relays = [\"wss://a\"]", &["--allow-fake"]).unwrap();
    assert!(!none.selling.rates.cover(&Unit::USD_CENTS));
}

type Mistake<'a> = (&'a str, &'a [&'a str], &'a str);

/// Each of these is refused with exit code 2 and a message that names what is wrong.
fn are_named(mistakes: &[Mistake<'_>]) {
    for (config, flags, named) in mistakes {
        let failure = serve(config, flags).unwrap_err();
        assert!(
            failure.message().contains(named),
            "{config}: {}",
            failure.message()
        );
        assert_eq!(failure.exit_code(), std::process::ExitCode::from(2));
    }
}

#[test]
fn every_mistake_in_rates_names_the_key_and_what_it_wants() {
    are_named(&[
        (
            "relays = [\"ws://x\"]\n[rates]\nmax_age = 1",
            &[],
            "rates.max_age",
        ),
        (
            "relays = [\"ws://x\"]\n[rates]\nmargin = \"1\"",
            &[],
            "rates.margin",
        ),
        (
            "relays = [\"ws://x\"]\n[rates]\nmargn = \"1%\"",
            &[],
            "margn",
        ),
        ("relays = [\"ws://x\"]\n[rates.usd]", &[], "rates.usd"),
        ("relays = [\"ws://x\"]\n[rates.usd]\nfixd = 1", &[], "fixd"),
        (
            "relays = [\"ws://x\"]\n[rates.usd]\nfixed = 65000.5",
            &[],
            "rates.usd: fixed",
        ),
        (
            "relays = [\"ws://x\"]\n[rates.usd]\nfixed = \"much\"",
            &[],
            "rates.usd",
        ),
        (
            "relays = [\"ws://x\"]\n[rates.usd]\nfixed = 1\nurl = \"https://x\"",
            &[],
            "rates.usd",
        ),
        (
            "relays = [\"ws://x\"]\n[rates.usd]\nurl = \"https://x#/USD\"",
            &[],
            "between",
        ),
        (
            "relays = [\"ws://x\"]\n[rates.usd]\nurl = \"https://x#USD\"\nbetween = [1, 2]",
            &[],
            "JSON pointer",
        ),
        (
            "relays = [\"ws://x\"]\n[rates.usd]\nurl = \"x\"\nbetween = [1, 2]",
            &[],
            "the address of the rate",
        ),
        (
            "relays = [\"ws://x\"]\n[rates.sat]\nfixed = 1",
            &[],
            "rates.sat",
        ),
        ("relays = [\"ws://x\"]", &["--rate", "usd"], "--rate"),
        (
            "relays = [\"ws://x\"]",
            &["--rate-between", "usd=1-2"],
            "--rate-between",
        ),
    ]);
}

#[test]
fn every_mistake_in_a_wallet_names_the_key_and_what_it_wants() {
    are_named(&[
        (
            "relays = [\"ws://x\"]\n[rails.lightning_lnbits]",
            &[],
            "rails.lightning_lnbits.url",
        ),
        (
            "relays = [\"ws://x\"]\n[rails.lightning_lnbits]\nurl = \"https://x\"",
            &[],
            "LNBITS_INVOICE_KEY",
        ),
        (
            "relays = [\"ws://x\"]\n[rails.lightning_lnbits]\nadmin_key = \"0123\"",
            &[],
            "admin_key",
        ),
        (
            "relays = [\"ws://x\"]",
            &["--lnbits-url", "https://x"],
            "LNBITS_INVOICE_KEY",
        ),
        (
            "relays = [\"ws://x\"]",
            &["--lnbits-key-file", "/nowhere"],
            "--lnbits-key-file",
        ),
    ]);
}

#[test]
fn every_mistake_names_the_key_and_what_it_wants() {
    are_named(&[
        ("relay = []", &[], "relay"),
        ("relays = [\"http://x\"]", &[], "relays"),
        ("relays = []", &[], "relays"),
        (
            "relays = [\"ws://x\"]\nencryption = \"maybe\"",
            &[],
            "encryption",
        ),
        ("relays = [\"ws://x\"]\npayment_ttl = 0", &[], "payment_ttl"),
        (
            "relays = [\"ws://x\"]\npayment_ttl = -1",
            &[],
            "payment_ttl",
        ),
        ("relays = [\"ws://x\"]\n[rails.fake]", &[], "rails.fake"),
        (
            "relays = [\"ws://x\"]\n[rails.lightning_nwc]",
            &[],
            "rails.lightning_nwc",
        ),
        (
            "relays = [\"ws://x\"]\n[rails.fake]\nsettles_after_ms = 60001",
            &["--allow-fake"],
            "rails.fake.settles_after_ms",
        ),
        ("relays = [\"ws://x\"]\n[rails.magic]", &[], "magic"),
        (
            "relays = [\"ws://x\"]\n[limits]\npending_total = 0",
            &[],
            "limits.pending_total",
        ),
        (
            "relays = [\"ws://x\"]\nmax_children = 4",
            &[],
            "max_children",
        ),
        ("stdio = true\nannounce = true", &[], "announce"),
        ("stdio = true", &["--profile"], "profile"),
        ("relays = [", &[], "tollkeeper.toml"),
    ]);
}

#[test]
fn every_mistake_in_a_price_names_the_key_and_what_it_wants() {
    are_named(&[
        (
            "[[price]]\ncapability = \"tool:a\"\namount = 0",
            &[],
            "tool:a",
        ),
        (
            "[[price]]\ncapability = \"tool:a\"\namount = -5",
            &[],
            "tool:a",
        ),
        (
            "[[price]]\ncapability = \"tool:a\"\namount = 1.5",
            &[],
            "amount",
        ),
        (
            "[[price]]\ncapability = \"tool:a\"\namount = 5\nmax_amount = 4",
            &[],
            "tool:a",
        ),
        (
            "[[price]]\ncapability = \"tool:a\"\namount = 5\nunit = \"Sats\"",
            &[],
            "unit",
        ),
        (
            "[[price]]\ncapability = \"tool:\"\namount = 5",
            &[],
            "tool:",
        ),
        (
            "[[price]]\ncapability = \"tool:a\"\namount = 5\nunit = \"usd\"",
            &[],
            "usd-cents",
        ),
        (
            "[[price]]\ncapability = \"tool:a\"\namount = 5\nunit = \"sat\"",
            &[],
            "sats",
        ),
        (
            "[[price]]\ncapability = \"tool:a\"\namount = 5\non_failure = \"credit\"",
            &[],
            "[balance]",
        ),
        (
            "[[price]]\ncapability = \"tool:a\"\namount = 5\nmodel = \"per_token\"\nper = 1000\nmost = 4000",
            &[],
            "[balance]",
        ),
        ("[[price]]\ncapability = \"tool:a\"", &[], "tool:a"),
        ("[[price]]\namount = 5", &[], "capability"),
        (
            "[[price]]\ncapability = \"tool:a\"\nprice = 5",
            &[],
            "price",
        ),
        (
            "relays = [\"ws://x\"]\n[[price]]\ncapability = \"tool:a\"\namount = 5",
            &[],
            "--allow-fake",
        ),
        (
            "[[price]]\ncapability = \"tool:a\"\namount = 5\non_failure = \"refund\"",
            &[],
            "refund",
        ),
    ]);
}
