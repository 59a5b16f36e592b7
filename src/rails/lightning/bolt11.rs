//! BOLT11 invoices: read, and held against what was ordered (by a seller) or asked for (by a buyer).
//!
//! A wallet is somebody else's program, and an invoice is a stranger's text. Neither is believed: what leaves the server
//! and what reaches the buyer's wallet asks for exactly the amount in question, on the right network, and has not expired.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use lightning_invoice::{
    Currency, DEFAULT_EXPIRY_TIME, RawBolt11Invoice, SignedRawBolt11Invoice, TaggedField,
};

use crate::error::{Error, Result};
use crate::payment::{Amount, Examined, PaymentOrder, PaymentRequest, RailError, Timestamp, Unit};

/// Millisatoshis in a satoshi.
pub const MSAT_PER_SAT: u64 = 1000;

/// The longest text that is read as an invoice: several times what wallets make.
const LONGEST: usize = 8 * 1024;
/// An invoice that expires later than this was not meant as an offer: it would have to be watched until then.
const LONGEST_OFFER: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// A payment needs a moment to travel, so an invoice about to expire is not paid any more.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// Characters of a description that go into an invoice: BOLT11 has room for 639 bytes, and some wallets for less.
const DESCRIPTION: usize = 150;

/// Which money an invoice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Network {
    /// Bitcoin. The only network whose coins are money.
    #[default]
    Mainnet,
    /// The public test network.
    Testnet,
    /// The signed test network, or one of its siblings.
    Signet,
    /// A network of one's own.
    Regtest,
    /// The simulation network of btcd.
    Simnet,
}

impl Network {
    /// The name in config files, on the command line and in NIP-47.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mainnet => "mainnet",
            Self::Testnet => "testnet",
            Self::Signet => "signet",
            Self::Regtest => "regtest",
            Self::Simnet => "simnet",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "mainnet" | "bitcoin" => Ok(Self::Mainnet),
            "testnet" | "testnet3" | "testnet4" => Ok(Self::Testnet),
            "signet" | "mutinynet" => Ok(Self::Signet),
            "regtest" => Ok(Self::Regtest),
            "simnet" => Ok(Self::Simnet),
            _ => Err(Error::config(
                "a Lightning network must be mainnet, testnet, signet, regtest or simnet",
            )),
        }
    }
}

/// What an invoice says. Its signature was checked.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invoice {
    /// The payment hash, as 64 hex digits: the name of the payment.
    pub payment_hash: String,
    /// What it asks for; `None` leaves the amount to the payer.
    pub amount_msat: Option<u64>,
    /// On which network.
    pub network: Network,
    /// When it was made, by the clock of its maker.
    pub made_at: Timestamp,
    /// When it can no longer be paid.
    pub expires_at: Timestamp,
    /// What is bought, in the words of its maker.
    pub description: Option<String>,
}

/// Without the description, which is a stranger's text.
impl fmt::Debug for Invoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invoice")
            .field("payment_hash", &self.payment_hash)
            .field("amount_msat", &self.amount_msat)
            .field("network", &self.network)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

