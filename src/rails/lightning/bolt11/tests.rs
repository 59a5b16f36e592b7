//! Vectors are the examples of BOLT 11 (github.com/lightning/bolts, 11-payment-encoding.md); other invoices are made here.

use std::time::Duration;

use lightning_invoice::{InvoiceBuilder, PaymentSecret};
use nostr::hashes::{Hash, sha256};
use nostr::secp256k1::{Secp256k1, SecretKey};

use super::*;
use crate::payment::{BITCOIN_LIGHTNING_BOLT11, PayReq, RailErrorKind};

const COFFEE_BEANS: &str = "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyetpdees\
sp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q5sqqqqqqqqqqqqqqqpqsq67gye39hfg3zd8rgc80k32tvy9xk2xunwm5lzexnvpx\
6fd77en8qaq424dxgt56cag2dpt359k3ssyhetktkpqh24jqnjyw6uqd08sgptq44qu";

struct Draft {
    currency: Currency,
    msat: Option<u64>,
    made: u64,
    expiry: u64,
    description: &'static str,
}

const NOW: u64 = 1_800_000_000;

impl Draft {
    fn new(msat: u64) -> Self {
        Self {
            currency: Currency::Bitcoin,
            msat: Some(msat),
            made: NOW,
            expiry: 600,
            description: "a search",
        }
    }

    fn text(&self) -> String {
        let secret = SecretKey::from_slice(&[7; 32]).unwrap();
        let mut builder = InvoiceBuilder::new(self.currency.clone())
            .description(self.description.into())
            .payment_hash(sha256::Hash::hash(&[1; 32]))
            .payment_secret(PaymentSecret([2; 32]))
            .duration_since_epoch(Duration::from_secs(self.made))
            .min_final_cltv_expiry_delta(144)
            .expiry_time(Duration::from_secs(self.expiry));
        if let Some(msat) = self.msat {
            builder = builder.amount_milli_satoshis(msat);
        }
        let signer = Secp256k1::signing_only();
        let invoice = builder.build_signed(|hash| signer.sign_ecdsa_recoverable(hash, &secret));
        invoice.unwrap().to_string()
    }
}

fn order(sats: u64) -> PaymentOrder {
    let amount = Amount::new(sats, Unit::SATS).unwrap();
    PaymentOrder::new(
        "key".into(),
        amount,
        "a search".into(),
        Duration::from_secs(600),
    )
}

fn asked(text: &str, sats: u64) -> PaymentRequest {
    let amount = Amount::new(sats, Unit::SATS).unwrap();
    PaymentRequest::new(
        BITCOIN_LIGHTNING_BOLT11.parse().unwrap(),
        amount,
        PayReq::new(text),
        "",
    )
}

fn now() -> Timestamp {
    Timestamp::from_secs(NOW)
}

#[test]
fn the_examples_of_bolt_11_are_read() {
    let plain = COFFEE_BEANS.to_owned();
    for text in [
        plain.clone(),
        plain.to_uppercase(),
        format!(" lightning:{plain}\n"),
        format!("LIGHTNING:{}", plain.to_uppercase()),
    ] {
        let invoice = Invoice::parse(&text).unwrap();
        assert_eq!(
            invoice.payment_hash,
            "0001020304050607080900010203040506070809000102030405060708090102"
        );
        assert_eq!(invoice.amount_msat, Some(2_500_000_000));
        assert_eq!(invoice.sats().unwrap(), 2_500_000);
        assert_eq!(invoice.network, Network::Mainnet);
        assert_eq!(invoice.made_at, Timestamp::from_secs(1_496_314_658));
        assert_eq!(
            invoice.expires_at,
            Timestamp::from_secs(1_496_314_658 + 3600)
        );
        assert_eq!(invoice.description.as_deref(), Some("coffee beans"));
    }
}

