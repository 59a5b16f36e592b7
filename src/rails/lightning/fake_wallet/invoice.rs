//! Real BOLT11 invoices, signed by a node key that belongs to no node.

use std::fmt;
use std::time::Duration;

use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret};
use nostr::SecretKey;
use nostr::hashes::{Hash as _, sha256};
use nostr::secp256k1::{self, All, PublicKey, Secp256k1};

use super::method::Refusal;
use crate::payment::Timestamp;
use crate::rails::lightning::Network;

/// How many blocks before it can be reclaimed a payment must arrive; any number does, as there are no blocks.
const FINAL_CLTV: u64 = 18;

/// A payment hash.
pub(super) type PaymentHash = [u8; 32];

/// How BOLT11 writes it.
fn currency(network: Network) -> Currency {
    match network {
        Network::Mainnet => Currency::Bitcoin,
        Network::Testnet => Currency::BitcoinTestnet,
        Network::Signet => Currency::Signet,
        Network::Regtest => Currency::Regtest,
        Network::Simnet => Currency::Simnet,
    }
}

/// One that is not `network`.
pub(super) fn another(network: Network) -> Network {
    match network {
        Network::Signet => Network::Testnet,
        _ => Network::Signet,
    }
}

/// What an invoice is to say.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) network: Network,
    /// `None`: whoever pays decides.
    pub(super) amount_msat: Option<u64>,
    pub(super) description: Description,
    pub(super) made_at: Timestamp,
    pub(super) expiry: Duration,
}

/// What an invoice says it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Description {
    Text(String),
    Hash([u8; 32]),
}

/// An invoice, and what only its maker knows.
pub(super) struct Made {
    pub(super) invoice: String,
    pub(super) payment_hash: PaymentHash,
    pub(super) preimage: [u8; 32],
}

/// Signs invoices.
pub(super) struct Signer {
    key: secp256k1::SecretKey,
    secp: Secp256k1<All>,
}

impl Signer {
    pub(super) fn generate() -> Self {
        Self {
            key: *SecretKey::generate(),
            secp: Secp256k1::new(),
        }
    }

    /// The id of the node that there is none of.
    pub(super) fn node_id(&self) -> PublicKey {
        self.key.public_key(&self.secp)
    }

    pub(super) fn make(&self, wanted: Wanted) -> Result<Made, Refusal> {
        let preimage = random_32();
        let payment_hash = sha256::Hash::hash(&preimage);
        let builder = InvoiceBuilder::new(currency(wanted.network))
            .payment_hash(payment_hash)
            .payment_secret(PaymentSecret(random_32()))
            .duration_since_epoch(Duration::from_secs(wanted.made_at.as_secs()))
            .min_final_cltv_expiry_delta(FINAL_CLTV)
            .expiry_time(wanted.expiry);
        let builder = match wanted.amount_msat {
            Some(amount) => builder.amount_milli_satoshis(amount),
            None => builder,
        };
        let sign = |message: &_| self.secp.sign_ecdsa_recoverable(message, &self.key);
        let invoice = match wanted.description {
            Description::Text(text) => builder.description(text).build_signed(sign),
            Description::Hash(hash) => builder
                .description_hash(sha256::Hash::from_byte_array(hash))
                .build_signed(sign),
        };
        // What cannot be put into an invoice: a description of more than 639 bytes, an amount above all money.
        let invoice = invoice.map_err(|_| Refusal::Other)?;
        Ok(Made {
            invoice: invoice.to_string(),
            payment_hash: payment_hash.to_byte_array(),
            preimage,
        })
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(hidden)")
    }
}

/// The payment hash of what may be an invoice.
pub(super) fn payment_hash_of(invoice: &str) -> Option<PaymentHash> {
    let invoice: Bolt11Invoice = invoice.trim().parse().ok()?;
    Some(invoice.payment_hash().to_byte_array())
}

/// Bytes that nobody can guess.
pub(super) fn random_32() -> [u8; 32] {
    SecretKey::generate().to_secret_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            network: Network::Regtest,
            amount_msat: Some(21_000),
            description: Description::Text("tool:search".to_owned()),
            made_at: Timestamp::from_secs(1_800_000_000),
            expiry: Duration::from_secs(600),
        }
    }

    #[test]
    fn an_invoice_says_what_it_was_to_say() {
        let signer = Signer::generate();
        let made = signer.make(wanted()).unwrap();
        assert!(made.invoice.starts_with("lnbcrt210n1"), "{}", made.invoice);
        let read: Bolt11Invoice = made.invoice.parse().unwrap();
        assert_eq!(read.amount_milli_satoshis(), Some(21_000));
        assert_eq!(read.description().to_string(), "tool:search");
        assert_eq!(read.expiry_time(), Duration::from_secs(600));
        assert_eq!(read.duration_since_epoch().as_secs(), 1_800_000_000);
        assert_eq!(read.get_payee_pub_key(), signer.node_id());
        assert_eq!(read.payment_hash().to_byte_array(), made.payment_hash);
        assert_eq!(
            sha256::Hash::hash(&made.preimage).to_byte_array(),
            made.payment_hash
        );
        assert_eq!(payment_hash_of(&made.invoice), Some(made.payment_hash));
        assert_eq!(payment_hash_of("lnbcrt1nonsense"), None);
    }

    #[test]
    fn every_network_has_its_prefix() {
        let signer = Signer::generate();
        for (network, prefix) in [
            (Network::Regtest, "lnbcrt2"),
            (Network::Simnet, "lnsb2"),
            (Network::Signet, "lntbs2"),
            (Network::Testnet, "lntb2"),
            (Network::Mainnet, "lnbc2"),
        ] {
            let made = signer
                .make(Wanted {
                    network,
                    ..wanted()
                })
                .unwrap();
            assert!(made.invoice.starts_with(prefix), "{}", made.invoice);
            assert_ne!(another(network), network);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let signer = Signer::generate();
        let long = Description::Text("x".repeat(640));
        assert!(
            signer
                .make(Wanted {
                    description: long,
                    ..wanted()
                })
                .is_err()
        );
        let much = Some(u64::MAX);
        assert!(
            signer
                .make(Wanted {
                    amount_msat: much,
                    ..wanted()
                })
                .is_err()
        );
    }
}