impl Invoice {
    /// Reads an invoice: its checksum and its signature are right, and what counts stands in it once.
    ///
    /// It may lack what only the nodes on its way need: LNbits's fake wallet writes invoices without feature bits, which
    /// the parser's own rules refuse, and which wallets pay.
    ///
    /// # Errors
    ///
    /// A [`RailError`] of kind [`Invalid`](crate::payment::RailErrorKind::Invalid) that does not repeat the text.
    pub fn parse(text: &str) -> Result<Self, RailError> {
        let text = text.trim();
        let text = match text.get(..10) {
            Some(scheme) if scheme.eq_ignore_ascii_case("lightning:") => {
                text.get(10..).unwrap_or_default()
            }
            _ => text,
        };
        if text.len() > LONGEST {
            return Err(RailError::invalid("the invoice is too long"));
        }
        // The error may repeat parts of the text.
        let signed: SignedRawBolt11Invoice = text
            .parse()
            .map_err(|_| RailError::invalid("this is no BOLT11 invoice"))?;
        let raw = signed.raw_invoice();
        check_fields(&signed)?;
        let payment_hash = raw
            .payment_hash()
            .ok_or_else(|| RailError::invalid("the invoice has no payment hash"))?;
        let made = raw.data.timestamp.as_duration_since_epoch();
        let stands = raw
            .expiry_time()
            .map_or(DEFAULT_EXPIRY_TIME, |expiry| expiry.as_seconds());
        let expires = made.saturating_add(Duration::from_secs(stands));
        Ok(Self {
            payment_hash: payment_hash.0.to_string(),
            amount_msat: amount_msat(raw)?,
            network: match raw.currency() {
                Currency::Bitcoin => Network::Mainnet,
                Currency::BitcoinTestnet => Network::Testnet,
                Currency::Signet => Network::Signet,
                Currency::Regtest => Network::Regtest,
                Currency::Simnet => Network::Simnet,
            },
            made_at: Timestamp::from_secs(made.as_secs()),
            expires_at: Timestamp::from_secs(expires.as_secs()),
            description: raw
                .description()
                .map(|text| text.as_inner().0.clone())
                .filter(|text| !text.is_empty()),
        })
    }

    /// The amount in whole sats, as CEP-8 counts.
    ///
    /// # Errors
    ///
    /// A [`RailError`] of kind [`Invalid`](crate::payment::RailErrorKind::Invalid) without an amount, for zero, or for a
    /// fraction of a sat.
    pub fn sats(&self) -> Result<u64, RailError> {
        match self.amount_msat {
            None => Err(RailError::invalid("the invoice leaves the amount open")),
            Some(0) => Err(RailError::invalid("the invoice asks for nothing")),
            Some(msat) if msat % MSAT_PER_SAT != 0 => Err(RailError::invalid(
                "the invoice asks for a fraction of a sat",
            )),
            Some(msat) => Ok(msat / MSAT_PER_SAT),
        }
    }
}

/// What a reader could take in two ways is refused: two readers might take it differently.
fn check_fields(signed: &SignedRawBolt11Invoice) -> Result<(), RailError> {
    let wrong = |what: &'static str| Err(RailError::invalid(what));
    if !signed.check_signature() {
        return wrong("the invoice is not signed by its payee");
    }
    let (mut hashes, mut secrets, mut descriptions, mut expiries) = (0, 0, 0, 0);
    for field in signed.raw_invoice().known_tagged_fields() {
        match field {
            TaggedField::PaymentHash(_) => hashes += 1,
            TaggedField::PaymentSecret(_) => secrets += 1,
            TaggedField::Description(_) | TaggedField::DescriptionHash(_) => descriptions += 1,
            TaggedField::ExpiryTime(_) => expiries += 1,
            TaggedField::Features(features) if features.requires_unknown_bits() => {
                return wrong("the invoice needs a feature that is not known");
            }
            _ => {}
        }
    }
    match (hashes, secrets, descriptions, expiries) {
        (1, 1, 1, 0 | 1) => Ok(()),
        _ => wrong("the invoice lacks something, or says it twice"),
    }
}

/// The amount of an invoice, which counts in picobitcoins.
fn amount_msat(raw: &RawBolt11Invoice) -> Result<Option<u64>, RailError> {
    match raw.amount_pico_btc() {
        Some(pico) if pico % 10 == 0 => Ok(Some(pico / 10)),
        Some(_) => Err(RailError::invalid(
            "the invoice asks for a fraction of a millisatoshi",
        )),
        // More than can be counted is not the same as leaving it open.
        None if raw.hrp.raw_amount.is_some() => Err(RailError::invalid(
            "the invoice asks for more than there is",
        )),
        None => Ok(None),
    }
}