#[test]
fn the_invalid_examples_of_bolt_11_are_refused_without_being_repeated() {
    for text in [
        // The checksum is wrong.
        "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqzpuyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvyakky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrnt",
        // There is no 1.
        "pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqzpuyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvyakky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrny",
        // Upper and lower case are mixed.
        "LNBC2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqzpuyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvyakky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrny",
        // The signature is not recoverable.
        "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpuaxtrnwngzn3kdzw5hydlzf03qdgm2hdq27cqv3agm2awhz5se903vruatfhq77w3ls4evs3ch9zw97j25emudupq63nyw24cg27h2rspk28uwq",
        // Too short.
        "lnbc1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6na6hlh",
        // The multiplier is none.
        "lnbc2500x1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpujr6jxr9gq9pv6g46y7d20jfkegkg4gljz2ea2a3m9lmvvr95tq2s0kvu70u3axgelz3kyvtp2ywwt0y8hkx2869zq5dll9nelr83zzqqpgl2zg",
        // Less than a millisatoshi.
        "lnbc2500000001p1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu7hqtk93pkf7sw55rdv4k9z2vj050rxdr6za9ekfs3nlt5lr89jqpdmxsmlj9urqumg0h9wzpqecw7th56tdms40p2ny9q4ddvjsedzcplva53s",
        "",
        "lightning:",
        "é",
    ] {
        let error = Invoice::parse(text).unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Invalid);
        assert!(text.len() < 20 || !error.to_string().contains(&text[..20]));
    }
    assert!(Invoice::parse(&"l".repeat(LONGEST + 1)).is_err());
}

#[test]
fn an_invoice_without_a_payment_secret_is_refused() {
    // A legacy example of BOLT 11, "a cup of coffee": anybody on the way could claim its payment.
    let text = "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpuaztrnwngzn3kdzw5hydlzf03qdgm2hdq27cqv3agm2awhz5se903vruatfhq77w3ls4evs3ch9zw97j25emudupq63nyw24cg27h2rspfj9srp";
    assert!(Invoice::parse(text).is_err());
}

#[test]
fn what_a_wallet_made_must_be_what_was_ordered() {
    let good = Draft::new(10_000).text();
    let invoice = check_made(&good, &order(10), Network::Mainnet, now()).unwrap();
    assert_eq!(invoice.expires_at, Timestamp::from_secs(NOW + 600));
    for (draft, what) in [
        (Draft::new(10_001), "10001 msat"),
        (Draft::new(9_999), "9999 msat"),
        (Draft::new(10), "10 msat"),
        (
            Draft {
                msat: None,
                ..Draft::new(0)
            },
            "no amount",
        ),
        (
            Draft {
                currency: Currency::Regtest,
                ..Draft::new(10_000)
            },
            "regtest",
        ),
        (
            Draft {
                made: NOW - 600,
                ..Draft::new(10_000)
            },
            "expired",
        ),
        (
            Draft {
                expiry: 400 * 86_400,
                ..Draft::new(10_000)
            },
            "a year",
        ),
    ] {
        let error = check_made(&draft.text(), &order(10), Network::Mainnet, now()).unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Invalid);
        assert!(error.to_string().contains(what), "{error}");
    }
    let euros = PaymentOrder {
        amount: "0.10 eur".parse().unwrap(),
        ..order(10)
    };
    assert!(check_made(&good, &euros, Network::Mainnet, now()).is_err());
}