/// An order's amount in millisatoshis, as wallets count.
///
/// # Errors
///
/// A [`RailError`] if the unit is not sats, or for more than there can be.
pub fn msat_of(amount: &Amount) -> Result<u64, RailError> {
    if *amount.unit() != Unit::SATS {
        return Err(RailError::invalid("Lightning counts in sats"));
    }
    amount
        .value()
        .checked_mul(MSAT_PER_SAT)
        .ok_or_else(|| RailError::invalid("the amount is more than there is"))
}

/// Millisatoshis that arrived as an amount in sats. What is less than a sat does not count.
#[must_use]
pub fn sats_of(msat: u64) -> Option<Amount> {
    Amount::new(msat / MSAT_PER_SAT, Unit::SATS).ok()
}

/// What an invoice for `order` says to the payer: what is bought, on one line of bounded length.
#[must_use]
pub fn description_of(order: &PaymentOrder) -> String {
    let mut text: String = order
        .description
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    if let Some((end, _)) = text.char_indices().nth(DESCRIPTION) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Holds the invoice that a wallet made against the order: exactly the amount, on `network`, and payable.
///
/// How long it stands is the wallet's choice; the offer ends when the invoice does.
///
/// # Errors
///
/// A [`RailError`] of kind [`Invalid`](crate::payment::RailErrorKind::Invalid) that says what is wrong: it must not leave.
pub fn check_made(
    text: &str,
    order: &PaymentOrder,
    network: Network,
    now: Timestamp,
) -> Result<Invoice, RailError> {
    let invoice = Invoice::parse(text)?;
    let asked = msat_of(&order.amount)?;
    if invoice.amount_msat != Some(asked) {
        let made = invoice
            .amount_msat
            .map_or_else(|| "no amount".to_owned(), |msat| format!("{msat} msat"));
        return Err(RailError::invalid(format!(
            "the wallet made an invoice over {made} where {asked} msat were ordered"
        )));
    }
    check_network(&invoice, network)?;
    let left = invoice.expires_at.since(now);
    if left.is_zero() {
        return Err(RailError::invalid(
            "the wallet made an invoice that has expired",
        ));
    }
    if left > LONGEST_OFFER {
        return Err(RailError::invalid(
            "the wallet made an invoice that stands for more than a year",
        ));
    }
    Ok(invoice)
}

/// Reads what a server asks to be paid, and holds it against what the server says of it: the same amount exactly, in whole
/// sats, on `network`, and not about to expire.
///
/// # Errors
///
/// A [`RailError`] of kind [`Invalid`](crate::payment::RailErrorKind::Invalid) that says what is wrong: it must not be paid.
pub fn examine(
    request: &PaymentRequest,
    network: Network,
    now: Timestamp,
) -> Result<Examined, RailError> {
    let invoice = Invoice::parse(request.pay_req.as_str())?;
    let sats = invoice.sats()?;
    let amount = Amount::new(sats, Unit::SATS).map_err(|error| {
        RailError::invalid("the amount is more than there is").with_source(error)
    })?;
    if amount != request.amount {
        return Err(RailError::invalid(format!(
            "the invoice asks for {amount}, and the server for {}",
            request.amount
        )));
    }
    check_network(&invoice, network)?;
    if invoice.expires_at.since(now) < LAST_MOMENT {
        return Err(RailError::invalid("the invoice has expired"));
    }
    let mut examined = Examined::new(invoice.payment_hash);
    examined.amount = Some(amount);
    examined.expires_at = Some(invoice.expires_at);
    examined.description = invoice.description;
    Ok(examined)
}

fn check_network(invoice: &Invoice, network: Network) -> Result<(), RailError> {
    if invoice.network == network {
        return Ok(());
    }
    Err(RailError::invalid(format!(
        "the invoice is for {}, where {network} is used",
        invoice.network
    )))
}

#[cfg(test)]
mod tests;