#[test]
fn what_is_paid_must_be_what_is_asked_for() {
    let examined = examine(
        &asked(&Draft::new(10_000).text(), 10),
        Network::Mainnet,
        now(),
    )
    .unwrap();
    assert_eq!(
        examined.payment_id,
        sha256::Hash::hash(&[1; 32]).to_string()
    );
    assert_eq!(examined.amount, Some("10 sats".parse().unwrap()));
    assert_eq!(examined.expires_at, Some(Timestamp::from_secs(NOW + 600)));
    assert_eq!(examined.description.as_deref(), Some("a search"));
    for (draft, sats, what) in [
        // The invoice is for a fortune, the demand for one sat (D-36).
        (Draft::new(1_000_000_000), 1, "1000000 sats"),
        (Draft::new(10_000), 11, "11 sats"),
        (Draft::new(10_500), 10, "fraction"),
        (
            Draft {
                msat: None,
                ..Draft::new(0)
            },
            10,
            "open",
        ),
        (
            Draft {
                currency: Currency::Signet,
                ..Draft::new(10_000)
            },
            10,
            "signet",
        ),
        (
            Draft {
                made: NOW - 599,
                ..Draft::new(10_000)
            },
            10,
            "expired",
        ),
        (
            Draft {
                made: NOW - 86_400,
                ..Draft::new(10_000)
            },
            10,
            "expired",
        ),
    ] {
        let error = examine(&asked(&draft.text(), sats), Network::Mainnet, now()).unwrap_err();
        assert_eq!(error.kind(), RailErrorKind::Invalid);
        assert!(error.to_string().contains(what), "{error}");
    }
    let regtest = Draft {
        currency: Currency::Regtest,
        ..Draft::new(10_000)
    }
    .text();
    assert!(examine(&asked(&regtest, 10), Network::Regtest, now()).is_ok());
    assert!(examine(&asked("fake:1", 10), Network::Mainnet, now()).is_err());
}

#[test]
fn a_description_is_one_line_of_bounded_length() {
    let described = |text: &str| {
        description_of(&PaymentOrder {
            description: text.into(),
            ..order(1)
        })
    };
    assert_eq!(described(" a\n search\u{7}\tof  x "), "a search of x");
    let long = described(&"ö".repeat(5000));
    assert_eq!(long.chars().count(), DESCRIPTION + 1);
    assert!(long.len() < 639);
}

#[test]
fn networks_have_the_names_of_nip_47() {
    for network in [
        Network::Mainnet,
        Network::Testnet,
        Network::Signet,
        Network::Regtest,
        Network::Simnet,
    ] {
        assert_eq!(network.as_str().parse::<Network>().unwrap(), network);
    }
    assert!("moon".parse::<Network>().is_err());
}

#[test]
fn amounts_convert_exactly() {
    assert_eq!(msat_of(&"7 sats".parse().unwrap()).unwrap(), 7000);
    assert!(msat_of(&"7 usd".parse().unwrap()).is_err());
    assert_eq!(sats_of(7999).unwrap(), "7 sats".parse().unwrap());
    assert_eq!(sats_of(999), Some(Amount::zero(Unit::SATS)));
}

/// Made by LNbits 1.6.2 with its fake funding source: no feature bits.
#[test]
fn an_invoice_without_feature_bits_is_read() {
    let text = "lnbc210n1p4srdzldqddahx2grrv9kxcxqzjcsp5leetkenyt7rsjuuw85j6npe0ylm93mel9xud5ems9sw40g0uf29qpp5760jp\
ndnlhm9fdhwqrgvnrscsl9c2f9yjhc5hpeyjsa4n676v5fsqyxtfjt2x882r6yh8jehsh6gfy08hp6gj40e3xw6n2ff9wkrc6g35zdrx7jl0tdqj8rshfly2s2\
f66s0kaz05402vcym07rzkptcpdgqptmt8p";
    let invoice = Invoice::parse(text).unwrap();
    assert_eq!(invoice.sats().unwrap(), 21);
    assert_eq!(invoice.description.as_deref(), Some("one call"));
    assert_eq!(invoice.expires_at.since(invoice.made_at).as_secs(), 600);
    assert_eq!(
        invoice.payment_hash,
        "f69f20cdb3fdf654b6ee00d0c98e1887cb8524a495f14b8724943b59ebda6513"
    );
    // One letter of it changed.
    assert!(Invoice::parse(&text.replace("xqzjc", "xqyjc")).is_err());
}
